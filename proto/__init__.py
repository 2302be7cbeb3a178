"""The wire contract: messages, the record batch and its codec, checks, compression, error codes, names."""

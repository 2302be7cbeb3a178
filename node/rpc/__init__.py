"""gRPC: the server side of the client contract, and the streams between nodes."""

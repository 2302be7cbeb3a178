"""One replica of one Raft group: the core driven over its log and its state machine, and all groups together."""

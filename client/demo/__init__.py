"""`python -m quorumlog.demo`: a replicated cluster carries real data through the death of a leader."""

"""`python -m quorumlog.demo`: a replicated cluster carries real data through the death of a leader.

Three nodes on this machine; producers send samples of this machine's processes, keyed by process; the members of a
consumer group aggregate them per window. Midway the leader of a partition is killed with SIGKILL and started again
later, a member joins and one leaves. Producers append each acknowledgement to a file, consumers each record; a process
of its own reads every partition from every replica and compares the three.

Exit codes: 0 nothing was lost or doubled, 1 something was (or the demo itself failed), 4 the demo proves nothing: the
term did not change, too few records were acknowledged, or none soon after the kill.
"""

"""The sans-IO core of one Raft group: values in, values out. No clock, no sockets, no threads, no randomness.

The shell's loop
================

The shell feeds a `RawNode` with ticks, messages, proposals and completions, and takes its work out as one `Ready`::

    node.tick()  /  node.step(message)  /  node.propose(entries)  /  node.on_persisted(ready.persisted)
    if node.has_ready():
        ready = node.ready()
        ...

and carries each Ready out in this order:

1. Install the snapshot that was stepped, if `install` says so; truncate the log from `truncate_since`, write `entries`,
   `hard_state` and `configurations`, note `repaired`: all in one atomic write. From here on, before the next call into
   the core, the `LogReader` must show the log as it is now: written, durable or not.
2. Send `messages`. They do not wait for the disk; a leader's APPENDs travel while it syncs.
3. Start the sync. When one has *finished*, for the newest Ready whose write it covered: send the `messages_after_sync`
   of all Readys up to that one, in order, and call `on_persisted(ready.persisted)`. A Ready with nothing to write
   (`must_sync` is False) counts as durable as soon as all Readys before it are.
4. Apply the log through `commit_index`, call `applied_to`, and answer each of `read_states` once its index is applied.
   Tell whoever waits for one of `reads_lost` that it will not be answered.

Many Readys may be on their way to the disk at once. After a crash the shell makes a new RawNode from what was durable.
A message that raises StepError is counted and dropped. Any other exception means that this replica is broken: stop.

Duties besides: `reset_peer` at each new session with a peer and answers of older sessions dropped; `report_unreachable`
when its stream breaks; `compact` when a prefix is dropped; `on_entries_loaded` after `LogReader.entries` said None.
FIFO per peer is not needed for safety, but without it pipelining falls back to probing again and again.

Messages
========

`type`, `sender`, `to` and `term` are in all; of the other fields these mean something:

====================  ============================================================================================
APPEND                `index`, `log_term`: the entry before `entries`; `entries`; `commit_index` of the leader
APPEND_RESPONSE       accepted: `index`, the last entry known to match; `last_index`, `stable_index` when it leaves;
                      `reject`: `index` as asked, `hint_index`, `hint_term`: the last entry that may match; `counting`,
                      `nonce`
HEARTBEAT             `commit_index`, no more than the receiver shares; `context`: a read round or 0; `quiesce`;
                      to a replica in repair: `nonce` of its own that a quorum has confirmed, `index` to reach then
HEARTBEAT_RESPONSE    `context` as asked; `last_index`; `counting`, `nonce`
VOTE                  `index`, `log_term`: the candidate's last entry; `force`: asked for by the leader itself
VOTE_RESPONSE         `reject`; `counting`
PRE_VOTE              as VOTE, but `term` is the one the campaign would open
PRE_VOTE_RESPONSE     a grant carries the term asked for, `reject` the term of whoever refuses; `counting`
TIMEOUT_NOW           nothing else: campaign now
SNAPSHOT              `index`, `log_term`: the last entry that it stands for; `configuration` in force there, without
                      voters where the sender, born after its group, has never known it: a later entry will tell.
                      The state itself is carried by the shells; this is stepped once it is whole. Answered as an APPEND
====================  ============================================================================================

What is durable before what
===========================

While the present term is not durable, everything goes into `messages_after_sync`. Answers to APPEND and granted votes
always do. A replica's own vote and its own entries count only from `on_persisted` on. When a later term begins,
messages not yet taken out are dropped: a Ready never mixes terms (a pre-vote speaks of the next one).

Deviations from the paper
=========================

- Pre-vote (thesis 9.6), check-quorum (6.2) and leader stickiness (4.2.3) are always on. A replica that sees APPEND,
  HEARTBEAT, VOTE or PRE_VOTE of an older term answers with its own; that keeps the three from locking each other out.
- Acknowledgements wait for the follower's disk, heartbeats do not; so an APPEND stands for a heartbeat only while the
  peer answers.
- Refusals carry a hint that skips a whole term per round trip (the end of section 5.3, sharpened as in etcd).
- Reads of one turn share a round (thesis 6.4), and rounds are cumulative.
- An idle group quiesces: when nothing has happened for an election timeout and every voter has everything, the leader
  says so in a last heartbeat, and nobody ticks. Any other message, an input of the shell, a broken stream or a new
  session of a peer wakes it. The shell watches over nodes and reports the dead ones; the group itself no longer does.
- `counting=False` is the answer of a replica that may have forgotten what it promised (repair). It moves `Progress` and
  nothing else. Such a replica takes no commit index from heartbeats either: what it holds may differ from what it once
  had. It draws a nonce when it starts; a leader lets that join a read round, so that a majority of whole voters
  confirms the leader's term after the nonce was drawn, and names the last entry it has then. No later leader can have
  counted a promise of the replica from before: it would have needed a vote of that majority first. So when the replica
  holds all of that, durable, it remembers everything that mattered, and counts again from the write that says so.
- Every change of voters is a joint one, configurations are in force from their append on (section 6), and there is one
  change at a time. The leader appends the final configuration by itself.
- A replica born after its group knows of no configuration and begins in repair. It may stand in for a former self,
  removed or wiped, that had promised something, and the first configurations that it reads in its log are those of
  before: by them it would vote, and even campaign, with the beginning of a log.
- The core knows of a snapshot where it begins and what was in force there; the state travels between the shells.
"""

from quorumlog.raft.config import Config
from quorumlog.raft.configurations import ConfigurationRow
from quorumlog.raft.errors import (
    ConfigurationRefused,
    InvariantViolation,
    NotLeader,
    ProposalRefused,
    RaftError,
    StepError,
)
from quorumlog.raft.progress import ProgressState, ProgressView
from quorumlog.raft.rawnode import RawNode
from quorumlog.raft.ready import Persisted, ReadState, Ready
from quorumlog.raft.tracer import Tracer
from quorumlog.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryCodec,
    EntryKind,
    HardState,
    LogIndex,
    LogReader,
    Message,
    MessageType,
    NodeId,
    Role,
    Term,
)

__all__ = [
    "NO_NODE",
    "Config",
    "Configuration",
    "ConfigurationRefused",
    "ConfigurationRow",
    "Entry",
    "EntryCodec",
    "EntryKind",
    "HardState",
    "InvariantViolation",
    "LogIndex",
    "LogReader",
    "Message",
    "MessageType",
    "NodeId",
    "NotLeader",
    "Persisted",
    "ProgressState",
    "ProgressView",
    "ProposalRefused",
    "RaftError",
    "RawNode",
    "ReadState",
    "Ready",
    "Role",
    "StepError",
    "Term",
    "Tracer",
]

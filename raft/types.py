"""The values that cross the border of the Raft core: identifiers, entries, messages, and what must be persisted.

All of them are immutable and opaque to IO: nothing here knows a socket, a file, a clock or a serialisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NewType, Protocol

Term = NewType("Term", int)
"""Leadership period (Raft section 5.1); 0 before the first election."""

LogIndex = NewType("LogIndex", int)
"""Position of an entry in a Raft log, from 1; 0 stands for "before the first entry". Never an offset."""

NodeId = NewType("NodeId", int)
"""A node of the cluster, from 1; 0 stands for "none"."""

NO_NODE = NodeId(0)


class EntryKind(IntEnum):
    """What an entry is for. The core itself only tells NOOP and CONFIGURATION apart from the rest."""

    NOOP = 1
    CONFIGURATION = 2
    RECORDS = 3
    CONTROL = 4
    COMMAND = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log. `data` is the entry exactly as it is stored and sent; the core never looks inside."""

    index: LogIndex
    term: Term
    kind: EntryKind
    data: bytes


@dataclass(frozen=True, slots=True)
class Configuration:
    """Who votes, and who only learns: takes the log and counts for nothing.

    While the voters are being changed (joint consensus, Raft section 6), `outgoing` are the voters of before, and every
    decision needs a majority of both. Whoever is outgoing may be a learner of the new configuration already. Without
    voters, nobody decides anything: that is what a replica knows that was born after its group. `version` is the
    shell's, which the core carries along.
    """

    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    version: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for part in (self.voters, self.learners, self.outgoing):
            assert tuple(sorted(set(part))) == part, f"voters, learners, outgoing must be sorted and distinct: {self}"
        assert not set(self.voters) & set(self.learners), f"nobody both votes and learns: {self}"
        assert self.voters or not self.outgoing, f"a change of voters leads to voters: {self}"

    @property
    def joint(self) -> bool:
        """Whether two majorities are needed, because the voters are being changed."""
        return bool(self.outgoing)

    @property
    def replicas(self) -> tuple[NodeId, ...]:
        """Everybody who has the log, each once, voters first."""
        if not self.outgoing:
            return self.voters + self.learners
        return tuple(dict.fromkeys(self.voters + self.outgoing + self.learners))


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before any message of `term` leaves (Raft figure 2, persistent state)."""

    term: Term
    vote: NodeId


class Role(Enum):
    """Role of a replica in its group."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre_candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class MessageType(IntEnum):
    """Messages between the replicas of one group."""

    APPEND = 1
    APPEND_RESPONSE = 2
    HEARTBEAT = 3
    HEARTBEAT_RESPONSE = 4
    VOTE = 5
    VOTE_RESPONSE = 6
    PRE_VOTE = 7
    PRE_VOTE_RESPONSE = 8
    TIMEOUT_NOW = 9
    SNAPSHOT = 10


@dataclass(frozen=True, slots=True)
class Message:
    """One message of one group. Which fields carry meaning is told per type in the package docstring.

    `counting` is False on answers of a replica that may have forgotten what it promised: such an answer moves
    `Progress`, never a quorum, check-quorum or read-index. `context` pairs heartbeats with read-index rounds. `force`
    marks a vote request of a leadership transfer, which leader stickiness does not hold up. `nonce` is drawn by a
    replica in repair at each start; its leader brings it back once a quorum has confirmed its term after that.
    """

    type: MessageType
    sender: NodeId
    to: NodeId
    term: Term
    index: LogIndex = LogIndex(0)
    log_term: Term = Term(0)
    entries: tuple[Entry, ...] = ()
    commit_index: LogIndex = LogIndex(0)
    reject: bool = False
    hint_index: LogIndex = LogIndex(0)
    hint_term: Term = Term(0)
    last_index: LogIndex = LogIndex(0)
    stable_index: LogIndex = LogIndex(0)
    counting: bool = True
    context: int = 0
    force: bool = False
    quiesce: bool = False
    nonce: int = 0
    configuration: Configuration | None = None


class EntryCodec(Protocol):
    """Makes and reads the entries that the core appends by itself."""

    def noop(self, index: LogIndex, term: Term) -> bytes:
        """The data of the first entry of a leader's term."""

    def configuration(self, index: LogIndex, term: Term, configuration: Configuration) -> bytes:
        """The data of an entry of kind CONFIGURATION."""

    def read_configuration(self, entry: Entry) -> Configuration:
        """What `configuration` has put into an entry, on this or another replica."""


class LogReader(Protocol):
    """The log as the shell holds it: everything that a `Ready` has handed out, durable or not, and nothing else."""

    def first_index(self) -> LogIndex:
        """Index of the first entry retained; `last_index() + 1` when the log is empty."""

    def last_index(self) -> LogIndex:
        """Index of the last entry (inclusive); `first_index() - 1` when the log is empty."""

    def term(self, index: LogIndex) -> Term | None:
        """Term of the entry at `index`, for `first_index() - 1 <= index <= last_index()`; None when compacted away."""

    def entries(self, first: LogIndex, last: LogIndex, size_bytes_max: int) -> Sequence[Entry] | None:
        """Entries from `first` to `last` (both inclusive), at least one and then no more than `size_bytes_max` of data.

        None when they are not in memory: the shell is fetching them and calls `RawNode.on_entries_loaded` when they
        are there.
        """

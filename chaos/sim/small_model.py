"""One replica of the small-model search: the shipped core over a log and a disk in memory, as a value.

A replica's state is copied before each input and turned into something hashable after it, so that what an input does to
a state is worked out once, however many states of the cluster share it. Numbers that only ever grow are left out of the
comparison, or states would never meet again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from quorumlog.raft import (
    NO_NODE,
    Config,
    Configuration,
    ConfigurationRow,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    RawNode,
    Ready,
    Term,
)
from quorumlog.raft.configurations import Configurations
from quorumlog.raft.core import Core
from quorumlog.raft.inflights import Inflights
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.log import RaftLog
from quorumlog.raft.progress import Progress
from quorumlog.raft.reads import ReadRounds

ELECTION_TICKS = 2


class Broken(Exception):
    """Something that must hold does not."""


class Codec:
    """The core's own entries, as text."""

    def noop(self, index: LogIndex, term: Term) -> bytes:
        """Nothing."""
        return b""

    def configuration(self, index: LogIndex, term: Term, configuration: Configuration) -> bytes:
        """Voters, learners and outgoing voters."""
        parts = (configuration.voters, configuration.learners, configuration.outgoing)
        return "|".join(",".join(map(str, part)) for part in parts).encode()

    def read_configuration(self, entry: Entry) -> Configuration:
        """What `configuration` has written."""
        voters, learners, outgoing = (
            tuple(NodeId(int(one)) for one in part.split(",") if one) for part in entry.data.decode().split("|")
        )
        return Configuration(voters, learners, outgoing)


class SteadyRandom(random.Random):
    """Always draws the node's own number, as the text scripts do."""

    def __init__(self, node_id: int) -> None:
        super().__init__(0)
        self.node_id = node_id

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        """The node's number, within the range."""
        return self.node_id % start


class SmallLog:
    """A LogReader over a tuple of entries behind a dropped prefix."""

    __slots__ = ("entries_held", "offset", "offset_term")

    def __init__(self) -> None:
        self.entries_held: tuple[Entry, ...] = ()
        self.offset = 0
        self.offset_term = Term(0)

    def first_index(self) -> LogIndex:
        """The first entry held."""
        return LogIndex(self.offset + 1)

    def last_index(self) -> LogIndex:
        """The last entry (inclusive)."""
        return LogIndex(self.offset + len(self.entries_held))

    def term(self, index: LogIndex) -> Term | None:
        """Term of an entry, or of the one before the first."""
        if index == self.offset:
            return self.offset_term
        return None if index < self.offset else self.entries_held[index - self.offset - 1].term

    def entries(self, first: LogIndex, last: LogIndex, size_bytes_max: int) -> Sequence[Entry] | None:
        """All from `first` to `last` (inclusive): they are small."""
        return self.entries_held[first - self.offset - 1 : last - self.offset]

    def write(self, ready: Ready, install_term: Term) -> None:
        """Carry out what a Ready asks to be written."""
        if ready.install is not None:
            self.entries_held, self.offset, self.offset_term = (), ready.install, install_term
        if ready.truncate_since is not None:
            self.entries_held = self.entries_held[: ready.truncate_since - self.offset - 1]
        self.entries_held += ready.entries

    def compact(self, upto: int) -> None:
        """Drop the prefix through `upto` (inclusive)."""
        if upto > self.offset:
            self.entries_held, self.offset, self.offset_term = (
                self.entries_held[upto - self.offset :],
                upto,
                self.entries_held[upto - self.offset - 1].term,
            )

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is here or in the prefix dropped."""
        return index <= self.offset or (index <= self.last_index() and self.term(LogIndex(index)) == term)


class SmallReplica:
    """The core, what its shell has written, what of that is on the disk, and what waits for it."""

    __slots__ = ("disk", "disk_hard_state", "disk_rows", "in_flight", "log", "node", "node_id", "snapshot_terms")

    def __init__(self, node_id: int, voters: Configuration) -> None:
        self.node_id = node_id
        self.disk = SmallLog()
        self.disk_hard_state = HardState(Term(0), NO_NODE)
        self.disk_rows: tuple[ConfigurationRow, ...] = (ConfigurationRow(LogIndex(0), voters),)
        self.restart()

    def restart(self) -> None:
        """Begin from the disk: what was not synced is lost."""
        self.log = SmallLog()
        self.log.entries_held, self.log.offset = self.disk.entries_held, self.disk.offset
        self.log.offset_term = self.disk.offset_term
        self.in_flight: tuple[Ready, ...] = ()
        self.snapshot_terms: tuple[tuple[int, Term], ...] = ()
        self.node = RawNode(
            Config(NodeId(self.node_id), election_ticks=ELECTION_TICKS, heartbeat_ticks=1),
            self.log,
            hard_state=self.disk_hard_state,
            configurations=[row for row in self.disk_rows if row.index <= self.disk.last_index()],
            commit_index=LogIndex(self.disk.offset),
            applied=LogIndex(self.disk.offset),
            rng=SteadyRandom(self.node_id),
            codec=Codec(),
        )

    def step(self, message: Message) -> None:
        """Hand a message to the core."""
        if message.type is MessageType.SNAPSHOT:
            self.snapshot_terms += ((message.index, message.log_term),)
        self.node.step(message)

    def propose(self) -> None:
        """One record."""
        self.node.propose([Entry(LogIndex(self.node.last_index + 1), self.node.term, EntryKind.RECORDS, b"x")])

    def drain(self) -> tuple[list[Message], int]:
        """Write what the core has for its shell. Returns what leaves at once, and how many Readys there were."""
        leaves: list[Message] = []
        count = 0
        while self.node.has_ready():
            count += 1
            ready = self.node.ready()
            self.log.write(ready, dict(self.snapshot_terms).get(ready.install or 0, Term(0)))
            leaves += ready.messages
            applied = LogIndex(min(ready.commit_index, self.log.last_index()))
            if applied > self.node.applied:
                self.node.applied_to(applied)
            self.in_flight += (ready,)
            while self.in_flight and not self.in_flight[0].must_sync:
                leaves += self._finish()
        self.node.check_invariants()
        for message in leaves:
            self._check_sent(message)
        return leaves, count

    def sync(self) -> list[Message]:
        """All that was written reaches the disk. Returns what waited for that."""
        leaves: list[Message] = []
        newest = self.in_flight[-1]
        while self.in_flight:
            leaves += self._finish()
        self.node.on_persisted(newest.persisted)
        return leaves

    def compact(self) -> int:
        """Drop all that is applied and durable. Returns its last index."""
        upto = min(self.node.applied, self.node.stable_index)
        self.node.compact(upto)
        self.log.compact(upto)
        self.disk.compact(upto)
        return upto

    def _finish(self) -> tuple[Message, ...]:
        ready, self.in_flight = self.in_flight[0], self.in_flight[1:]
        self.disk.write(ready, dict(self.snapshot_terms).get(ready.install or 0, Term(0)))
        if ready.configurations is not None:
            self.disk_rows = ready.configurations
        if ready.hard_state is not None:
            before, after = self.disk_hard_state, ready.hard_state
            if after.term < before.term or (after.term == before.term and before.vote not in (NO_NODE, after.vote)):
                raise Broken(f"{self.node_id} votes for {after.vote} of term {after.term}, after {before}")
            self.disk_hard_state = after
        for message in ready.messages_after_sync:
            self._check_sent(message)
        return ready.messages_after_sync

    def _check_sent(self, message: Message) -> None:
        """Nothing is promised that a crash at this moment would take back."""
        on_disk = self.disk_hard_state
        if message.type in (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE):
            return
        if message.term > on_disk.term:
            raise Broken(f"{message.type.name} of term {message.term} leaves {self.node_id} before the term is durable")
        granted = message.type is MessageType.VOTE_RESPONSE and not message.reject
        if (granted or message.type is MessageType.VOTE) and on_disk != HardState(
            message.term, message.to if granted else message.sender
        ):
            raise Broken(f"{message.type.name} of term {message.term} leaves {self.node_id}, on its disk is {on_disk}")
        accepted = message.type is MessageType.APPEND_RESPONSE and not message.reject
        if accepted and message.index > self.disk.last_index():
            raise Broken(f"{self.node_id} acknowledges {message.index}, which is not durable")


COPIED = (SmallReplica, SmallLog, RawNode, Core, RaftLog, Leadership, Progress, Inflights, ReadRounds, Configurations)
SHARED = frozenset(("codec", "config", "_config", "rng", "tracer"))
NOT_COMPARED = SHARED | {"ready_number", "snapshot_terms", "_frozen", "_reader"}


def copy_of(replica: SmallReplica) -> SmallReplica:
    """The replica and all that it can change; what is immutable is shared."""
    copied: dict[int, Any] = {}

    def copy(value: Any) -> Any:
        kind = type(value)
        if kind in COPIED:
            found = copied.get(id(value))
            if found is None:
                found = copied[id(value)] = object.__new__(kind)
                for name in kind.__slots__:
                    held = getattr(value, name)
                    setattr(found, name, held if name in SHARED else copy(held))
            return found
        if kind is list:
            return [copy(one) for one in value]
        if kind is deque:
            return deque(copy(one) for one in value)
        if kind is dict:
            return {key: copy(one) for key, one in value.items()}
        return value

    found: SmallReplica = copy(replica)
    return found


def likeness(replica: SmallReplica) -> Hashable:
    """Equal for replicas that will answer everything alike."""
    number = replica.node._core.ready_number  # the Readys count up for ever; only their order matters

    def frozen(value: Any, name: str = "") -> Hashable:
        kind = type(value)
        if kind in COPIED:
            return tuple(frozen(getattr(value, slot), slot) for slot in kind.__slots__ if slot not in NOT_COMPARED)
        if name == "_truncations":
            return tuple((one - number, since) for one, since in value)
        if name == "repaired_number":
            return int(value) - number if value else 0
        if name == "in_flight":
            return tuple(
                (
                    ready.persisted.number - number,
                    ready.entries,
                    ready.truncate_since,
                    ready.install,
                    ready.hard_state,
                    ready.configurations,
                    ready.messages_after_sync,
                )
                for ready in value
            )
        if kind in (list, deque):
            return tuple(frozen(one) for one in value)
        if kind is dict:
            return tuple((key, frozen(one)) for key, one in value.items())
        found: Hashable = value
        return found

    return frozen(replica)

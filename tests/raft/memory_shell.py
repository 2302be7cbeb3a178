"""A shell around one RawNode, in memory: a log, a disk that forgets what was not synced, and an outbox."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
    ReadState,
    Ready,
    Term,
    Tracer,
)

NEVER_VOTED = HardState(Term(0), NO_NODE)


def entry(index: int, term: int, data: bytes = b"x", kind: EntryKind = EntryKind.RECORDS) -> Entry:
    return Entry(LogIndex(index), Term(term), kind, data)


def configuration(*voters: int) -> Configuration:
    return Configuration(tuple(NodeId(voter) for voter in sorted(voters)))


class TextCodec:
    """Entries of the core as text: `noop`, and configurations as `voters|learners|outgoing`."""

    def noop(self, index: LogIndex, term: Term) -> bytes:
        return b"noop"

    def configuration(self, index: LogIndex, term: Term, configuration: Configuration) -> bytes:
        parts = (configuration.voters, configuration.learners, configuration.outgoing)
        return "|".join(",".join(map(str, part)) for part in parts).encode()

    def read_configuration(self, entry: Entry) -> Configuration:
        voters, learners, outgoing = (
            tuple(NodeId(int(one)) for one in part.split(",") if one) for part in entry.data.decode().split("|")
        )
        return Configuration(voters, learners, outgoing)


class MemoryLog:
    """Entries in a list, behind a compacted prefix. A LogReader."""

    def __init__(self, entries: Sequence[Entry] = (), offset: int = 0, offset_term: int = 0) -> None:
        self.stored = list(entries)
        self.offset = offset
        self.offset_term = Term(offset_term)
        self.in_memory = True

    def first_index(self) -> LogIndex:
        return LogIndex(self.offset + 1)

    def last_index(self) -> LogIndex:
        return LogIndex(self.offset + len(self.stored))

    def term(self, index: LogIndex) -> Term | None:
        if index == self.offset:
            return self.offset_term
        if index < self.offset:
            return None
        return self.stored[index - self.offset - 1].term

    def entries(self, first: LogIndex, last: LogIndex, size_bytes_max: int) -> Sequence[Entry] | None:
        assert self.first_index() <= first <= last <= self.last_index()
        if not self.in_memory:
            return None
        found: list[Entry] = []
        size_bytes = 0
        for one in self.stored[first - self.offset - 1 : last - self.offset]:
            size_bytes += len(one.data)
            if found and size_bytes > size_bytes_max:
                break
            found.append(one)
        return found

    def write(self, ready: Ready, install_term: int = 0) -> None:
        if ready.install is not None:
            self.stored.clear()
            self.offset, self.offset_term = ready.install, Term(install_term)
        if ready.truncate_since is not None:
            del self.stored[ready.truncate_since - self.offset - 1 :]
        if ready.entries:
            assert ready.entries[0].index == self.last_index() + 1
            self.stored.extend(ready.entries)

    def compact(self, upto: int) -> None:
        if upto > self.offset:
            term = self.term(LogIndex(upto))
            assert term is not None
            del self.stored[: upto - self.offset]
            self.offset, self.offset_term = upto, term

    def copy(self) -> "MemoryLog":
        return MemoryLog(self.stored, self.offset, self.offset_term)

    def holds(self, index: int, term: int) -> bool:
        return index <= self.offset or (index <= self.last_index() and self.term(LogIndex(index)) == term)


class SteadyRandom(random.Random):
    """Draws the same number again and again, so that scripts can count ticks."""

    def __init__(self, draw: int) -> None:
        super().__init__(0)
        self.draw = draw

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self.draw % start


@dataclass
class Shell:
    """One replica. `take` carries out one Ready up to its write, `sync` lets writes reach the disk, oldest first."""

    node_id: int
    voters: Configuration
    config: Config
    rng: random.Random
    disk: MemoryLog = field(default_factory=MemoryLog)
    disk_hard_state: HardState = NEVER_VOTED
    commit_index: int = 0
    nonce: int = 0
    tracer: Tracer | None = None
    remembers_commit: bool = False
    send: Callable[[Message], None] = lambda message: None
    on_read: Callable[[ReadState], None] = lambda state: None
    on_read_lost: Callable[[int], None] = lambda context: None
    on_apply: Callable[[Entry], None] = lambda applied: None
    on_install: Callable[[int], None] = lambda index: None
    on_snapshot_wanted: Callable[[int], None] = lambda peer: None
    on_repaired: Callable[[], None] = lambda: None
    on_written: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.disk_rows: tuple[ConfigurationRow, ...] = (ConfigurationRow(LogIndex(0), self.voters),)
        self.start()

    def start(self) -> None:
        """Begins from what is on the disk, as after a crash."""
        self.log = self.disk.copy()
        self.in_flight: deque[Ready] = deque()
        self.snapshot_terms: dict[int, int] = {}
        self.rows = tuple(row for row in self.disk_rows if row.index <= self.log.last_index())
        commit_index = max(self.commit_index, self.disk.offset)
        if not self.nonce:
            commit_index = min(commit_index, self.disk.last_index())
        self.node = RawNode(
            self.config,
            self.log,
            hard_state=self.disk_hard_state,
            configurations=self.rows,
            commit_index=LogIndex(commit_index),
            applied=LogIndex(self.disk.offset),
            rng=self.rng,
            codec=TextCodec(),
            nonce=self.nonce,
            tracer=self.tracer,
        )

    def take(self) -> Ready:
        ready = self.node.ready()
        self.log.write(ready, self.snapshot_terms.get(ready.install or 0, 0))
        if ready.configurations is not None:
            self.rows = ready.configurations
        if ready.install is not None:
            self.on_install(ready.install)
        for peer in ready.snapshots_wanted:
            self.on_snapshot_wanted(peer)
        self.node.check_invariants()
        for message in ready.messages:
            self.send(message)
        self.in_flight.append(ready)
        for state in ready.read_states:
            self.on_read(state)
        for context in ready.reads_lost:
            self.on_read_lost(context)
        applied = min(ready.commit_index, self.log.last_index())
        for index in range(max(self.node.applied, self.log.offset) + 1, applied + 1):
            self.on_apply(self.log.stored[index - self.log.offset - 1])
        if applied > self.node.applied:
            self.node.applied_to(LogIndex(applied))
        while self.in_flight and not self.in_flight[0].must_sync:
            self._finish(self.in_flight.popleft())
        return ready

    def sync(self, count: int | None = None) -> int:
        """Completes the oldest `count` Readys (all by default) as one sync, and tells how many there were."""
        done = 0
        newest: Ready | None = None
        while self.in_flight and (count is None or done < count or not self.in_flight[0].must_sync):
            newest = self.in_flight.popleft()
            self._finish(newest)
            done += 1
        if newest is not None:
            self.node.on_persisted(newest.persisted)
            self.node.check_invariants()
        return done

    def _finish(self, ready: Ready) -> None:
        self.disk.write(ready, self.snapshot_terms.get(ready.install or 0, 0))
        if ready.configurations is not None:
            self.disk_rows = ready.configurations
        if self.remembers_commit:
            self.commit_index = ready.commit_index
        if ready.repaired:
            self.nonce = 0
            self.on_repaired()
        if ready.hard_state is not None:
            self.disk_hard_state = ready.hard_state
        if ready.must_sync:
            self.on_written()
        for message in ready.messages_after_sync:
            self.send(message)

    def step(self, message: Message) -> None:
        """Hands a message to the core; of a snapshot it keeps what the log will begin behind."""
        if message.type is MessageType.SNAPSHOT:
            self.snapshot_terms[message.index] = message.log_term
        self.node.step(message)

    def compact(self, upto: int) -> None:
        self.node.compact(LogIndex(upto))
        self.log.compact(upto)
        self.disk.compact(upto)

    def propose(self, *data: bytes) -> None:
        first = self.node.last_index + 1
        self.node.propose([entry(first + place, self.node.term, one) for place, one in enumerate(data)])

"""GroupLog against a deliberately dumb list, through random appends, cuts, snapshots, writes, crashes and
reopenings."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from shutil import rmtree
from tempfile import mkdtemp

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorumlog.node.storage.entry import HEADER_BYTES, EntryHeader, encode_entry
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.group_read import find_damage, read_records
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import IndexRow, index_key, log_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.node.storage.sparse_index import ENTRIES_PER_ROW
from quorumlog.proto import internal_pb2
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, LogIndex, Term

GROUP = 7


def timestamp_in_payload(header: EntryHeader, data: bytes) -> int:
    """Stands in for the batch codec: these payloads are a timestamp and filling."""
    return int.from_bytes(data[HEADER_BYTES : HEADER_BYTES + 8], "big")


@dataclass(frozen=True)
class Row:
    """One entry as the model knows it."""

    entry: Entry
    base_offset: int
    count: int
    timestamp_ms: int
    append_time_ms: int

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.count


@dataclass
class Model:
    """The dumb second implementation: a list, and every question answered by walking it."""

    first_index: int = 1
    first_offset: int = 0
    prefix_term: int = 0
    rows: list[Row] = field(default_factory=list)
    epochs: list[tuple[int, int, int]] = field(default_factory=list)

    def copy(self) -> "Model":
        return replace(self, rows=list(self.rows), epochs=list(self.epochs))

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.rows) - 1

    @property
    def end_offset(self) -> int:
        return self.rows[-1].next_offset if self.rows else self.first_offset

    @property
    def last_term(self) -> int:
        return self.rows[-1].entry.term if self.rows else self.prefix_term

    def make_row(self, kind: EntryKind, count: int, timestamp_ms: int, append_time_ms: int, term: int) -> Row:
        payload = timestamp_ms.to_bytes(8, "big") + b"." * (timestamp_ms % 50)
        count = count if kind is EntryKind.RECORDS else 0
        index, offset = self.last_index + 1, self.end_offset
        data = encode_entry(kind, GROUP, index, term, offset, count, append_time_ms, payload, crc32c(payload))
        return Row(Entry(LogIndex(index), Term(term), kind, data), offset, count, timestamp_ms, append_time_ms)

    def append(self, row: Row) -> None:
        if not self.epochs or row.entry.term != self.epochs[-1][0]:
            self.epochs.append((row.entry.term, row.entry.index, row.base_offset))
        self.rows.append(row)

    def truncate(self, since: int) -> None:
        self.rows = [row for row in self.rows if row.entry.index < since]
        self.epochs = [epoch for epoch in self.epochs if epoch[1] < since]

    def compact(self, upto: int) -> None:
        for row in self.rows:
            if row.entry.index <= upto:
                self.first_index, self.first_offset = row.entry.index + 1, row.next_offset
                self.prefix_term = row.entry.term
        self.rows = [row for row in self.rows if row.entry.index > upto]

    def install(self, snapshot: internal_pb2.GroupSnapshot) -> None:
        self.first_index, self.first_offset = snapshot.index + 1, snapshot.next_offset
        self.prefix_term, self.rows = snapshot.term, []
        self.epochs = [(snapshot.term, snapshot.index, snapshot.next_offset)]

    def term(self, index: int) -> int | None:
        if index == self.first_index - 1:
            return self.prefix_term
        return next((row.entry.term for row in self.rows if row.entry.index == index), None)

    def locate(self, offset: int) -> int | None:
        return next((row.entry.index for row in self.rows if row.count and row.next_offset > offset), None)

    def locate_time(self, timestamp_ms: int) -> int | None:
        return next((row.entry.index for row in self.rows if row.count and row.timestamp_ms >= timestamp_ms), None)

    def epoch_end_offset(self, epoch: int) -> tuple[int, int] | None:
        answer = None
        for position, (term, _, _) in enumerate(self.epochs):
            if term <= epoch:
                following = self.epochs[position + 1 :]
                answer = (term, following[0][2] if following else self.end_offset)
        return answer

    def within(self, rows: list[Row], size_bytes_max: int) -> list[Entry]:
        taken: list[Entry] = []
        for row in rows:
            if taken and sum(len(entry.data) for entry in taken) + len(row.entry.data) > size_bytes_max:
                break
            taken.append(row.entry)
        return taken

    def entries(self, first: int, last: int, size_bytes_max: int) -> list[Entry]:
        return self.within([row for row in self.rows if first <= row.entry.index <= last], size_bytes_max)

    def records(self, offset: int, limit_offset: int, size_bytes_max: int) -> list[Entry]:
        rows = [row for row in self.rows if row.count and row.next_offset > offset and row.next_offset <= limit_offset]
        return self.within(rows, size_bytes_max)

    def size_bytes(self) -> int:
        return sum(len(row.entry.data) for row in self.rows)


ENTRIES = st.tuples(st.sampled_from(EntryKind), st.integers(1, 3), st.integers(0, 300), st.integers(0, 300))
CUTS = st.floats(0, 1)


class GroupLogMachine(RuleBasedStateMachine):
    """Changes collect in one batch until `write`; every question is asked after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.storage: Storage = self.open_storage()
        self.model = Model()
        self.durable = Model()
        self.tail_bytes_max = 400
        self.milestones_lost = False
        self.reopen_log()

    def open_storage(self) -> Storage:
        return MemoryStorage()

    def reopen_log(self) -> None:
        self.batch = self.storage.new_batch()
        self.log = GroupLog(self.storage, GROUP, max_timestamp=timestamp_in_payload, tail_bytes_max=self.tail_bytes_max)

    @rule(
        pattern=st.lists(ENTRIES, min_size=1, max_size=8),
        count=st.sampled_from([1, 3, 40, 100]),
        new_term=st.integers(0, 2),
    )
    def append(self, pattern: list[tuple[EntryKind, int, int, int]], count: int, new_term: int) -> None:
        term, entries = max(1, self.model.last_term + new_term), []
        for position in range(count):
            row = self.model.make_row(*pattern[position % len(pattern)], term)
            self.model.append(row)
            entries.append(row.entry)
        self.log.append(self.batch, entries)

    @precondition(lambda self: self.model.rows)
    @rule(cut=CUTS)
    def truncate(self, cut: float) -> None:
        since = LogIndex(self.model.first_index + int(cut * len(self.model.rows)))
        self.model.truncate(since)
        self.log.truncate(self.batch, since)

    @precondition(lambda self: self.model.rows)
    @rule(cut=CUTS)
    def compact(self, cut: float) -> None:
        upto = LogIndex(self.model.first_index - 1 + int(cut * len(self.model.rows)))
        self.model.compact(upto)
        self.log.compact(self.batch, upto)

    @rule(jump=st.integers(-50, 300), term=st.integers(0, 2), offset=st.integers(0, 600), time=st.integers(0, 300))
    def install(self, jump: int, term: int, offset: int, time: int) -> None:
        """Behind, within or beyond the log that is there, in the same batch as whatever came before."""
        snapshot = internal_pb2.GroupSnapshot(
            group_id=GROUP,
            index=max(1, self.model.last_index + jump),
            term=max(1, self.model.last_term + term),
            next_offset=offset,
            append_time_ms=time,
        )
        if time % 2:
            snapshot.max_timestamp_ms = time
        self.model.install(snapshot)
        plan = self.log.plan_read(0, 1, 1)
        self.log.install(self.batch, snapshot)
        assert self.log.max_timestamp_ms == (time if time % 2 else None)
        assert self.log.last_append_time_ms == time
        assert not self.log.still_holds(plan)

    @rule()
    def write(self) -> None:
        self.storage.write(self.batch)
        self.batch = self.storage.new_batch()

    @rule()
    def write_and_sync(self) -> None:
        self.write()
        self.storage.sync()
        self.durable = self.model.copy()

    @rule()
    def reopen(self) -> None:
        self.write()
        self.reopen_log()

    @rule()
    def crash(self) -> None:
        assert isinstance(self.storage, MemoryStorage)
        self.storage.crash()
        self.model = self.durable.copy()
        self.reopen_log()

    @precondition(lambda self: self.model.rows)
    @rule(random=st.randoms(use_true_random=False), count=st.integers(1, 40), grow=st.integers(0, 70))
    def damage_and_mend(self, random: Random, count: int, grow: int) -> None:
        """Entries and milestones are damaged while the log is closed; it opens, goes on, and gets them back."""
        assert isinstance(self.storage, MemoryStorage)
        self.write_and_sync()
        rows = {row.entry.index: row.entry for row in self.model.rows}
        for index in random.sample(sorted(rows), min(count, len(rows))):
            value = random.choice([None, b"", rows[index].data[:-1] + b"?"])
            self.storage.damage(Family.LOG, log_key(GROUP, index), value)
        start, end = index_key(GROUP, IndexRow.SPARSE, 0), index_key(GROUP, IndexRow.SPARSE, 1 << 60)
        for key, _ in self.storage.scan(Family.INDEX, start, end):
            if random.random() < 0.3:
                self.storage.damage(Family.INDEX, key, None)
                self.milestones_lost = True
        self.reopen_log()
        for index in find_damage(self.storage, GROUP, self.model.first_index, self.model.last_index):
            self.log.note_damage(index)
        damaged = sorted(self.log.damaged)
        for _ in range(grow):
            row = self.model.make_row(EntryKind.RECORDS, 1, 7, 7, max(1, self.model.last_term))
            self.model.append(row)
            self.log.append(self.batch, [row.entry])
        assert self.log.mend(self.batch, [rows[index] for index in damaged]) == damaged
        assert self.log.damaged == frozenset()
        self.write_and_sync()

    @rule(tail_bytes_max=st.sampled_from([0, 400, 5000, 1 << 20]))
    def resize_tail(self, tail_bytes_max: int) -> None:
        self.tail_bytes_max = self.log.tail_bytes_max = tail_bytes_max

    @rule(timestamp_ms=st.integers(0, 301), offset=st.integers(0, 600), span=st.integers(0, 200))
    def look_up(self, timestamp_ms: int, offset: int, span: int) -> None:
        model, log = self.model, self.log
        assert log.locate(offset) == model.locate(offset)
        assert log.locate_time(timestamp_ms) == model.locate_time(timestamp_ms)
        cached = log.cached_records(offset, offset + span, 500)
        assert cached is None or list(cached) == model.records(offset, offset + span, 500)
        if self.batch.is_empty():
            plan = log.plan_read(offset, offset + span, 500)
            assert log.still_holds(plan)
            assert read_records(self.storage, plan) == model.records(offset, offset + span, 500)

    @precondition(lambda self: self.model.rows)
    @rule(cut=CUTS, span=st.integers(0, 50), size_bytes_max=st.sampled_from([0, 100, 700, 10_000]))
    def read_entries(self, cut: float, span: int, size_bytes_max: int) -> None:
        first = min(self.model.first_index + int(cut * len(self.model.rows)), self.model.last_index)
        last = min(first + span, self.model.last_index)
        found = list(self.log.entries(LogIndex(first), LogIndex(last), size_bytes_max))
        expected = self.model.entries(first, last, size_bytes_max)
        assert found, "at least one entry"
        assert found == expected[: len(found)]
        while found[-1].index < last:  # where memory begins an answer may end early
            found += self.log.entries(LogIndex(found[-1].index + 1), LogIndex(last), size_bytes_max)
        assert found == self.model.entries(first, last, 1 << 30)
        assert (
            self.log.next_offset_before(LogIndex(first)) == self.model.rows[first - self.model.first_index].base_offset
        )

    @rule(age=st.integers(0, 301), share=CUTS)
    def plan_retention(self, age: int, share: float) -> None:
        rows, first = self.model.rows, self.model.first_index
        by_time = self.log.upto_for_time(age)
        old = [row.append_time_ms < age for row in rows]
        allowed = first - 1 + (old.index(False) if False in old else len(old))
        assert by_time <= allowed, "a cut took an entry that is not old enough"
        assert first - 1 <= by_time
        if allowed == self.model.last_index and max((row.append_time_ms for row in rows), default=0) < age:
            assert by_time == allowed or self.log.first_index() > 1, "a log that is too old as a whole stays"

        retained_bytes = int(share * self.model.size_bytes())
        by_size = self.log.upto_for_size(retained_bytes)
        kept = [sum(len(later.entry.data) for later in rows[position:]) for position in range(len(rows) + 1)]
        allowed = first - 1 + max(position for position, size in enumerate(kept) if size >= retained_bytes)
        assert first - 1 <= by_size <= allowed
        if self.batch.is_empty() and not self.milestones_lost:
            assert by_size >= allowed - ENTRIES_PER_ROW, "milestones are too far apart"

    @invariant()
    def ends_agree(self) -> None:
        model, log = self.model, self.log
        assert (log.first_index(), log.last_index()) == (model.first_index, model.last_index)
        assert (log.first_offset, log.log_end_offset) == (model.first_offset, model.end_offset)
        assert log.size_bytes == model.size_bytes()
        indexes = {0, model.first_index - 2, model.first_index - 1, model.first_index, model.last_index}
        indexes |= {model.last_index + 1} | {epoch[1] + shift for epoch in model.epochs for shift in (-1, 0)}
        for index in sorted(indexes):
            expected = model.term(index)
            assert log.term(LogIndex(index)) == expected, f"term of {index}"
        for epoch in range(model.last_term + 2):
            assert log.epoch_end_offset(epoch) == model.epoch_end_offset(epoch)
        if self.batch.is_empty():
            assert log.first_append_time_ms() == (model.rows[0].append_time_ms if model.rows else None)


class RocksGroupLogMachine(GroupLogMachine):
    """The same on the real database; what a crash loses there, the memory form shows."""

    def open_storage(self) -> Storage:
        self.folder = Path(mkdtemp())
        return RocksStorage(self.folder / "database")

    @rule()
    def crash(self) -> None:
        self.write()
        self.storage.flush()

    @rule()
    def damage_and_mend(self) -> None:
        """A real table is not damaged as easily; another test does."""

    def teardown(self) -> None:
        self.storage.close()
        rmtree(self.folder)


TestGroupLogInMemory = GroupLogMachine.TestCase
TestGroupLogInMemory.settings = settings(
    max_examples=60, stateful_step_count=25, suppress_health_check=list(HealthCheck), print_blob=True
)
TestGroupLogInRocks = RocksGroupLogMachine.TestCase
TestGroupLogInRocks.settings = settings(
    max_examples=5, stateful_step_count=25, suppress_health_check=list(HealthCheck), print_blob=True
)

"""What the log of a group promises, one behaviour at a time; the model test beside it mixes them."""

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.entry import encode_entry
from quorumlog.node.storage.epochs import EPOCHS_BEFORE_FIRST_MAX
from quorumlog.node.storage.group_log import GroupLog, delete_group
from quorumlog.node.storage.group_read import read_records
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import IndexRow, group_range, index_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import LogReader
from quorumlog.raft.types import Entry, EntryKind, LogIndex, Term

GROUP = 7


def entry(
    index: int,
    *,
    term: int = 1,
    kind: EntryKind = EntryKind.RECORDS,
    offset: int = 0,
    count: int = 1,
    timestamp_ms: int = 0,
    append_time_ms: int = 0,
    size_bytes: int = 0,
    group_id: int = GROUP,
) -> Entry:
    payload = b""
    if kind is EntryKind.RECORDS:
        payload = pack_stored(header_for(count, first_timestamp_ms=timestamp_ms), bytes(size_bytes))
    else:
        count = 0
    data = encode_entry(kind, group_id, index, term, offset, count, append_time_ms, payload, crc32c(payload))
    return Entry(LogIndex(index), Term(term), kind, data)


def records(first: int, last: int, *, term: int = 1, count: int = 1, size_bytes: int = 0) -> list[Entry]:
    """Entries `first` to `last` of `count` records each, in a log that has nothing else."""
    return [
        entry(
            i, term=term, offset=(i - 1) * count, count=count, timestamp_ms=i, append_time_ms=i, size_bytes=size_bytes
        )
        for i in range(first, last + 1)
    ]


def append(storage: Storage, log: GroupLog, entries: Sequence[Entry]) -> None:
    batch = storage.new_batch()
    log.append(batch, entries)
    storage.write(batch)


@pytest.fixture
def memory() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture(params=["memory", "rocks"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    storage: Storage = MemoryStorage() if request.param == "memory" else RocksStorage(tmp_path / "database")
    yield storage
    storage.close()


def test_it_is_what_the_raft_core_reads(memory: MemoryStorage) -> None:
    reader: LogReader = GroupLog(memory, GROUP)
    assert (reader.first_index(), reader.last_index()) == (1, 0)
    assert reader.term(LogIndex(0)) == 0
    assert reader.term(LogIndex(1)) is None


def test_what_was_written_is_there_after_reopening(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    noop = entry(1, kind=EntryKind.NOOP, term=2)
    appended = [noop, entry(2, term=2, offset=0, count=3), entry(3, term=4, offset=3, count=2)]
    append(storage, log, appended)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert list(reopened.entries(LogIndex(1), LogIndex(3), 1 << 20)) == appended
        assert [reopened.term(LogIndex(i)) for i in range(5)] == [0, 2, 2, 4, None]
        assert reopened.log_end_offset == 5
        assert reopened.size_bytes == sum(len(e.data) for e in appended)


def test_groups_share_a_storage_without_meeting(storage: Storage) -> None:
    neighbours = {group: GroupLog(storage, group) for group in (GROUP - 1, GROUP, GROUP + 1)}
    batch = storage.new_batch()
    for group, log in neighbours.items():
        log.append(batch, [entry(1, term=group, group_id=group), entry(2, term=group, offset=1, group_id=group)])
    storage.write(batch)
    batch = storage.new_batch()
    neighbours[GROUP].truncate(batch, LogIndex(1))
    storage.write(batch)
    assert [GroupLog(storage, group).last_index() for group in neighbours] == [2, 0, 2]
    batch = storage.new_batch()
    delete_group(batch, GROUP + 1)
    storage.write(batch)
    assert [GroupLog(storage, group).last_index() for group in neighbours] == [2, 0, 0]
    for family in Family:
        assert storage.scan(family, *group_range(GROUP + 1)) == []


def test_offsets_survive_when_only_control_entries_are_left(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, [entry(1, count=10), entry(2, kind=EntryKind.CONTROL, offset=10)])
    batch = storage.new_batch()
    log.compact(batch, LogIndex(1))
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert (reopened.first_index(), reopened.last_index()) == (2, 2)
        assert (reopened.first_offset, reopened.log_end_offset) == (10, 10)
        assert reopened.locate(0) is None
    batch = storage.new_batch()
    log.compact(batch, LogIndex(2))
    storage.write(batch)
    reopened = GroupLog(storage, GROUP)
    assert (reopened.first_index(), reopened.last_index(), reopened.log_end_offset) == (3, 2, 10)
    assert reopened.term(LogIndex(2)) == 1
    append(storage, reopened, [entry(3, term=2, offset=10)])
    assert GroupLog(storage, GROUP).log_end_offset == 11


def test_a_truncated_suffix_is_replaced_with_its_terms_and_rows(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 300, term=1))
    batch = storage.new_batch()
    log.truncate(batch, LogIndex(100))
    log.append(batch, [entry(100, term=5, offset=99, count=50)])
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert reopened.last_index() == 100
        assert reopened.term(LogIndex(99)) == 1
        assert reopened.term(LogIndex(100)) == 5
        assert reopened.locate(140) == 100
        assert reopened.epoch_end_offset(1) == (1, 99)
        assert reopened.epoch_end_offset(5) == (5, 149)
    rows = storage.scan(
        Family.INDEX, index_key(GROUP, IndexRow.SPARSE, 100), index_key(GROUP, IndexRow.SPARSE, 1 << 60)
    )
    assert rows == [], "rows of the dropped suffix are gone"


def test_a_lookup_in_a_long_log_reads_few_entries(storage: Storage) -> None:
    log = GroupLog(storage, GROUP, tail_bytes_max=0)
    append(storage, log, records(1, 1000, count=10))
    append(storage, log, [entry(1001, offset=10_000)])
    for offset in (0, 9, 10, 4999, 5000, 9989, 9999):
        assert log.locate(offset) == offset // 10 + 1
    assert log.locate_time(500) == 500
    assert log.locate_time(0) == 1
    assert log.locate_time(1001) is None
    assert log.locate(10_001) is None


def test_time_goes_by_the_running_maximum(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    times = [50, 10, 70, 20, 70, 90]
    append(storage, log, [entry(i + 1, offset=i, timestamp_ms=time) for i, time in enumerate(times)])
    found = {time: log.locate_time(time) for time in (0, 50, 51, 70, 71, 90, 91)}
    assert found == {0: 1, 50: 1, 51: 3, 70: 3, 71: 6, 90: 6, 91: None}


def test_retention_by_time_takes_a_log_that_is_too_old_as_a_whole(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 5))
    assert log.upto_for_time(5) == 0
    assert log.upto_for_time(6) == 5
    assert log.first_append_time_ms() == 1


def test_retention_by_time_cuts_at_milestones(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 1000))
    upto = log.upto_for_time(500)
    assert 499 - 64 <= upto <= 499


def test_retention_by_size_keeps_at_least_what_was_asked(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 1000, size_bytes=100))
    each = log.size_bytes // 1000
    upto = log.upto_for_size(300 * each)
    assert 700 - 64 <= upto <= 700
    batch = storage.new_batch()
    log.compact(batch, upto)
    storage.write(batch)
    assert log.size_bytes == (1000 - upto) * each
    assert GroupLog(storage, GROUP).size_bytes == log.size_bytes
    assert log.upto_for_size(1 << 40) == upto


def test_the_deleted_prefix_can_be_reclaimed(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 100, size_bytes=20_000))
    storage.flush()
    full = storage.size_bytes()
    batch = storage.new_batch()
    log.compact(batch, LogIndex(90))
    storage.write(batch)
    storage.reclaim(Family.LOG, *log.reclaimable())
    assert storage.size_bytes() < full / 4
    assert GroupLog(storage, GROUP).first_index() == 91


# --- divergence ---


def test_an_epochs_end_is_the_next_ones_first_offset(memory: MemoryStorage) -> None:
    log = GroupLog(memory, GROUP)
    append(memory, log, [*records(1, 3, term=2), entry(4, term=5, offset=3), entry(5, term=5, offset=4)])
    assert [log.epoch_end_offset(epoch) for epoch in range(7)] == [None, None, (2, 3), (2, 3), (2, 3), (5, 5), (5, 5)]


def test_epochs_outlive_the_prefix_they_describe(storage: Storage) -> None:
    log = GroupLog(storage, GROUP)
    append(storage, log, [*records(1, 3, term=2), *records(4, 6, term=4), *records(7, 9, term=6)])
    batch = storage.new_batch()
    log.compact(batch, LogIndex(8))
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert reopened.epoch_end_offset(3) == (2, 3)
        assert reopened.epoch_end_offset(4) == (4, 6)
        assert reopened.term(LogIndex(8)) == 6
        assert reopened.term(LogIndex(7)) is None


def test_only_so_many_old_epochs_are_kept(memory: MemoryStorage) -> None:
    log = GroupLog(memory, GROUP)
    last = EPOCHS_BEFORE_FIRST_MAX + 100
    append(memory, log, [entry(i, term=i, offset=i - 1) for i in range(1, last + 1)])
    batch = memory.new_batch()
    log.compact(batch, LogIndex(last - 1))
    memory.write(batch)
    for reopened in (log, GroupLog(memory, GROUP)):
        assert reopened.epoch_end_offset(99) is None, "older than the first row contradicts nothing"
        assert reopened.epoch_end_offset(100) == (100, 100)
        assert reopened.epoch_end_offset(last) == (last, last)


# --- memory ---


def test_the_tail_is_bounded_and_older_entries_come_from_storage(storage: Storage) -> None:
    log = GroupLog(storage, GROUP, tail_bytes_max=5000)
    appended = records(1, 100, size_bytes=400)
    for one in appended:
        append(storage, log, [one])
    assert log.cached_records(0, 100, 1 << 20) is None
    cached = log.cached_records(99, 100, 1 << 20)
    assert cached is not None
    assert list(cached) == appended[99:]
    found: list[Entry] = []
    while len(found) < 100:
        found += log.entries(LogIndex(len(found) + 1), LogIndex(100), 3000)
    assert found == appended


def test_entries_of_the_open_batch_stay_in_memory_whatever_the_bound(memory: MemoryStorage) -> None:
    log = GroupLog(memory, GROUP, tail_bytes_max=0)
    appended = records(1, 10)
    batch = memory.new_batch()
    for one in appended:
        log.append(batch, [one])
    assert list(log.entries(LogIndex(1), LogIndex(10), 1 << 20)) == appended, "not in storage yet"
    memory.write(batch)
    append(memory, log, records(11, 11))
    assert log.cached_records(0, 10, 1 << 20) is None


def test_a_written_batch_is_not_kept_alive(memory: MemoryStorage) -> None:
    log = GroupLog(memory, GROUP)
    append(memory, log, records(1, 3))
    gc.collect()
    assert log._open_batch is not None
    assert log._open_batch() is None


def test_cold_records_are_read_in_a_thread(storage: Storage) -> None:
    log = GroupLog(storage, GROUP, tail_bytes_max=0)
    appended = records(1, 500, count=2, size_bytes=300)
    append(storage, log, appended)
    append(storage, log, [entry(501, kind=EntryKind.CONTROL, offset=1000)])
    plan = log.plan_read(401, 800, 20_000)
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(read_records, storage, plan).result()
    assert found == appended[200 : 200 + len(found)], "from the entry that holds the offset"
    assert 19_000 < sum(len(e.data) for e in found) <= 20_000
    limited = read_records(storage, log.plan_read(790, 800, 1 << 20))
    assert limited == appended[395:400], "nothing from the limit on"


def test_a_plan_whose_prefix_was_cut_meanwhile_says_so(storage: Storage) -> None:
    log = GroupLog(storage, GROUP, tail_bytes_max=0)
    append(storage, log, records(1, 200))
    plan = log.plan_read(10, 200, 1 << 20)
    assert log.still_holds(plan)
    batch = storage.new_batch()
    log.compact(batch, LogIndex(50))
    storage.write(batch)
    with pytest.raises(StorageCorrupt, match="missing"):
        read_records(storage, plan)
    assert not log.still_holds(plan)


# --- damage ---


# --- programming errors ---


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry(2, offset=1, group_id=8), "entry of group 8 for group 7"),
        (entry(3, offset=1), "entry 3"),
        (entry(2, offset=2), "2, not 1"),
        (entry(2, offset=1, term=1), "term 1 at index 2 follows term 2"),
    ],
)
def test_entries_that_do_not_follow_are_refused(memory: MemoryStorage, wrong: Entry, message: str) -> None:
    log = GroupLog(memory, GROUP)
    append(memory, log, [entry(1, term=2)])
    with pytest.raises(AssertionError, match=message):
        log.append(memory.new_batch(), [wrong])
    assert log.last_index() == 1


def test_cuts_outside_the_log_are_refused_or_nothing(memory: MemoryStorage) -> None:
    log = GroupLog(memory, GROUP)
    append(memory, log, records(1, 10))
    batch = memory.new_batch()
    log.compact(batch, LogIndex(5))
    log.compact(batch, LogIndex(5))
    log.truncate(batch, LogIndex(11))
    memory.write(batch)
    assert (log.first_index(), log.last_index()) == (6, 10)
    with pytest.raises(AssertionError, match="begins at 6"):
        log.truncate(batch, LogIndex(5))
    with pytest.raises(AssertionError, match="ends at 10"):
        log.compact(batch, LogIndex(11))
    with pytest.raises(AssertionError, match="no entries"):
        log.entries(LogIndex(5), LogIndex(7), 1)

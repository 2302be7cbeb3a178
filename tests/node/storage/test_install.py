"""Installing a snapshot replaces a log by one that begins behind it: the old or the new, never a mix."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorumlog.node.errors import LogLost
from quorumlog.node.storage import configurations
from quorumlog.node.storage.entry import encode_entry
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.group_read import walk
from quorumlog.node.storage.interface import Family, RecoveryMode, Storage
from quorumlog.node.storage.keys import MetaRow, group_range, meta_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, LogIndex, Term

GROUP = 7
SNAPSHOT = internal_pb2.GroupSnapshot(
    group_id=GROUP, index=500, term=4, next_offset=450, append_time_ms=9000, max_timestamp_ms=8000
)


def records(first: int, last: int, *, term: int, shift: int = 0) -> list[Entry]:
    """One record each; offset = index - 1 - shift."""
    entries = []
    for index in range(first, last + 1):
        payload = pack_stored(header_for(1, first_timestamp_ms=index), bytes(30))
        data = encode_entry(
            EntryKind.RECORDS, GROUP, index, term, index - 1 - shift, 1, index, payload, crc32c(payload)
        )
        entries.append(Entry(LogIndex(index), Term(term), EntryKind.RECORDS, data))
    return entries


@pytest.fixture(params=["memory", "rocks"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    storage: Storage = MemoryStorage() if request.param == "memory" else RocksStorage(tmp_path / "database")
    yield storage
    storage.close()


def append(storage: Storage, entries: list[Entry]) -> None:
    batch = storage.new_batch()
    GroupLog(storage, GROUP).append(batch, entries)
    storage.write(batch)


def install(storage: Storage, log: GroupLog) -> None:
    batch = storage.new_batch()
    log.install(batch, SNAPSHOT)
    storage.write(batch)


def check_installed(log: GroupLog) -> None:
    assert (log.first_index(), log.last_index()) == (501, 500)
    assert (log.first_offset, log.log_end_offset, log.size_bytes) == (450, 450, 0)
    assert (log.last_append_time_ms, log.max_timestamp_ms) == (9000, 8000)
    assert [log.term(LogIndex(index)) for index in (499, 500, 501)] == [None, 4, None]
    assert log.locate(0) is None
    assert log.epoch_end_offset(4) == (4, 450)
    assert log.epoch_end_offset(3) is None, "an epoch older than the first row contradicts nothing"


@pytest.mark.parametrize("last", [0, 300, 500, 900])
def test_the_log_begins_behind_the_snapshot_whatever_was_there(storage: Storage, last: int) -> None:
    append(storage, records(1, last // 2, term=1) + records(last // 2 + 1, last, term=3))
    log = GroupLog(storage, GROUP)
    install(storage, log)
    for reopened in (log, GroupLog(storage, GROUP)):
        check_installed(reopened)
    assert storage.scan(Family.LOG, *group_range(GROUP)) == []
    assert len(storage.scan(Family.INDEX, *group_range(GROUP))) == 1, "the row of the snapshot's term"


@pytest.mark.parametrize("term", [4, 6])
def test_entries_go_on_behind_the_snapshot(storage: Storage, term: int) -> None:
    append(storage, records(1, 100, term=1))
    log = GroupLog(storage, GROUP)
    batch = storage.new_batch()
    log.install(batch, SNAPSHOT)
    log.append(batch, records(501, 700, term=term, shift=50))
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert (reopened.first_index(), reopened.last_index(), reopened.log_end_offset) == (501, 700, 650)
        assert reopened.term(LogIndex(501)) == term
        assert reopened.locate(450) == 501
        assert reopened.locate(649) == 700
        assert reopened.epoch_end_offset(6) == (term, 650)
        assert reopened.epoch_end_offset(4) == (4, 650 if term == 4 else 450)


def test_a_read_planned_before_no_longer_holds_although_the_log_begins_at_the_same_index() -> None:
    storage = MemoryStorage()
    append(storage, records(1, 500, term=4))
    log = GroupLog(storage, GROUP)
    batch = storage.new_batch()
    log.compact(batch, LogIndex(499))
    log.truncate(batch, LogIndex(500))
    log.append(batch, records(500, 500, term=5))
    storage.write(batch)
    before = log.plan_read(0, 500, 1 << 20)
    snapshot = internal_pb2.GroupSnapshot(index=499, term=4, next_offset=499, append_time_ms=499)
    batch = storage.new_batch()
    log.install(batch, snapshot)
    storage.write(batch)
    assert log.first_index() == before.first_index
    assert not log.still_holds(before)
    assert log.still_holds(log.plan_read(0, 500, 1 << 20))


def test_a_crash_at_any_write_leaves_the_old_log_or_the_new_one() -> None:
    """Three batches of appends, the installation, three more; a crash keeps any number of them."""
    for kept in range(8):
        storage = MemoryStorage()
        log = GroupLog(storage, GROUP)
        ends = [(1, 0)]
        for step in range(7):
            batch = storage.new_batch()
            if step == 3:
                log.install(batch, SNAPSHOT)
            else:
                begin = log.last_index() + 1
                log.append(batch, records(begin, begin + 69, term=4, shift=0 if step < 3 else 50))
            storage.write(batch)
            ends.append((log.first_index(), log.last_index()))
        storage.crash(kept)
        reopened = GroupLog(storage, GROUP)
        assert (reopened.first_index(), reopened.last_index()) == ends[kept]
        entries = list(walk(storage, GROUP, reopened.first_index(), reopened.last_index()))
        assert len(entries) == reopened.last_index() - reopened.first_index() + 1


def test_a_write_ahead_log_torn_anywhere_within_leaves_the_old_log_or_the_new_one(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path / "database")
    append(storage, records(1, 200, term=1))
    storage.sync()
    wal = max((tmp_path / "database").glob("*.log"))
    old_bytes = wal.stat().st_size
    install(storage, GroupLog(storage, GROUP))
    storage.sync()
    new_bytes = wal.stat().st_size
    outcomes = set()
    for size_bytes in [*range(old_bytes, new_bytes, 5), new_bytes]:
        torn = tmp_path / f"torn-{size_bytes}"
        shutil.copytree(tmp_path / "database", torn)
        with open(torn / wal.name, "r+b") as file:
            file.truncate(size_bytes)
        reopened = RocksStorage(torn, RecoveryMode.TOLERATE_TAIL)
        log = GroupLog(reopened, GROUP)
        if log.first_index() == 1:
            assert [entry for _, entry in walk(reopened, GROUP, 1, log.last_index())] == records(1, 200, term=1)
            outcomes.add("old")
        else:
            check_installed(log)
            outcomes.add("new")
        reopened.close()
        shutil.rmtree(torn)
    storage.close()
    assert outcomes == {"old", "new"}


def test_configurations_are_kept_in_order_and_replaced_as_a_whole(storage: Storage) -> None:
    assert configurations.read(storage, GROUP) == []
    first = internal_pb2.GroupConfiguration(voters=[1, 2, 3])
    joint = internal_pb2.GroupConfiguration(voters=[2, 3, 4], learners=[5], outgoing=[1, 2, 3])
    for rows in ([(0, first)], [(0, first), (17, joint)], []):
        batch = storage.new_batch()
        configurations.write(batch, GROUP, rows)
        storage.write(batch)
        assert configurations.read(storage, GROUP) == rows
    with pytest.raises(AssertionError, match="configuration 17 after 17"):
        configurations.write(storage.new_batch(), GROUP, [(17, first), (17, joint)])


def test_configurations_that_cannot_be_read_name_their_group(storage: Storage) -> None:
    batch = storage.new_batch()
    batch.put(Family.META, meta_key(GROUP, MetaRow.CONFIGURATIONS), b"\xff\xff\xff")
    storage.write(batch)
    with pytest.raises(LogLost, match="its configurations cannot be read"):
        configurations.read(storage, GROUP)

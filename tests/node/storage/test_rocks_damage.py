"""A flipped bit in a real table or blob file: every read names it, all else is served, and the process goes on."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorumlog.node.errors import EntryDamaged, StorageCorrupt, StorageFailed
from quorumlog.node.storage.entry import encode_entry
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.group_read import find_damage, read_records, walk
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import group_range, log_key
from quorumlog.node.storage.rocks import DAMAGED_NAME, RocksStorage
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, LogIndex, Term

GROUP, OTHER = 7, 8
ENTRIES = 3000


def entries_of(group_id: int, size_bytes: int, first: int = 1, last: int = ENTRIES) -> list[Entry]:
    """One record each of random bytes; the offset is the index - 1."""
    rng = random.Random(group_id)
    made = []
    for index in range(first, last + 1):
        payload = pack_stored(header_for(1, first_timestamp_ms=index), rng.randbytes(size_bytes))
        data = encode_entry(EntryKind.RECORDS, group_id, index, 1, index - 1, 1, index, payload, crc32c(payload))
        made.append(Entry(LogIndex(index), Term(1), EntryKind.RECORDS, data))
    return made


def fill(path: Path, size_bytes: int) -> dict[int, list[Entry]]:
    """A database with the logs of two groups, all of it in tables."""
    storage = RocksStorage(path)
    written = {group_id: entries_of(group_id, size_bytes) for group_id in (GROUP, OTHER)}
    for group_id, entries in written.items():
        log = GroupLog(storage, group_id)
        for start in range(0, ENTRIES, 500):
            batch = storage.new_batch()
            log.append(batch, entries[start : start + 500])
            storage.write(batch)
    storage.sync()
    storage.flush()
    storage.close()
    return written


def flip_within(path: Path, pattern: str, wanted: bytes) -> None:
    """Flip a bit within the first `wanted` of the largest file of the pattern."""
    file = max(path.glob(pattern), key=lambda one: one.stat().st_size)
    content = bytearray(file.read_bytes())
    at = content.index(wanted) + len(wanted) // 2
    content[at] ^= 1
    file.write_bytes(content)


@pytest.fixture(params=["table", "blob"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RocksStorage, dict[int, list[Entry]]]]:
    """Entry 1500 of GROUP is damaged, in a block of a table that it shares, or in a blob of its own."""
    path = tmp_path / "db"
    in_blobs = request.param == "blob"
    written = fill(path, 5000 if in_blobs else 200)
    flip_within(path, "*.blob" if in_blobs else "*.sst", written[GROUP][1499].data[-100:])
    storage = RocksStorage(path)
    yield storage, written
    try:
        storage.close()
    except StorageFailed:
        assert (path / DAMAGED_NAME).exists(), "only the damage makes closing fail"


@pytest.mark.parametrize(
    "read",
    [
        lambda storage: storage.get(Family.LOG, log_key(GROUP, 1500)),
        lambda storage: storage.get_many(Family.LOG, [log_key(GROUP, index) for index in (1, 1500, 3000)]),
        lambda storage: storage.scan(Family.LOG, *group_range(GROUP)),
        lambda storage: storage.scan(Family.LOG, *group_range(GROUP), reverse=True),
        lambda storage: storage.scan(Family.LOG, log_key(GROUP, 1500), log_key(GROUP, 1501), limit=1),
    ],
)
def test_every_read_across_it_names_family_and_group(
    damaged: tuple[RocksStorage, dict[int, list[Entry]]], read: Callable[[RocksStorage], object]
) -> None:
    storage, _ = damaged
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match="damaged in log of group 7: Corruption"):
            read(storage)


def test_the_log_opens_and_serves_all_that_is_sound(damaged: tuple[RocksStorage, dict[int, list[Entry]]]) -> None:
    storage, written = damaged
    log = GroupLog(storage, GROUP)
    assert (log.first_index(), log.last_index(), log.log_end_offset) == (1, ENTRIES, ENTRIES)
    bad = find_damage(storage, GROUP, 1, ENTRIES)
    assert 1500 in bad
    assert bad == list(range(bad[0], bad[-1] + 1)), "one block"
    for index in (bad[0] - 1, bad[-1] + 1):
        assert log.entries(LogIndex(index), LogIndex(index), 1) == [written[GROUP][index - 1]]
    with pytest.raises(EntryDamaged, match=f"entry {bad[0]} of group 7 is damaged .*Corruption"):
        log.entries(bad[0], bad[-1], 1 << 20)
    with pytest.raises(EntryDamaged, match=r"entry 1[45]\d\d of group 7"):
        read_records(storage, log.plan_read(1499, ENTRIES, 1 << 20))
    assert [found for _, found in walk(storage, OTHER, 1, ENTRIES)] == written[OTHER]


def test_entries_of_a_peer_mend_it_for_reads(damaged: tuple[RocksStorage, dict[int, list[Entry]]]) -> None:
    storage, written = damaged
    log = GroupLog(storage, GROUP)
    bad = find_damage(storage, GROUP, 1, ENTRIES)
    for index in bad:
        log.note_damage(index)
    batch = storage.new_batch()
    assert log.mend(batch, [written[GROUP][index - 1] for index in bad]) == bad
    storage.write(batch)
    storage.sync()
    assert [found for _, found in walk(storage, GROUP, 1, ENTRIES)] == written[GROUP]
    assert GroupLog(storage, GROUP).damaged == frozenset()


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 1000)], ids=["gone", "cut"])
def test_a_blob_file_that_is_gone_or_cut_damages_what_was_in_it(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "db"
    written = fill(path, 5000)
    harm(min(path.glob("*.blob")))
    storage = RocksStorage(path)
    log = GroupLog(storage, GROUP)
    bad = find_damage(storage, GROUP, 1, ENTRIES)
    assert bad
    assert log.last_index() == ENTRIES
    for index in bad:
        log.note_damage(index)
    batch = storage.new_batch()
    assert log.mend(batch, [written[GROUP][index - 1] for index in bad]) == bad
    storage.write(batch)
    assert [found for _, found in walk(storage, GROUP, 1, ENTRIES)] == written[GROUP]
    storage.close()


def test_a_bad_sector_under_the_manifest_or_a_table_is_damage_and_not_a_failed_disk(tmp_path: Path) -> None:
    """A folder in the place of a file fails its reads as a bad sector does, whoever runs the test."""
    path = tmp_path / "db"
    fill(path, 200)
    for file in (next(path.glob("MANIFEST-*")), max(path.glob("*.sst"))):
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        with pytest.raises(StorageCorrupt, match="does not open"):
            RocksStorage(path)
        file.rmdir()
        file.write_bytes(content)


def test_a_compaction_across_it_ends_the_writing_and_leaves_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "db"
    written = fill(path, 200)
    flip_within(path, "*.sst", written[GROUP][1499].data[-100:])
    storage = RocksStorage(path)
    log = GroupLog(storage, GROUP)
    batch = storage.new_batch()
    log.append(batch, entries_of(GROUP, 200, ENTRIES + 1, ENTRIES + 1))
    storage.write(batch)

    def compact_and_write() -> None:
        for _ in range(3):  # the first compaction may move tables as they are; a failed one shows at the next write
            storage.reclaim(Family.LOG, *group_range(GROUP))
            again = storage.new_batch()
            again.put(Family.LOG, log_key(GROUP, 1), written[GROUP][0].data)
            storage.write(again)

    with pytest.raises(StorageFailed, match=r"(?s)Corruption.*next start copies what can be read"):
        compact_and_write()
    assert "Corruption" in (path / DAMAGED_NAME).read_text()
    assert storage.get(Family.LOG, log_key(GROUP, 1)) == written[GROUP][0].data, "reads go on"
    with pytest.raises(StorageFailed):
        storage.close()
    again = RocksStorage(path)
    assert GroupLog(again, GROUP).last_index() == ENTRIES + 1
    again.close()


def test_a_damaged_index_costs_speed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "db"
    written = fill(path, 200)
    index_table = sorted(path.glob("*.sst"), key=lambda one: one.stat().st_size)[-2]
    content = bytearray(index_table.read_bytes())
    content[100] ^= 1
    index_table.write_bytes(content)
    storage = RocksStorage(path)
    with pytest.raises(StorageCorrupt, match="damaged in index of group 7"):
        storage.scan(Family.INDEX, *group_range(GROUP))
    for group_id in (GROUP, OTHER):
        log = GroupLog(storage, group_id, tail_bytes_max=0)
        assert (log.last_index(), log.damaged) == (ENTRIES, frozenset())
        assert log.term(LogIndex(1)) == 1
        assert [log.locate(offset) for offset in (0, 1000, ENTRIES - 1)] == [1, 1001, ENTRIES]
        assert log.locate_time(2000) == 2000
        assert read_records(storage, log.plan_read(777, 778, 1 << 20)) == [written[group_id][777]]
        batch = storage.new_batch()
        log.append(batch, entries_of(group_id, 200, ENTRIES + 1, ENTRIES + 200))
        storage.write(batch)
        assert GroupLog(storage, group_id).last_index() == ENTRIES + 200
    storage.close()

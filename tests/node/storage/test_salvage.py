"""What can be read of a damaged database is copied into a new one; what is copied is right, and counts for no more than
it may."""

import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.blob_files import read_blobs
from quorumlog.node.storage.database import COPY_NAME, DATABASE_NAME, DatabaseFolder, MemoryDatabase
from quorumlog.node.storage.entry import encode_entry
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.group_read import find_damage, survey
from quorumlog.node.storage.identity import Founder, Founding, save_identity
from quorumlog.node.storage.interface import Family, RecoveryMode, Storage
from quorumlog.node.storage.keys import NODE_WIDE, MetaRow, group_range, log_key, meta_key, state_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash
from quorumlog.node.storage.opened import NodeState, Opened, Severity
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.repair import is_whole, mark_whole
from quorumlog.node.storage.rocks import DAMAGED_NAME, RocksStorage
from quorumlog.node.storage.salvage import copy_database
from quorumlog.node.storage.votes import put_hard_state
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, HardState, LogIndex, NodeId, Term

NODE = NodeId(1)
SMALL, LARGE, CUT = 7, 8, 9
"""Groups: of small entries, of entries in blob files, and one whose log was cut at a fold."""

GROUPS = (SMALL, LARGE, CUT)
LAST = 400


def term_of(index: int) -> int:
    return 1 if index <= 150 else 4


def entry(group_id: int, index: int, *, term: int | None = None) -> Entry:
    """One record; the offset is the index - 1."""
    size_bytes = 6000 if group_id == LARGE else 100
    payload = pack_stored(header_for(1, first_timestamp_ms=index), random.Random(index).randbytes(size_bytes))
    term = term or term_of(index)
    data = encode_entry(EntryKind.RECORDS, group_id, index, term, index - 1, 1, index, payload, crc32c(payload))
    return Entry(LogIndex(index), Term(term), EntryKind.RECORDS, data)


def fill(storage: Storage, repair_id: bytes) -> None:
    """Logs that have seen a truncation, with replica rows as a node writes them."""
    for group_id in GROUPS:
        log = GroupLog(storage, group_id)
        batch = storage.new_batch()
        batch.put(Family.META, meta_key(group_id, MetaRow.REPLICA), b"replica %d" % group_id)
        put_hard_state(batch, group_id, HardState(Term(5), NodeId(2)))
        mark_whole(batch, group_id, repair_id)
        log.append(batch, [entry(group_id, index, term=1) for index in range(1, 200)])
        storage.write(batch)
        batch = storage.new_batch()
        log.truncate(batch, LogIndex(151))
        log.append(batch, [entry(group_id, index) for index in range(151, LAST + 1)])
        batch.put(Family.STATE, state_key(group_id, 100), b"state at 100")
        batch.put(Family.STATE, state_key(group_id, 300), b"state at 300")
        if group_id == CUT:
            log.compact(batch, LogIndex(100))
        storage.write(batch)
    batch = storage.new_batch()
    batch.put(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO), (77).to_bytes(8, "big"))
    storage.write(batch)
    storage.sync()


def check_copy(storage: Storage, group_id: int, missing: Sequence[int] = ()) -> None:
    """The log is the one that was there, except that entries in `missing` are damaged."""
    first = 101 if group_id == CUT else 1
    log = GroupLog(storage, group_id)
    assert (log.first_index(), log.last_index(), log.log_end_offset) == (first, LAST, LAST)
    assert [log.term(LogIndex(index)) for index in (150, 151)] == [1, 4]
    assert log.epoch_end_offset(2) == (1, 150)
    assert find_damage(storage, group_id, first, LAST) == [index for index in missing if index >= first]
    for item in survey(storage, group_id, first, LAST):
        assert not isinstance(item, tuple) or item[1] == entry(group_id, item[1].index)
    assert log.locate(349) == 350
    assert storage.get(Family.META, meta_key(group_id, MetaRow.REPLICA)) == b"replica %d" % group_id
    assert storage.get(Family.STATE, state_key(group_id, 300)) == b"state at 300"


class BadBlocks(MemoryStorage):
    """Reads of keys in `bad` raise, and so do scans across them."""

    def __init__(self, database_id: bytes = b"database with bad") -> None:
        self.bad: set[tuple[Family, bytes]] = set()
        super().__init__(database_id[:16])

    def get(self, family: Family, key: bytes) -> bytes | None:
        if (family, key) in self.bad:
            raise StorageCorrupt(f"block of {key.hex()}")
        return super().get(family, key)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(family, key) for key in keys]

    def scan(
        self, family: Family, start: bytes, end_exclusive: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        found = super().scan(family, start, end_exclusive, reverse=reverse, limit=limit)
        for key, _ in found:
            self.get(family, key)
        return found


# --- the copy ---


@pytest.mark.parametrize("as_whole", [True, False])
def test_a_sound_database_is_copied_with_everything_but_the_wholeness_of_a_salvaged_one(as_whole: bool) -> None:
    source, target = MemoryStorage(), MemoryStorage(b"t" * 16)
    fill(source, b"r" * 16)
    saved = copy_database(source, target, (), as_whole=as_whole)
    assert (saved.groups, saved.entries, saved.missing, saved.lost) == (3, 2 * LAST + LAST - 100, 0, {})
    assert target.unsynced_batches() == 0
    for group_id in GROUPS:
        check_copy(target, group_id)
        assert is_whole(target, group_id, b"r" * 16) == as_whole
        for family in (Family.LOG, Family.STATE):
            assert target.scan(family, *group_range(group_id)) == source.scan(family, *group_range(group_id))
    assert target.get(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO)) == (77).to_bytes(8, "big")
    assert target.database_id() == b"t" * 16


@pytest.mark.parametrize("as_whole", [True, False])
def test_entries_that_cannot_be_read_are_damaged_ones_of_the_copy(as_whole: bool) -> None:
    source, target = BadBlocks(), MemoryStorage()
    fill(source, b"r" * 16)
    bad = [1, 150, 151, 200, LAST]
    source.bad = {(Family.LOG, log_key(SMALL, index)) for index in bad}
    saved = copy_database(source, target, (), as_whole=as_whole)
    assert saved.missing == len(bad)
    assert "5 damaged ones were not" in saved.in_words()
    check_copy(target, SMALL, bad)
    check_copy(target, LARGE)


def test_an_entry_of_an_older_term_that_came_back_is_not_taken() -> None:
    """As when the table with the truncation and what followed it is lost."""
    source, target = MemoryStorage(), MemoryStorage()
    fill(source, b"r" * 16)
    for index in (151, 160):
        source.damage(Family.LOG, log_key(SMALL, index), entry(SMALL, index, term=1).data)
    copy_database(source, target, (), as_whole=False)
    check_copy(target, SMALL, [151, 160])


def test_a_log_whose_term_table_is_not_that_of_its_end_is_not_salvaged() -> None:
    source, target = MemoryStorage(), MemoryStorage()
    fill(source, b"r" * 16)
    for key, _ in source.scan(Family.INDEX, *group_range(SMALL)):
        source.damage(Family.INDEX, key, None)
    saved = copy_database(source, target, (), as_whole=False)
    assert set(saved.lost) == {SMALL}
    assert "nothing of groups 7" in saved.in_words()
    assert target.scan(Family.LOG, *group_range(SMALL)) == []
    assert GroupLog(target, SMALL).last_index() == 0
    assert target.get(Family.META, meta_key(SMALL, MetaRow.REPLICA)) == b"replica 7"
    check_copy(target, LARGE)


@pytest.mark.parametrize("as_whole", [True, False])
def test_a_group_without_the_state_its_log_begins_from_is_lost(as_whole: bool) -> None:
    source, target = MemoryStorage(), MemoryStorage()
    fill(source, b"r" * 16)
    for index in (100, 300):
        for group_id in GROUPS:
            source.damage(Family.STATE, state_key(group_id, index), None)
    saved = copy_database(source, target, (), as_whole=as_whole)
    assert set(saved.lost) == {CUT}
    assert not is_whole(target, CUT, b"r" * 16)
    assert is_whole(target, SMALL, b"r" * 16) == as_whole


def test_unreadable_rows_of_a_group_cost_a_whole_database_its_wholeness_and_a_lost_one_that_group() -> None:
    source, target = BadBlocks(), MemoryStorage()
    fill(source, b"r" * 16)
    source.bad = {(Family.META, meta_key(SMALL, MetaRow.LAST))}
    with pytest.raises(StorageCorrupt):
        copy_database(source, MemoryStorage(), (), as_whole=True)
    saved = copy_database(source, target, (), as_whole=False)
    assert set(saved.lost) == {SMALL}
    check_copy(target, LARGE)
    check_copy(target, CUT)


def test_loose_values_fill_the_gaps_if_they_are_the_ones_of_the_log() -> None:
    source, target = BadBlocks(), MemoryStorage()
    fill(source, b"r" * 16)
    gone = [1, 151, 160, 200]
    source.bad = {(Family.LOG, log_key(SMALL, index)) for index in gone}
    loose = [
        (log_key(SMALL, 1), entry(SMALL, 1).data),
        (log_key(SMALL, 151), entry(SMALL, 151).data),
        (log_key(SMALL, 151), entry(SMALL, 151, term=1).data),
        (log_key(SMALL, 160), entry(SMALL, 160, term=1).data),
        (log_key(SMALL, 200), entry(SMALL, 201).data),
        (log_key(SMALL, LAST + 1), entry(SMALL, LAST + 1).data),
        (log_key(55, 1), entry(55, 1).data),
        (b"key", b"value"),
    ]
    copy_database(source, target, loose, as_whole=False)
    check_copy(target, SMALL, [160, 200])
    assert target.scan(Family.LOG, *group_range(55)) == []


# --- a data folder in memory: crash points ---


class Machine:
    """A data folder of a founded node with data, its database and a power switch."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, self.random.randbytes)
        opened = self.open()
        voters = (Founder(NODE, opened.identity.incarnation),)
        save_identity(self.files, opened.identity.founded(Founding(b"c" * 16, voters)))
        fill(opened.storage, opened.repair_id)
        opened.close()

    def open(self) -> Opened:
        return open_node(self.files, self.database, NODE, self.random.randbytes)

    def crash(self) -> None:
        self.files.crash()
        self.database.crash()


def test_a_crash_at_any_step_of_replacing_a_damaged_database_forgets_nothing() -> None:
    steps = 0
    while True:
        machine = Machine()
        machine.database.damaged = "Corruption"
        machine.files.crash_after_steps = steps
        try:
            machine.open()
        except SimulatedCrash:
            machine.crash()
            opened = machine.open()
        else:
            break
        assert opened.state is NodeState.WHOLE
        assert opened.repair_id == bytes(16)
        for group_id in GROUPS:
            check_copy(opened.storage, group_id)
            assert is_whole(opened.storage, group_id, opened.repair_id)
        assert machine.database.copy is None
        steps += 1
    assert steps > 5


class DamagedMachine(Machine):
    """The same with a database that a background task gave up, and keys of it that cannot be read."""

    def __init__(self, bad: set[tuple[Family, bytes]], kind: type[BadBlocks] = BadBlocks) -> None:
        super().__init__()
        storage = kind(self.database.storage.database_id() if self.database.storage else b"")
        fill(storage, bytes(16))
        # Not below the mark: what else a node has written.
        while storage.sequence_number() < 10_000:
            batch = storage.new_batch()
            for _ in range(1000):
                batch.put(Family.META, meta_key(SMALL, MetaRow.COMMIT_HINT), bytes(8))
            storage.write(batch)
        storage.close()
        storage.bad = bad
        self.database.storage = storage
        self.database.damaged = "Corruption"


def test_unreadable_states_cost_a_replaced_database_only_the_groups_that_begin_with_one() -> None:
    machine = DamagedMachine(
        {(Family.STATE, state_key(group_id, index)) for group_id in GROUPS for index in (100, 300)}
    )
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    assert "nothing of groups 9 could be used" in opened.findings[-1].message
    assert [is_whole(opened.storage, group_id, bytes(16)) for group_id in GROUPS] == [True, True, False]


def test_a_database_that_cannot_be_copied_as_a_whole_is_salvaged() -> None:
    class Failing(BadBlocks):
        """A row of META that can be scanned over and not read."""

        def get(self, family: Family, key: bytes) -> bytes | None:
            if self.bad and key == meta_key(SMALL, MetaRow.CONFIGURATIONS):
                raise StorageCorrupt("block of a row")
            return super().get(family, key)

    machine = DamagedMachine({(Family.LOG, log_key(SMALL, 5))}, Failing)
    opened = machine.open()
    assert opened.state is NodeState.REPAIR
    assert "cannot be copied as a whole: block of a row" in opened.findings[-1].message
    check_copy(opened.storage, LARGE)
    assert machine.database.copy is None


def test_a_whole_database_without_room_for_a_copy_is_used_as_it_is_and_that_is_told() -> None:
    machine = Machine()
    machine.database.damaged, machine.database.room_for_copy = "Corruption: block", False
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    (finding,) = opened.findings
    assert finding.severity is Severity.ERROR
    assert "no room for a copy" in finding.message
    assert "free space" in finding.fix


def test_a_salvaged_database_makes_nothing_whole_at_any_crash() -> None:
    steps = 0
    while True:
        machine = Machine()
        machine.database.refusing = frozenset(RecoveryMode)
        machine.files.crash_after_steps = steps
        crashed = False
        try:
            opened = machine.open()
        except SimulatedCrash:
            crashed = True
            machine.crash()
            opened = machine.open()
        assert opened.state is NodeState.REPAIR
        assert not any(is_whole(opened.storage, group_id, opened.repair_id) for group_id in GROUPS)
        if not crashed:
            break
        steps += 1
    assert steps > 5
    for group_id in GROUPS:
        check_copy(opened.storage, group_id)
    assert "1100 entries" in opened.findings[-1].message


# --- a data folder on a disk ---


def open_folder(path: Path, free_bytes: Callable[[Path], int] | None = None) -> Opened:
    files = DataFolder(path)
    database = DatabaseFolder(files, RocksStorage, free_bytes or (lambda _: 1 << 40))
    return open_node(files, database, NODE, random.Random(str(path)).randbytes)


@pytest.fixture(scope="module")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    opened = open_folder(path)
    voters = (Founder(NODE, opened.identity.incarnation),)
    save_identity(opened.files, opened.identity.founded(Founding(b"c" * 16, voters)))
    fill(opened.storage, opened.repair_id)
    opened.storage.flush()
    opened.close()
    return path


@pytest.fixture
def folder(sound_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    shutil.copytree(sound_folder, path)
    return path


def tables(folder: Path) -> list[Path]:
    """Largest first: that of LOG, which holds small entries and the places of large ones."""
    return sorted((folder / DATABASE_NAME).glob("*.sst"), key=lambda file: -file.stat().st_size)


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def manifest(folder: Path) -> Path:
    return next((folder / DATABASE_NAME).glob("MANIFEST-*"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: manifest(folder).unlink(),
        lambda folder: os.truncate(manifest(folder), 100),
        lambda folder: flip(manifest(folder), 60),
        lambda folder: (folder / DATABASE_NAME / "CURRENT").unlink(),
    ],
    ids=["manifest gone", "manifest cut", "manifest flipped", "CURRENT gone"],
)
def test_a_database_without_its_manifest_is_salvaged_entirely_and_nothing_of_it_counts(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    harm(folder)
    opened = open_folder(folder)
    assert opened.state is NodeState.REPAIR
    for group_id in GROUPS:
        check_copy(opened.storage, group_id)
        assert not is_whole(opened.storage, group_id, opened.repair_id)
        hard_state = opened.votes.get(group_id)
        assert hard_state is None or hard_state.term <= 5
    told = opened.findings[-1].message
    assert "salvaged from it: 1100 entries" in told
    opened.close()
    assert list((folder / "quarantine").glob(f"*-database/{DATABASE_NAME}")), "what was salvaged is kept"
    assert not list((folder / "quarantine").glob("*/repaired")), "the working copy is gone"
    again = open_folder(folder)
    check_copy(again.storage, LARGE)
    again.close()


def test_without_room_for_a_second_copy_the_node_starts_empty_and_says_so(folder: Path) -> None:
    manifest(folder).unlink()
    opened = open_folder(folder, lambda _: 1 << 20)
    assert opened.state is NodeState.REPAIR
    assert "no room for a second copy" in opened.findings[-1].message
    assert opened.storage.scan(Family.LOG, *group_range(SMALL)) == []
    opened.close()


def test_a_missing_table_loses_what_was_in_it_and_brings_nothing_false_back(folder: Path) -> None:
    for number in range(len(tables(folder))):
        harmed = folder.with_name(f"without-{number}")
        shutil.copytree(folder, harmed)
        tables(harmed)[number].unlink()
        opened = open_folder(harmed)
        assert opened.state is NodeState.REPAIR
        for group_id in GROUPS:
            log = GroupLog(opened.storage, group_id)
            assert log.last_index() in (0, LAST)
            for item in survey(opened.storage, group_id, log.first_index(), log.last_index()):
                assert not isinstance(item, tuple) or item[1] == entry(group_id, item[1].index)
        opened.close()


def test_a_damaged_table_is_left_behind_at_the_next_start_and_the_node_stays_whole(folder: Path) -> None:
    table = tables(folder)[0]
    flip(table, table.stat().st_size // 3)
    (folder / DATABASE_NAME / DAMAGED_NAME).write_text("Corruption: block checksum mismatch")
    opened = open_folder(folder)
    assert opened.state is NodeState.WHOLE
    missing = {group_id: find_damage(opened.storage, group_id, 101, LAST) for group_id in GROUPS}
    assert sum(map(len, missing.values())) > 0
    for group_id in GROUPS:
        check_copy(opened.storage, group_id, [*find_damage(opened.storage, group_id, 1, 100), *missing[group_id]])
        assert is_whole(opened.storage, group_id, opened.repair_id)
    (finding,) = opened.findings
    assert "nothing is forgotten" in finding.message
    assert not (folder / COPY_NAME).exists()
    for _ in range(3):
        opened.storage.reclaim(Family.LOG, *group_range(SMALL))
        batch = opened.storage.new_batch()
        batch.put(Family.LOG, log_key(SMALL, missing[SMALL][0] if missing[SMALL] else 1), b"later")
        opened.storage.write(batch)
    opened.close()
    again = open_folder(folder)
    assert (again.state, again.findings) == (NodeState.WHOLE, ())
    again.close()


def test_unreadable_rows_of_meta_bring_the_node_into_repair(folder: Path) -> None:
    harmed = 0
    for number in range(len(tables(folder))):
        path = folder.with_name(f"flipped-{number}")
        shutil.copytree(folder, path)
        flip(tables(path)[number], 20)
        opened = open_folder(path)
        told = "".join(finding.message for finding in opened.findings)
        if opened.state is NodeState.REPAIR:
            assert "META cannot be read" in told or "cannot be opened" in told
            assert not any(is_whole(opened.storage, group_id, opened.repair_id) for group_id in GROUPS)
            harmed += 1
        opened.close()
    assert harmed >= 1


def test_unreadable_rows_of_meta_end_no_start_even_where_more_is_forgotten() -> None:
    machine = Machine()
    machine.files.remove("watermark")
    machine.files.sync_folder()
    storage = BadBlocks()
    fill(storage, bytes(16))
    storage.bad = {(Family.META, meta_key(SMALL, MetaRow.HARD_STATE))}
    storage.close()
    machine.database.storage = storage
    opened = machine.open()
    assert opened.state is NodeState.REPAIR
    assert "META cannot be read" in opened.findings[-1].message
    assert "nothing of groups 7" in opened.findings[-1].message
    check_copy(opened.storage, LARGE)
    assert not is_whole(opened.storage, LARGE, opened.repair_id)


def test_blob_files_are_read_up_to_their_damage(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path / "db")
    batch = storage.new_batch()
    written = [(log_key(LARGE, index), entry(LARGE, index).data) for index in range(1, 11)]
    for key, value in written:
        batch.put(Family.LOG, key, value)
    storage.write(batch)
    storage.flush()
    storage.close()
    (file,) = (tmp_path / "db").glob("*.blob")
    sound = file.read_bytes()
    assert list(read_blobs(tmp_path / "db")) == written

    third = sound.index(written[2][1])
    flip(file, third + 100)
    assert list(read_blobs(tmp_path / "db")) == written[:2] + written[3:], "one value"
    file.write_bytes(sound)
    flip(file, third - 17 - 32)
    assert list(read_blobs(tmp_path / "db")) == written[:2], "a length that nobody knows any more"
    file.write_bytes(sound[: third + 100])
    assert list(read_blobs(tmp_path / "db")) == written[:2]
    for content in (b"short", b"x" * 100, bytes(100)):
        file.write_bytes(content)
        assert list(read_blobs(tmp_path / "db")) == []


def test_what_no_repair_can_open_is_no_reason_not_to_start(folder: Path) -> None:
    shutil.rmtree(folder / DATABASE_NAME)
    (folder / DATABASE_NAME).mkdir()
    (folder / DATABASE_NAME / "000042.sst").write_bytes(b"nothing")
    opened = open_folder(folder)
    assert opened.state is NodeState.REPAIR
    assert opened.storage.scan(Family.LOG, *group_range(SMALL)) == []
    opened.close()

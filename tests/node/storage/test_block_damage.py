"""Damage to any 512-byte block of any file of a database: an unsynced tail is cut, or the node is in REPAIR, or what is
damaged is named and can be mended. Nothing synced is ever missing in silence, and nothing false is ever read.

A sample of the blocks, drawn anew each time: QUORUMLOG_BLOCKS of them for each kind of file and damage, all with a
number that is large enough. The seed is printed, and QUORUMLOG_SEED repeats it.
"""

import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from quorumlog.node.errors import LogLost, StorageFailed
from quorumlog.node.storage.database import DATABASE_NAME, DatabaseFolder
from quorumlog.node.storage.entry import encode_entry
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.group_read import find_damage, survey, walk
from quorumlog.node.storage.identity import Founder, Founding, save_identity
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import MetaRow, group_range, meta_key
from quorumlog.node.storage.opened import NodeState, Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.repair import is_whole, mark_whole
from quorumlog.node.storage.rocks import DAMAGED_NAME, RocksStorage
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, HardState, LogIndex, NodeId, Term

BLOCK_BYTES = 512
GROUPS = {7: 150, 8: 5000}
"""Group id and size of its records: in tables, and in blob files."""
LAST = 120
VOTE = HardState(Term(5), NodeId(2))


def entry(group_id: int, index: int) -> Entry:
    payload = pack_stored(header_for(1, first_timestamp_ms=index), random.Random(index).randbytes(GROUPS[group_id]))
    data = encode_entry(
        EntryKind.RECORDS, group_id, index, 1 + index // 50, index - 1, 1, index, payload, crc32c(payload)
    )
    return Entry(LogIndex(index), Term(1 + index // 50), EntryKind.RECORDS, data)


def open_folder(path: Path) -> Opened:
    files = DataFolder(path)
    return open_node(files, DatabaseFolder(files, RocksStorage), NodeId(1), random.Random(str(path)).randbytes)


def write(opened: Opened, first: int, last: int) -> None:
    for group_id in GROUPS:
        log = GroupLog(opened.storage, group_id)
        for start in range(first, last + 1, 10):
            batch = opened.storage.new_batch()
            log.append(batch, [entry(group_id, index) for index in range(start, min(start + 10, last + 1))])
            opened.storage.write(batch)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of a node that was killed: one with everything in the write-ahead log, one with everything in tables.

    All of it is synced and below the watermark, up to LAST; ten entries more are not.
    """
    made = {}
    for name in ("log", "tables"):
        path = tmp_path_factory.mktemp("running")
        opened = open_folder(path)
        voters = (Founder(NodeId(1), opened.identity.incarnation),)
        save_identity(opened.files, opened.identity.founded(Founding(b"c" * 16, voters)))
        batch = opened.storage.new_batch()
        for group_id in GROUPS:
            batch.put(Family.META, meta_key(group_id, MetaRow.REPLICA), b"replica")
            put_hard_state(batch, group_id, VOTE)
            mark_whole(batch, group_id, opened.repair_id)
        opened.storage.write(batch)
        opened.votes.append([VoteRecord(group_id, VOTE.term, VOTE.vote) for group_id in GROUPS])
        write(opened, 1, LAST)
        if name == "tables":
            opened.storage.flush()
        sequence = opened.storage.sequence_number()
        opened.storage.sync()
        opened.votes.sync()
        opened.watermark.publish(sequence)
        write(opened, LAST + 1, LAST + 10)
        made[name] = tmp_path_factory.mktemp("killed") / name
        shutil.copytree(path, made[name])
        opened.close()
    return made


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[min(at + BLOCK_BYTES // 2, len(content) - 1)] ^= 1 << at // BLOCK_BYTES % 8
    path.write_bytes(content)


def zero(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + BLOCK_BYTES] = bytes(len(content[at : at + BLOCK_BYTES]))
    path.write_bytes(content)


def cut(path: Path, at: int) -> None:
    os.truncate(path, at)


def blocks(folder: Path, pattern: str, name: str) -> Iterator[tuple[str, int]]:
    """(file name, start) of the blocks to damage."""
    found = [
        (path.name, at)
        for path in sorted((folder / DATABASE_NAME).glob(pattern))
        for at in range(0, path.stat().st_size, BLOCK_BYTES)
    ]
    sample = int(os.environ.get("QUORUMLOG_BLOCKS", "6"))
    seed = int(os.environ.get("QUORUMLOG_SEED", random.SystemRandom().getrandbits(32)))
    print(f"QUORUMLOG_SEED={seed}")
    rng = random.Random(seed ^ zlib.crc32(name.encode()))
    return iter(rng.sample(found, min(sample, len(found))))


def check(opened: Opened, where: str) -> str:
    """Nothing is missing in silence and nothing is false; returns what became of the damage."""
    outcomes = set()
    for group_id in GROUPS:
        assert opened.votes.get(group_id) == VOTE, f"{where}: a vote is forgotten"
        try:
            log = GroupLog(opened.storage, group_id)
        except LogLost:
            outcomes.add("lost and told")
            continue
        damaged = find_damage(opened.storage, group_id, log.first_index(), log.last_index())
        for item in survey(opened.storage, group_id, log.first_index(), log.last_index()):
            assert not isinstance(item, tuple) or item[1] == entry(group_id, item[1].index), f"{where}: false entry"
        if is_whole(opened.storage, group_id, opened.repair_id):
            assert opened.state is NodeState.WHOLE
            assert log.last_index() >= LAST, f"{where}: synced entries are missing in silence"
        else:
            outcomes.add("REPAIR")
        for index in damaged:
            log.note_damage(index)
        batch = opened.storage.new_batch()
        assert log.mend(batch, [entry(group_id, index) for index in damaged]) == damaged, where
        opened.storage.write(batch)
        outcomes.add("mended" if damaged else "nothing lost")
        assert len(list(walk(opened.storage, group_id, log.first_index(), log.last_index()))) == log.last_index()
    return "+".join(sorted(outcomes))


@pytest.mark.parametrize("damage", [flip, zero, cut])
@pytest.mark.parametrize(
    ("name", "pattern"),
    [("log", "*.log"), ("tables", "*.sst"), ("tables", "*.blob"), ("tables", "MANIFEST-*"), ("tables", "CURRENT")],
)
def test_damage_to_any_block_is_cut_repaired_or_named(
    folders: dict[str, Path], name: str, pattern: str, damage: Callable[[Path, int], None], tmp_path: Path
) -> None:
    outcomes: dict[str, int] = {}
    for file_name, at in blocks(folders[name], pattern, f"{name}{pattern}{damage.__name__}"):
        where = f"{damage.__name__} {file_name} at {at}"
        path = tmp_path / "data"
        shutil.copytree(folders[name], path)
        damage(path / DATABASE_NAME / file_name, at)
        opened = open_folder(path)
        outcome = check(opened, where)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        try:
            for _ in range(3):
                for family in Family:
                    opened.storage.reclaim(family, *group_range(7))
                batch = opened.storage.new_batch()
                batch.put(Family.META, meta_key(7, MetaRow.COMMIT_HINT), bytes(8))
                opened.storage.write(batch)
            opened.close()
        except StorageFailed:
            # As a supervisor does: what was damaged has been met by a compaction, and is left behind.
            assert (path / DATABASE_NAME / DAMAGED_NAME).exists(), where
            with suppress(StorageFailed):
                opened.storage.close()
            opened.files.close()
            opened = open_folder(path)
            check(opened, f"{where}, at the next start")
            assert not (path / DATABASE_NAME / DAMAGED_NAME).exists(), where
            opened.close()
        shutil.rmtree(path)
    print(outcomes)
    assert outcomes

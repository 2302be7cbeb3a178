"""Opening a data folder on a disk, with RocksDB: what damage or a power cut leaves is judged, never overlooked."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from quorumlog.node.storage.database import DATABASE_NAME, DatabaseFolder
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import log_key
from quorumlog.node.storage.opened import NodeState, Opened, Severity
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.repair import is_whole
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.raft.types import HardState, NodeId, Term

GROUP = 7
SYNCED = 300

WRITER = """
import json, os, pathlib, random, signal, sys
from quorumlog.node.storage.database import DatabaseFolder
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.identity import Founding, Founder, save_identity
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import log_key
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.repair import mark_whole
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.raft.types import HardState

path, seed, synced, unsynced = sys.argv[1], *map(int, sys.argv[2:])
draw = random.Random(seed).randbytes
files = DataFolder(pathlib.Path(path))
node = open_node(files, DatabaseFolder(files, RocksStorage), 1, draw)
save_identity(files, node.identity.founded(Founding(b"c" * 16, (Founder(1, node.identity.incarnation),))))

def write(first, last):
    for index in range(first, last):
        batch = node.storage.new_batch()
        batch.put(Family.LOG, log_key(7, index), draw(200))
        if index == 0:
            put_hard_state(batch, 7, HardState(3, 2))
            mark_whole(batch, 7, node.repair_id)
        node.storage.write(batch)

write(0, synced)
node.votes.append([VoteRecord(7, 3, 2)])
sequence = node.storage.sequence_number()
node.storage.sync()
node.votes.sync()
node.watermark.publish(sequence)
sizes = {wal.name: wal.stat().st_size for wal in pathlib.Path(path, "db").glob("*.log")}
write(synced, synced + unsynced)
print(json.dumps(sizes), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True)
class Node:
    """A data folder whose node was killed, and how much of its write-ahead log was synced."""

    path: Path
    synced_bytes: int

    @property
    def database(self) -> Path:
        return self.path / DATABASE_NAME

    @property
    def wal(self) -> Path:
        return max(self.database.glob("*.log"), key=lambda wal: wal.stat().st_size)

    def copy(self, path: Path) -> "Node":
        shutil.copytree(self.path, path)
        return Node(path, self.synced_bytes)


def killed_node(path: Path, seed: int, unsynced: int = 0) -> Node:
    """Let a child process write, sync, perhaps write on without a sync, and kill itself."""
    arguments = [str(path), str(seed), str(SYNCED), str(unsynced)]
    child = subprocess.run([sys.executable, "-c", WRITER, *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == -9, child.stderr
    return Node(path, max(json.loads(child.stdout).values()))


@pytest.fixture(scope="module")
def synced_node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return killed_node(tmp_path_factory.mktemp("synced") / "data", seed=1)


@pytest.fixture(scope="module")
def nodes_with_unsynced_tail(tmp_path_factory: pytest.TempPathFactory) -> list[Node]:
    folder = tmp_path_factory.mktemp("unsynced")
    return [killed_node(folder / f"node-{seed}", seed, unsynced=SYNCED) for seed in (1, 2, 3)]


@pytest.fixture
def node(synced_node: Node, tmp_path: Path) -> Node:
    return synced_node.copy(tmp_path / "data")


class Runner:
    """Starts nodes on their folders, and stops what a test leaves running."""

    def __init__(self) -> None:
        self.running: dict[Path, Opened] = {}

    def start(self, node: Node) -> Opened:
        files = DataFolder(node.path)
        opened = open_node(files, DatabaseFolder(files, RocksStorage), NodeId(1), Random(99).randbytes)
        self.running[node.path] = opened
        return opened

    def stop(self, node: Node) -> None:
        self.running.pop(node.path).close()


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    for opened in runner.running.values():
        opened.close()


def count(opened: Opened) -> int:
    return len(opened.storage.scan(Family.LOG, log_key(GROUP, 0), log_key(GROUP + 1, 0)))


def assert_repair(opened: Opened, why: str) -> None:
    assert opened.state is NodeState.REPAIR
    assert not is_whole(opened.storage, GROUP, opened.repair_id)
    assert opened.votes.get(GROUP) == HardState(Term(3), NodeId(2)), "a lost log forgets no vote"
    told = [finding for finding in opened.findings if finding.severity is Severity.ERROR]
    assert why in told[-1].message
    assert told[-1].fix


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0x10]))


# --- a damaged write-ahead log ----------------------------------------------------------------------------------------


def test_a_killed_node_comes_back_whole(node: Node, runner: Runner) -> None:
    opened = runner.start(node)
    assert opened.state is NodeState.WHOLE
    assert opened.findings == ()
    assert count(opened) == SYNCED
    assert is_whole(opened.storage, GROUP, opened.repair_id)


def test_one_flipped_bit_in_the_middle_of_the_log_enters_repair(node: Node, runner: Runner) -> None:
    damaged = node.wal
    flip(damaged, damaged.stat().st_size // 2)
    before = damaged.read_bytes()
    opened = runner.start(node)
    assert_repair(opened, "but had safely reached")
    assert 0 < count(opened) < SYNCED
    assert (node.path / "quarantine/0001-wal" / damaged.name).read_bytes() == before


def test_a_deleted_log_enters_repair(node: Node, runner: Runner) -> None:
    node.wal.unlink()
    assert_repair(runner.start(node), "but had safely reached")


def test_a_log_cut_in_half_enters_repair(node: Node, runner: Runner) -> None:
    os.truncate(node.wal, node.wal.stat().st_size // 2)
    opened = runner.start(node)
    assert_repair(opened, "but had safely reached")
    assert 0 < count(opened) < SYNCED


def test_damage_anywhere_in_the_synced_log_is_never_silent(synced_node: Node, tmp_path: Path, runner: Runner) -> None:
    """Flip, zero and cut at a block of each region of the log: what is not all there is in REPAIR."""
    size = synced_node.wal.stat().st_size
    damages: dict[str, Callable[[Path, int], None]] = {
        "flip": flip,
        "zero": lambda path, at: overwrite(path, at, bytes(512)),
        "cut": os.truncate,
    }
    for name, damage in damages.items():
        for number in range(8):
            node = synced_node.copy(tmp_path / f"{name}-{number}")
            damage(node.wal, (size - 512) * number // 7)
            opened = runner.start(node)
            assert opened.state is NodeState.REPAIR, f"{name} {number}"
            assert count(opened) < SYNCED
            runner.stop(node)


def test_repair_is_still_told_after_a_restart(node: Node, runner: Runner) -> None:
    os.truncate(node.wal, node.wal.stat().st_size // 2)
    first = runner.start(node)
    runner.stop(node)
    again = runner.start(node)
    assert_repair(again, "entered REPAIR at an earlier start")
    assert again.repair_id == first.repair_id


# --- an ordinary power cut --------------------------------------------------------------------------------------------


def zero_to_the_end(path: Path, start: int) -> None:
    overwrite(path, start, bytes(path.stat().st_size - start))


def zero_one_page(path: Path, start: int) -> None:
    overwrite(path, start, bytes(4096))


@pytest.mark.parametrize("tear", [zero_to_the_end, zero_one_page, os.truncate])
def test_a_power_cut_of_all_three_nodes_at_once_brings_none_into_repair(
    tear: Callable[[Path, int], None],
    nodes_with_unsynced_tail: list[Node],
    tmp_path: Path,
    runner: Runner,
) -> None:
    for number, original in enumerate(nodes_with_unsynced_tail):
        node = original.copy(tmp_path / f"node-{number}")
        unsynced_bytes = node.wal.stat().st_size - node.synced_bytes
        page = (node.synced_bytes + unsynced_bytes // 2) // 4096 * 4096
        assert node.synced_bytes < page, "only what was never synced may be torn"
        tear(node.wal, page)
        opened = runner.start(node)
        assert opened.state is NodeState.WHOLE
        assert SYNCED <= count(opened) < 2 * SYNCED
        assert all(finding.severity is not Severity.ERROR for finding in opened.findings)


# --- a damaged database -----------------------------------------------------------------------------------------------


def remove(node: Node, pattern: str) -> None:
    found = list(node.database.glob(pattern))
    assert found, f"{node.database} has no {pattern}"
    for path in found:
        path.unlink()


def spoil(node: Node, pattern: str) -> None:
    found = list(node.database.glob(pattern))
    assert found, f"{node.database} has no {pattern}"
    for path in found:
        path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [remove, spoil])
@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_database_that_cannot_be_opened_goes_to_quarantine_and_the_node_enters_repair(
    harm: Callable[[Node, str], None], pattern: str, node: Node, runner: Runner
) -> None:
    runner.start(node)
    runner.stop(node)  # what was in the log is in tables now
    harm(node, pattern)
    tables = {path.name for path in node.database.glob("*.sst")}
    opened = runner.start(node)
    assert_repair(opened, "cannot be opened")
    assert count(opened) == 0
    (moved,) = (node.path / "quarantine").glob("*-database/db")
    assert tables <= {path.name for path in moved.iterdir()}


def test_a_deleted_database_enters_repair(node: Node, runner: Runner) -> None:
    shutil.rmtree(node.database)
    assert_repair(runner.start(node), "the database is missing")


def test_an_older_copy_of_the_database_enters_repair(node: Node, tmp_path: Path, runner: Runner) -> None:
    runner.start(node)
    runner.stop(node)
    older = node.copy(tmp_path / "older")
    opened = runner.start(node)
    batch = opened.storage.new_batch()
    batch.put(Family.LOG, log_key(GROUP, SYNCED), b"acknowledged")
    opened.storage.write(batch)
    runner.stop(node)
    shutil.rmtree(node.database)
    shutil.copytree(older.database, node.database)
    opened = runner.start(node)
    assert_repair(opened, "but had safely reached")
    assert count(opened) == SYNCED, "what is there is kept, for the day the node is healed"


def vote_again(opened: Opened, state: HardState) -> None:
    batch = opened.storage.new_batch()
    put_hard_state(batch, GROUP, state)
    opened.storage.write(batch)
    opened.votes.append([VoteRecord(GROUP, state.term, state.vote)])
    opened.storage.sync()
    opened.votes.sync()


@pytest.mark.parametrize("restored", [("votes",), ("watermark",), ("votes", "watermark")])
def test_an_older_copy_of_a_small_file_beside_the_database_forgets_no_vote(
    restored: tuple[str, ...], node: Node, tmp_path: Path, runner: Runner
) -> None:
    runner.start(node)
    runner.stop(node)
    older = node.copy(tmp_path / "older")
    vote_again(runner.start(node), HardState(Term(9), NodeId(3)))
    runner.stop(node)
    for name in restored:
        shutil.copyfile(older.path / name, node.path / name)
    opened = runner.start(node)
    assert opened.state is NodeState.WHOLE
    assert opened.votes.get(GROUP) == HardState(Term(9), NodeId(3))
    assert count(opened) == SYNCED


def test_an_older_copy_of_all_but_the_watermark_enters_repair(node: Node, tmp_path: Path, runner: Runner) -> None:
    runner.start(node)
    runner.stop(node)
    older = node.copy(tmp_path / "older")
    vote_again(runner.start(node), HardState(Term(9), NodeId(3)))
    runner.stop(node)
    shutil.copyfile(node.path / "watermark", older.path / "watermark")
    assert_repair(runner.start(older), "but had safely reached")


@pytest.mark.parametrize(
    "names", [("db",), ("watermark",), ("db", "votes"), ("db", "watermark"), ("db", "watermark", "votes")]
)
def test_files_of_two_nodes_in_one_folder_never_pass_for_whole(
    names: tuple[str, ...], node: Node, nodes_with_unsynced_tail: list[Node], runner: Runner
) -> None:
    other = nodes_with_unsynced_tail[1]
    for name in names:
        if (node.path / name).is_dir():
            shutil.rmtree(node.path / name)
            shutil.copytree(other.path / name, node.path / name)
        else:
            shutil.copyfile(other.path / name, node.path / name)
    opened = runner.start(node)
    assert count(opened) == 0
    if {"db", "watermark"} <= set(names):
        # These two agree, but the identity is of another node: whose the votes are nobody knows.
        assert opened.state is NodeState.WIPED
        assert "the database belongs to incarnation" in opened.findings[-1].message
    else:
        assert_repair(opened, "but the watermark belongs to")


def test_a_database_of_another_node_without_a_watermark_to_tell_is_not_used_either(
    node: Node, nodes_with_unsynced_tail: list[Node], runner: Runner
) -> None:
    shutil.rmtree(node.database)
    shutil.copytree(nodes_with_unsynced_tail[1].database, node.database)
    (node.path / "watermark").unlink()
    opened = runner.start(node)
    assert_repair(opened, "the database belongs to incarnation")
    assert count(opened) == 0


def test_the_database_of_another_node_is_not_used(
    node: Node, nodes_with_unsynced_tail: list[Node], runner: Runner
) -> None:
    shutil.rmtree(node.database)
    shutil.copytree(nodes_with_unsynced_tail[1].database, node.database)
    opened = runner.start(node)
    assert_repair(opened, "but the watermark belongs to")
    assert count(opened) == 0


def test_a_wiped_node_keeps_its_database_in_quarantine(node: Node, runner: Runner) -> None:
    (node.path / "votes").unlink()
    os.truncate(node.wal, node.wal.stat().st_size // 2)
    opened = runner.start(node)
    assert opened.state is NodeState.WIPED
    assert count(opened) == 0
    assert (node.path / "quarantine/0001-wiped/db/CURRENT").exists()

"""What only RocksDB can show: killed processes, damaged files, a full disk, a second opener, back-pressure."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorumlog.node.errors import StorageBusy, StorageCorrupt, StorageError, StorageFailed, StorageLocked
from quorumlog.node.storage.interface import Family, RecoveryMode
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.node.storage.rocks_options import MemoryBudget

KEYS = 2000


def key(i: int) -> bytes:
    return i.to_bytes(8, "big")


def put(storage: RocksStorage, i: int, value: bytes, family: Family = Family.LOG) -> None:
    batch = storage.new_batch()
    batch.put(family, key(i), value)
    storage.write(batch)


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def largest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_size)


def run_child(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in another process, with `storage` open in `path` and put() at hand."""
    prelude = (
        "import os, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from quorumlog.node.errors import StorageBusy, StorageError\n"
        "from quorumlog.node.storage.interface import Family\n"
        "from quorumlog.node.storage.rocks import RocksStorage\n"
        "def put(i, value):\n"
        "    batch = storage.new_batch(); batch.put(Family.LOG, i.to_bytes(8, 'big'), value); storage.write(batch)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "database"


# --- processes ---


def test_what_was_synced_survives_a_killed_process(folder: Path) -> None:
    child = run_child(
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "for i in range(500): put(i, b'x' * 100)\n"
        "number = storage.sequence_number()\n"
        "storage.sync()\n"
        "print(number, storage.database_id().hex(), flush=True)\n"
        "for i in range(500, 600): put(i, b'x' * 100)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        folder,
    )
    assert child.returncode == -9, child.stderr
    number, database_id = child.stdout.split()
    storage = RocksStorage(folder)
    found = storage.scan(Family.LOG, key(0), key(KEYS))
    assert len(found) >= 500
    assert found == [(key(i), b"x" * 100) for i in range(len(found))]
    assert storage.sequence_number() >= int(number)
    assert storage.database_id().hex() == database_id
    storage.close()


def test_a_second_process_is_told_that_another_node_is_running(folder: Path) -> None:
    storage = RocksStorage(folder)
    child = run_child(
        "try: RocksStorage(Path(sys.argv[1]))\nexcept StorageError as error: print(type(error).__name__, error)\n",
        folder,
    )
    storage.close()
    assert child.stdout.startswith("StorageLocked"), child.stderr
    assert str(folder) in child.stdout
    assert "another node is probably running" in child.stdout


def test_a_second_opener_in_the_process_is_refused_until_the_first_has_closed(folder: Path) -> None:
    first = RocksStorage(folder)
    with pytest.raises(StorageLocked, match="in use"):
        RocksStorage(folder)
    first.close()
    RocksStorage(folder).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="file/database does not open"):
        RocksStorage(tmp_path / "file" / "database")


# --- damage ---


def filled(folder: Path, value_bytes: int) -> None:
    storage = RocksStorage(folder)
    for i in range(KEYS):
        put(storage, i, os.urandom(value_bytes))
    storage.flush()
    storage.close()


@pytest.mark.parametrize(("pattern", "value_bytes"), [("*.sst", 200), ("*.blob", 5000)])
def test_a_flipped_bit_is_never_the_end_of_a_scan(folder: Path, pattern: str, value_bytes: int) -> None:
    filled(folder, value_bytes)
    damaged = largest(folder, pattern)
    flip(damaged, damaged.stat().st_size // 2)
    storage = RocksStorage(folder)
    for reverse in (False, True):
        with pytest.raises(StorageCorrupt, match=f"{folder} is damaged"):
            storage.scan(Family.LOG, key(0), key(KEYS), reverse=reverse)
    with pytest.raises(StorageCorrupt):
        storage.get_many(Family.LOG, [key(i) for i in range(KEYS)])
    failed = 0
    for i in range(KEYS):
        try:
            assert storage.get(Family.LOG, key(i)) is not None, "a damaged value reads as an absent one"
        except StorageCorrupt:
            failed += 1
    assert 0 < failed < KEYS / 2
    storage.close()


def test_a_flipped_bit_in_the_log_is_refused_or_shows_in_the_sequence_number(folder: Path) -> None:
    child = run_child(
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "for i in range(1000): put(i, os.urandom(100))\n"
        "storage.sync()\n"
        "print(storage.sequence_number(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        folder,
    )
    log = largest(folder, "*.log")
    flip(log, log.stat().st_size // 2)
    with pytest.raises(StorageCorrupt, match="does not open"):
        RocksStorage(folder, RecoveryMode.TOLERATE_TAIL)
    storage = RocksStorage(folder, RecoveryMode.POINT_IN_TIME)
    assert storage.sequence_number() < int(child.stdout)
    assert 0 < len(storage.scan(Family.LOG, key(0), key(KEYS))) < 1000
    storage.close()


def test_a_torn_tail_of_the_log_is_tolerated(folder: Path) -> None:
    child = run_child(
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "for i in range(1000): put(i, os.urandom(100))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        folder,
    )
    assert child.returncode == -9, child.stderr
    log = largest(folder, "*.log")
    os.truncate(log, log.stat().st_size - 20)
    storage = RocksStorage(folder)
    assert [found for found, _ in storage.scan(Family.LOG, key(0), key(KEYS))] == [key(i) for i in range(999)]
    storage.close()


def test_a_lost_log_shows_in_sequence_number_or_database_id(folder: Path) -> None:
    child = run_child(
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "for i in range(100): put(i, b'x')\n"
        "storage.sync()\n"
        "print(storage.sequence_number(), storage.database_id().hex(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        folder,
    )
    number, database_id = child.stdout.split()
    largest(folder, "*.log").unlink()
    storage = RocksStorage(folder)
    assert storage.scan(Family.LOG, key(0), key(KEYS)) == []
    assert storage.database_id().hex() != database_id
    assert storage.sequence_number() < int(number)
    storage.close()


@pytest.mark.parametrize("damage", ["lost", "flipped"])
def test_whatever_a_damaged_log_takes_with_it_whole_batches_are_left(folder: Path, damage: str) -> None:
    child = run_child(
        "from quorumlog.node.storage.rocks_options import MemoryBudget\n"
        "storage = RocksStorage(Path(sys.argv[1]), memory=MemoryBudget(log_memtable_bytes=64 << 10))\n"
        "for i in range(500):\n"
        "    batch = storage.new_batch()\n"
        "    batch.put(Family.LOG, i.to_bytes(8, 'big'), os.urandom(1000))\n"
        "    batch.put(Family.META, b'last', i.to_bytes(8, 'big'))\n"
        "    while True:\n"
        "        try: storage.write(batch); break\n"
        "        except StorageBusy: storage.sync()\n"
        "storage.sync()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        folder,
    )
    assert child.returncode == -9, child.stderr
    logs = sorted(folder.glob("*.log"))
    if damage == "lost":
        for log in logs:
            log.unlink()
    else:
        # The newest one: what stands in an older one may be in tables by now, and is not read any more.
        newest = next(log for log in reversed(logs) if log.stat().st_size)
        flip(newest, newest.stat().st_size // 2)
    storage = RocksStorage(folder, RecoveryMode.POINT_IN_TIME)
    found = storage.scan(Family.LOG, key(0), key(KEYS))
    assert 0 < len(found) < 500
    assert storage.get(Family.META, b"last") == found[-1][0], "the families stand at different batches"
    storage.close()


# --- limits ---


def test_a_write_that_the_file_system_refuses_fails_for_good_and_loses_nothing_synced(folder: Path) -> None:
    child = run_child(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "synced = 0\n"
        "try:\n"
        "    while True:\n"
        "        put(synced, os.urandom(1000)); storage.sync(); synced += 1\n"
        "except StorageError as error: print(type(error).__name__, synced)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try: put(5000, b'small')\n"
        "except StorageError as error: print(type(error).__name__, error, flush=True)\n"
        "os._exit(0)\n",
        folder,
    )
    first, second = child.stdout.splitlines()
    assert first.startswith("StorageFailed"), child.stderr
    assert second.startswith("StorageFailed")
    assert "outcome is unknown" in second
    assert "Check the disk" in second
    synced = int(first.split()[1])
    storage = RocksStorage(folder)
    assert [found for found, _ in storage.scan(Family.LOG, key(0), key(5000))][:synced] == [
        key(i) for i in range(synced)
    ]
    storage.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount_point = tmp_path / "small"
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount_point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is refused here")
    yield mount_point
    subprocess.run(["umount", "--lazy", str(mount_point)], check=True)  # lazy: a failed test may hold files open


def test_a_full_disk_is_a_failed_write_and_loses_nothing_synced(small_disk: Path) -> None:
    folder = small_disk / "database"
    storage, synced = RocksStorage(folder), 0
    failure: StorageFailed | None = None
    while failure is None:
        try:
            put(storage, synced, os.urandom(1000))
            storage.sync()
            synced += 1
        except StorageFailed as error:
            failure = error
    for part in (str(folder), "outcome is unknown", "No space left", "Check the disk"):
        assert part in str(failure)
    with pytest.raises(StorageFailed):
        storage.close()
    assert subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=False).returncode == 0
    storage = RocksStorage(folder)
    assert [found for found, _ in storage.scan(Family.LOG, key(0), key(synced))] == [key(i) for i in range(synced)]
    storage.close()


def test_a_storage_behind_with_flushing_says_busy_and_takes_the_same_batch_later(folder: Path) -> None:
    storage = RocksStorage(folder, memory=MemoryBudget(log_memtable_bytes=64 << 10))
    refusals: list[str] = []
    pressed = 0.0
    for i in range(300):
        batch = storage.new_batch()
        batch.put(Family.LOG, key(i), os.urandom(20_000))
        while True:
            try:
                storage.write(batch)
                break
            except StorageBusy as error:
                refusals.append(str(error))
                pressed = max(pressed, storage.pressure().level)
                storage.flush()
    assert refusals, "nothing was ever refused: the limits did not bind"
    assert str(folder) in refusals[0]
    assert pressed > 0.5
    assert len(storage.scan(Family.LOG, key(0), key(KEYS))) == 300, "a refused batch was lost or written in part"
    storage.close()


def test_an_idle_database_takes_little_memory(folder: Path) -> None:
    child = run_child(
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "storage = RocksStorage(Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        "storage.close()\n",
        folder,
    )
    assert int(child.stdout) < 32 * 1024, "kilobytes above the imports"


def test_the_space_of_every_family_can_be_reclaimed(folder: Path) -> None:
    storage = RocksStorage(folder)
    for family in Family:
        put(storage, 1, b"x", family)
        storage.reclaim(family, key(0), key(KEYS))
        assert storage.get(family, key(1)) == b"x"
    storage.close()


def test_errors_of_storage_are_one_family() -> None:
    for error in (StorageBusy, StorageFailed, StorageCorrupt, StorageLocked):
        assert issubclass(error, StorageError)

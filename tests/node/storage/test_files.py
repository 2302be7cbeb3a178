"""The seam to files: one suite for the disk and for memory, and what a crash does to the latter."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from quorumlog.node.errors import StorageFailed, StorageLocked
from quorumlog.node.storage.files import DataFolder, FileSystem
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    return DataFolder(tmp_path / "data") if request.param == "disk" else MemoryFileSystem()


def content(files: FileSystem, name: str) -> bytes:
    data = files.read(name)
    assert data is not None, f"{name} is not there"
    return data


# --- both implementations ---------------------------------------------------------------------------------------------


def test_a_missing_file_reads_as_none_and_cannot_be_opened(files: FileSystem) -> None:
    assert files.read("a") is None
    assert not files.exists("a")
    with pytest.raises(StorageFailed, match="a failed"):
        files.open("a")


def test_appends_and_writes_in_place_are_read_back_before_any_sync(files: FileSystem) -> None:
    file = files.create("a")
    file.append(b"hello ")
    file.append(b"world")
    file.write_at(0, b"H")
    assert file.read_all() == b"Hello world"
    assert content(files, "a") == b"Hello world"
    assert file.size_bytes() == 11


def test_a_write_beyond_the_end_fills_the_gap_with_zeros(files: FileSystem) -> None:
    file = files.create("a")
    file.write_at(3, b"x")
    assert file.read_all() == b"\0\0\0x"


def test_truncate_cuts_and_the_next_append_follows(files: FileSystem) -> None:
    file = files.create("a")
    file.append(b"abcdef")
    file.truncate(2)
    file.append(b"X")
    assert file.read_all() == b"abX"


def test_create_replaces_an_older_file_and_open_keeps_it(files: FileSystem) -> None:
    files.create("a").append(b"old")
    assert files.open("a").read_all() == b"old"
    assert files.create("a").read_all() == b""


def test_replace_leaves_exactly_the_new_bytes(files: FileSystem) -> None:
    files.replace("a", b"one")
    files.replace("a", b"two")
    assert content(files, "a") == b"two"
    assert files.list_names("") == ["a"]


def test_rename_takes_the_place_of_another_file(files: FileSystem) -> None:
    files.create("a").append(b"A")
    files.create("b").append(b"B")
    files.rename("a", "b")
    assert content(files, "b") == b"A"
    assert not files.exists("a")


def test_remove_takes_the_name_away_and_does_not_mind_a_missing_one(files: FileSystem) -> None:
    files.replace("a", b"A")
    files.remove("a")
    files.remove("a")
    assert not files.exists("a")


def test_move_makes_the_folder_and_takes_whole_folders_along(files: FileSystem) -> None:
    files.replace("a", b"A")
    files.replace("folder/b", b"B")
    files.move("a", "away/0001/a")
    files.move("folder", "away/0001/folder")
    assert content(files, "away/0001/a") == b"A"
    assert content(files, "away/0001/folder/b") == b"B"
    assert files.list_names("away") == ["0001"]
    assert files.list_names("away/0001") == ["a", "folder"]
    assert not files.exists("a")
    assert not files.exists("folder/b")


def test_names_of_a_missing_folder_are_none(files: FileSystem) -> None:
    assert files.list_names("nowhere") == []


def test_a_closed_handle_is_a_programming_error(files: FileSystem) -> None:
    file = files.create("a")
    file.close()
    file.close()
    with pytest.raises(AssertionError, match="closed"):
        file.append(b"x")


def test_after_a_failed_sync_a_file_refuses_everything(files: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    file = files.create("a")
    file.append(b"x")
    if isinstance(files, MemoryFileSystem):
        files.fail_next_sync = True
    else:

        def fail_once(_: int) -> None:
            monkeypatch.undo()
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", fail_once)
    with pytest.raises(StorageFailed, match="start the node again"):
        file.sync()
    with pytest.raises(StorageFailed, match="an earlier sync failed"):
        file.sync()
    with pytest.raises(StorageFailed, match="an earlier sync failed"):
        file.append(b"y")


def test_the_lock_is_held_until_close(files: FileSystem) -> None:
    files.lock()
    second = DataFolder(files.path) if isinstance(files, DataFolder) else files
    with pytest.raises(StorageLocked, match=r"in use.*stop that node"):
        second.lock()
    files.close()
    files.close()
    second.lock()
    second.close()


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_the_lock_names_the_process_that_holds_it_and_dies_with_it(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from quorumlog.node.storage.files import DataFolder\n"
        "DataFolder(pathlib.Path(sys.argv[1])).lock(); print('locked', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(StorageLocked, match=f"{tmp_path} is in use by process {holder.pid}"):
            DataFolder(tmp_path).lock()
        holder.kill()
        holder.wait()
    folder = DataFolder(tmp_path)
    folder.lock()
    folder.close()


def test_a_full_disk_is_told_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = DataFolder(tmp_path).create("votes")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageFailed, match="votes failed: No space left on device; the disk is full: free space"):
        file.append(b"x")


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: real(descriptor, data[:3], offset))
    file = DataFolder(tmp_path).create("a")
    file.append(b"0123456789")
    assert file.read_all() == b"0123456789"


# --- the crash in memory ----------------------------------------------------------------------------------------------


def test_a_crash_drops_unsynced_bytes_and_keeps_synced_ones() -> None:
    files = MemoryFileSystem()
    file = files.create("a")
    file.append(b"safe")
    file.sync()
    files.sync_folder()
    file.append(b" lost")
    files.crash()
    assert content(files, "a") == b"safe"


def test_a_crash_forgets_a_synced_file_whose_folder_was_not() -> None:
    files = MemoryFileSystem()
    file = files.create("a")
    file.append(b"synced")
    file.sync()
    files.crash()
    assert files.read("a") is None


def test_a_crash_undoes_a_rename_before_the_folder_is_synced() -> None:
    files = MemoryFileSystem()
    files.replace("a", b"old")
    file = files.create("b")
    file.append(b"new")
    file.sync()
    files.rename("b", "a")
    files.crash()
    assert content(files, "a") == b"old"


def test_a_crash_may_keep_any_part_of_what_was_not_synced() -> None:
    seen = set()
    for seed in range(200):
        files = MemoryFileSystem()
        files.replace("a", b"")
        file = files.open("a")
        file.append(b"12")
        file.append(b"34")
        files.crash(Random(seed))
        seen.add(content(files, "a"))
    assert {b"", b"1", b"12", b"123", b"1234", b"\0\0", b"\0\x0034"} <= seen


def test_handles_do_not_outlive_a_crash() -> None:
    files = MemoryFileSystem()
    file = files.create("a")
    files.crash()
    with pytest.raises(AssertionError, match="before the crash"):
        file.append(b"x")


def test_a_sync_in_two_halves_covers_what_was_written_before_its_begin() -> None:
    files = MemoryFileSystem()
    files.replace("a", b"")
    file = files.open("a")
    file.append(b"before")
    token = files.begin_sync("a")
    file.append(b" between")
    files.finish_sync(token)
    files.crash()
    assert content(files, "a") == b"before"


def test_the_machine_stops_at_the_step_it_was_told_to() -> None:
    files = MemoryFileSystem()
    files.crash_after_steps = 2
    file = files.create("a")
    file.append(b"x")
    with pytest.raises(SimulatedCrash):
        file.sync()
    with pytest.raises(SimulatedCrash):
        files.sync_folder()
    files.crash()
    assert files.steps == 2
    assert files.list_names("") == []


@pytest.mark.parametrize("seed", range(20))
def test_replace_is_old_or_new_at_every_crash_point(seed: int) -> None:
    random = Random(seed)
    for stop in range(6):
        files = MemoryFileSystem()
        files.replace("a", b"old")
        files.crash_after_steps = stop
        returned = False
        try:
            files.replace("a", b"new")
            returned = True
        except SimulatedCrash:
            pass
        files.crash(random)
        assert content(files, "a") in ((b"new",) if returned else (b"old", b"new")), f"seed {seed} stop {stop}"

"""The seam to the few small files that stand beside the database: identity, votes and watermark.

They are outside the database on purpose: each of them answers a question that a damaged database can no longer answer
about itself. What they need from a disk is little, and stated here so that a crash can be simulated exactly:

- bytes of a file survive a power cut once `DurableFile.sync` has returned. Before that each write may be there, be
  there in part, have left zeros, or be gone, independently of the others;
- a name (made, renamed or removed) survives once `FileSystem.sync_folder` of its folder has returned. Before that
  each change of a name may have happened or not, but a rename is never seen in half;
- a sync that failed is never repeated: the kernel marks pages clean that it could not write, so a second sync would
  report a success that is none (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

Names are relative to the data folder, with `/` between folder and file. Every failure of the device is StorageFailed.
Two implementations share one conformance suite: `DataFolder` here and `MemoryFileSystem`, whose `crash()` does all of
the above.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from quorumlog.node.errors import StorageFailed, StorageLocked

LOCK_NAME = "lock"


class DurableFile(Protocol):
    """An open file. One thread writes; `sync` may run in another thread beside it."""

    def size_bytes(self) -> int:
        """Length of the file, unsynced bytes included."""

    def read_all(self) -> bytes:
        """The whole file, unsynced bytes included."""

    def append(self, data: bytes) -> None:
        """Write `data` after the last byte; not yet durable."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write `data` from byte `offset` on, filling a gap before it with zeros; not yet durable."""

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to `size_bytes`, which is at most its length; not yet durable."""

    def sync(self) -> None:
        """Make durable what was written before this call. Blocks. After a failure the file refuses everything."""

    def close(self) -> None:
        """Give the handle back, without a sync. A second call does nothing."""


class FileSystem(Protocol):
    """A data folder."""

    def lock(self) -> None:
        """Claim the folder for this process until `close`. Raises StorageLocked when another one holds it."""

    def close(self) -> None:
        """Give the claim of `lock` back. A second call does nothing."""

    def describe(self, name: str = "") -> str:
        """The file or the folder as an operator would look for it; for messages."""

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name is there."""

    def list_names(self, folder: str) -> list[str]:
        """Sorted names directly in `folder`; empty when there is no such folder."""

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""

    def create(self, name: str) -> DurableFile:
        """Open a new, empty file in place of any that had the name; its folder is made if needed. Not durable."""

    def open(self, name: str) -> DurableFile:
        """Open a file that exists."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name in the same folder, replacing any that had it; atomic, not durable."""

    def remove(self, name: str) -> None:
        """Remove the name of a file, if it is there; not durable."""

    def sync_folder(self, folder: str = "") -> None:
        """Make every change of names in `folder` durable. Blocks."""

    def replace(self, name: str, data: bytes) -> None:
        """Let `name` hold exactly `data`, durably; a crash leaves either the old file or the new one. Blocks."""

    def move(self, source: str, target: str) -> None:
        """Move a file or a whole folder into another folder, which is made if needed, durably. Blocks."""


def folder_of(name: str) -> str:
    """The folder part of `name`; empty for the data folder itself."""
    return name.rpartition("/")[0]


def write_replacement(files: FileSystem, name: str, data: bytes) -> None:
    """Implement `FileSystem.replace`: write beside it, sync, rename over it, sync the folder.

    The order matters: a rename that reaches the disk before the bytes leaves an empty file under the good name.
    """
    beside = name + ".new"
    file = files.create(beside)
    try:
        file.append(data)
        file.sync()
    finally:
        file.close()
    files.rename(beside, name)
    files.sync_folder(folder_of(name))


@contextmanager
def _failing_as(doing: str, path: Path) -> Iterator[None]:
    """Turn an error of the operating system into StorageFailed that names the file and the fix."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "the disk is full: free space and start the node again"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = "give the user of the node read and write permission on the data folder"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            fix = "check the path: `data` in the node's settings, or --data"
        else:
            fix = "check the disk (dmesg, smartctl) and start the node again"
        raise StorageFailed(f"{doing} {path} failed: {error.strerror or error}; {fix}") from error


class _OsFile:
    """A file of the operating system."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._sync_failed = False
        with _failing_as("opening", path):
            self._descriptor: int | None = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def _usable(self) -> int:
        assert self._descriptor is not None, f"{self._path} is closed"
        if self._sync_failed:
            raise StorageFailed(f"{self._path}: an earlier sync failed, nothing is known of it; start the node again")
        return self._descriptor

    def size_bytes(self) -> int:
        with _failing_as("reading the size of", self._path):
            return os.fstat(self._usable()).st_size

    def read_all(self) -> bytes:
        descriptor, size, parts = self._usable(), self.size_bytes(), []
        offset = 0
        with _failing_as("reading", self._path):
            while offset < size and (part := os.pread(descriptor, size - offset, offset)):
                parts.append(part)
                offset += len(part)
        return b"".join(parts)

    def append(self, data: bytes) -> None:
        self.write_at(self.size_bytes(), data)

    def write_at(self, offset: int, data: bytes) -> None:
        descriptor, rest = self._usable(), memoryview(data)
        with _failing_as("writing", self._path):
            while rest:
                written = os.pwrite(descriptor, rest, offset)
                offset, rest = offset + written, rest[written:]

    def truncate(self, size_bytes: int) -> None:
        assert size_bytes <= self.size_bytes(), f"{self._path} is shorter than {size_bytes} bytes"
        with _failing_as("cutting", self._path):
            os.ftruncate(self._usable(), size_bytes)

    def sync(self) -> None:
        descriptor = self._usable()
        try:
            with _failing_as("syncing", self._path):
                os.fdatasync(descriptor)
        except StorageFailed:
            self._sync_failed = True
            raise

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class DataFolder:
    """A data folder on a disk.

    Args:
        path: the folder; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_descriptor: int | None = None
        self._make_folder(self.path)

    def lock(self) -> None:
        """Claim the folder with an advisory lock (flock) on the file `lock`, which holds the claimer's process id."""
        assert self._lock_descriptor is None, f"{self.path} is locked by this very object"
        path = self.path / LOCK_NAME
        with _failing_as("opening", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StorageLocked(
                f"data folder {self.path} is in use by process {holder}: "
                "stop that node, or give this one another folder"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageFailed(
                f"locking {path} failed: {error.strerror}; keep the data folder on a local disk that knows flock"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._lock_descriptor = descriptor

    def close(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def describe(self, name: str = "") -> str:
        """The absolute path."""
        return str(self.path / name)

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name is there."""
        return os.path.lexists(self.path / name)

    def list_names(self, folder: str) -> list[str]:
        """Sorted names in `folder`."""
        path = self.path / folder
        with _failing_as("listing", path):
            return sorted(os.listdir(path)) if path.is_dir() else []

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""
        path = self.path / name
        with _failing_as("reading", path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def create(self, name: str) -> DurableFile:
        """Open a new, empty file; a folder made for it is durable at once."""
        path = self.path / name
        self._make_folder(path.parent)
        return _OsFile(path, os.O_CREAT | os.O_TRUNC)

    def open(self, name: str) -> DurableFile:
        """Open a file that exists."""
        return _OsFile(self.path / name, 0)

    def rename(self, source: str, target: str) -> None:
        """Rename within one folder."""
        assert folder_of(source) == folder_of(target), f"{source} and {target} are in different folders: move() it"
        with _failing_as("renaming", self.path / source):
            os.rename(self.path / source, self.path / target)

    def remove(self, name: str) -> None:
        """Remove the name of a file, if it is there."""
        path = self.path / name
        with _failing_as("removing", path):
            path.unlink(missing_ok=True)

    def sync_folder(self, folder: str = "") -> None:
        """Sync the folder itself."""
        path = self.path / folder
        with _failing_as("syncing the folder", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def replace(self, name: str, data: bytes) -> None:
        """Let `name` hold exactly `data`, durably."""
        write_replacement(self, name, data)

    def move(self, source: str, target: str) -> None:
        """Move a file or a whole folder, durably."""
        self._make_folder((self.path / target).parent)
        with _failing_as("moving", self.path / source):
            os.rename(self.path / source, self.path / target)
        # The new place first: a crash in between may show it twice or in the new place, never nowhere.
        self.sync_folder(folder_of(target))
        self.sync_folder(folder_of(source))

    def _make_folder(self, path: Path) -> None:
        """Make a folder and those above it, each of them durable before the one below."""
        if path.is_dir():
            return
        self._make_folder(path.parent)
        with _failing_as("making the folder", path):
            path.mkdir(exist_ok=True)
            descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

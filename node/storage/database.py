"""The database of a data folder as opening it sees it: something that may be missing, refuse, or be moved aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from quorumlog.node.errors import StorageCorrupt, StorageFailed
from quorumlog.node.storage.blob_files import read_blobs
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.interface import RecoveryMode, Storage
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.rocks import DAMAGED_NAME, repair_files

DATABASE_NAME = "db"
COPY_NAME = "db.copy"
"""A database that is to take the place of a damaged one, as long as it is not complete."""

_REPAIRED_NAME = "repaired"
_ROOM_TO_SPARE_BYTES = 64 << 20

StorageOpener = Callable[[Path, RecoveryMode], Storage]
"""Opens the database in a folder, or makes one in an empty or missing folder."""


class Database(Protocol):
    """A database that is not open yet."""

    def exists(self) -> bool:
        """Whether anything is there, sound or not."""

    def open(self, mode: RecoveryMode) -> Storage:
        """Open the database, or make an empty one, durably, when nothing is there. Blocks.

        Raises StorageCorrupt (this mode refuses what is there; nothing was changed that matters), StorageLocked,
        StorageFailed.
        """

    def copy_wal(self, folder: str) -> None:
        """Put durable copies of the write-ahead log into `folder` of the data folder. Blocks. Raises StorageFailed."""

    def move(self, folder: str) -> None:
        """Move the closed database into `folder` of the data folder, durably. Raises StorageFailed."""

    def damage(self) -> str | None:
        """What a background task of the database said when it met a damaged table and gave up; None if none has."""

    def has_room_for_copy(self, folder: str | None = None) -> bool:
        """Whether the disk has room for a copy of the database, or of the one that was moved into `folder`."""

    def salvaging(self, folder: str) -> AbstractContextManager[tuple[Storage, Iterable[tuple[bytes, bytes]]]]:
        """What can be read of the database that was moved into `folder`: a storage, and keys and values beside it.

        Raises StorageCorrupt or StorageFailed when that is nothing.
        """

    def make_copy(self) -> Storage:
        """Make an empty database beside the present one, in place of an unfinished one. Raises StorageFailed."""

    def copy_id(self) -> bytes | None:
        """Database id of the closed copy beside the present one; None without a copy that opens."""

    def take_copy(self) -> None:
        """Put the closed copy in the place of the database, which was moved away, durably. Raises StorageFailed."""

    def drop_copy(self) -> None:
        """Delete an unfinished copy; nothing happens without one. Raises StorageFailed."""


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


class DatabaseFolder:
    """The folder `db` of a data folder on a disk.

    Args:
        files: the data folder.
        opener: how to open a database; see StorageOpener.
        free_bytes: how many bytes the disk with this folder has left.
    """

    def __init__(
        self, files: DataFolder, opener: StorageOpener, free_bytes: Callable[[Path], int] = _free_bytes
    ) -> None:
        self._files = files
        self._opener = opener
        self._free_bytes = free_bytes
        self.path = files.path / DATABASE_NAME

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self._files.exists(DATABASE_NAME)

    def open(self, mode: RecoveryMode) -> Storage:
        """Open or make the database; see Database."""
        names = self._files.list_names(DATABASE_NAME)
        if names:
            self._check_manifest(DATABASE_NAME, names)
        storage = self._opener(self.path, mode)
        if not names:
            self._files.sync_folder()
        return storage

    def _check_manifest(self, folder: str, names: list[str]) -> None:
        """Raise StorageCorrupt unless CURRENT names a manifest that is there.

        Without CURRENT RocksDB would take the folder for an empty one, make a new database in it and delete the tables
        of the old. A missing manifest it reports like any failure of the file system, as if trying again could help.
        """
        current, where = self._files.read(f"{folder}/CURRENT"), self._files.describe(folder)
        if current is None:
            raise StorageCorrupt(f"database {where} has files but no CURRENT among them")
        manifest = current.decode("utf-8", "replace").strip()
        if manifest not in names:
            raise StorageCorrupt(f"database {where} lacks its manifest: CURRENT says {manifest!r}")

    def copy_wal(self, folder: str) -> None:
        """Copy the `*.log` files; see Database."""
        target = self._files.path / folder
        try:
            for source in sorted(self.path.glob("*.log")):
                shutil.copyfile(source, target / source.name)
                with open(target / source.name, "rb") as copy:
                    os.fsync(copy.fileno())
        except OSError as error:
            raise StorageFailed(
                f"copying the write-ahead log of {self.path} to {target} failed: {error.strerror or error}; free space "
                "on that disk and start the node again"
            ) from error
        self._files.sync_folder(folder)

    def move(self, folder: str) -> None:
        """Move the folder; see Database."""
        self._files.move(DATABASE_NAME, f"{folder}/{DATABASE_NAME}")

    def damage(self) -> str | None:
        """What the mark in the folder says; see Database."""
        mark = self._files.read(f"{DATABASE_NAME}/{DAMAGED_NAME}")
        return None if mark is None else mark.decode("utf-8", "replace")

    def has_room_for_copy(self, folder: str | None = None) -> bool:
        """Compare the sizes of the files with what is free; see Database."""
        path = self.path if folder is None else self._files.path / folder / DATABASE_NAME
        size_bytes = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        return self._free_bytes(self._files.path) >= size_bytes + size_bytes // 8 + _ROOM_TO_SPARE_BYTES

    @contextmanager
    def salvaging(self, folder: str) -> Iterator[tuple[Storage, Iterable[tuple[bytes, bytes]]]]:
        """Open it, or a copy of it that RocksDB has repaired; see Database. What is in `folder` stays as it is."""
        name = f"{folder}/{DATABASE_NAME}"
        path = self._files.path / name
        copy = self._files.path / folder / _REPAIRED_NAME
        loose: Iterable[tuple[bytes, bytes]] = ()
        try:
            try:
                self._check_manifest(name, self._files.list_names(name))
                storage = self._opener(path, RecoveryMode.POINT_IN_TIME)
            except StorageCorrupt:
                _link_files(path, copy)
                repair_files(copy)
                storage, loose = self._opener(copy, RecoveryMode.POINT_IN_TIME), read_blobs(path)
            try:
                yield storage, loose
            finally:
                with suppress(StorageFailed):  # nothing was written, so nothing is lost with it
                    storage.close()
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def make_copy(self) -> Storage:
        """Make the folder `db.copy`; see Database."""
        self.drop_copy()
        storage = self._opener(self._copy_path, RecoveryMode.TOLERATE_TAIL)
        self._files.sync_folder()
        return storage

    def copy_id(self) -> bytes | None:
        """Open it for a moment; see Database."""
        if not self._files.exists(COPY_NAME):
            return None
        try:
            storage = self._opener(self._copy_path, RecoveryMode.TOLERATE_TAIL)
        except StorageCorrupt:
            return None
        database_id = storage.database_id()
        storage.close()
        return database_id

    def take_copy(self) -> None:
        """Rename the folder; see Database."""
        self._files.move(COPY_NAME, DATABASE_NAME)

    def drop_copy(self) -> None:
        """Delete the folder; see Database."""
        if self._files.exists(COPY_NAME):
            shutil.rmtree(self._copy_path, ignore_errors=True)
            self._files.sync_folder()

    @property
    def _copy_path(self) -> Path:
        return self._files.path / COPY_NAME


def _link_files(source: Path, target: Path) -> None:
    """Make `target` a copy of a closed database that takes hardly any space: RocksDB never changes tables and blob
    files, so those are linked.
    """
    try:
        target.mkdir()
        for file in source.iterdir():
            if file.suffix in (".sst", ".blob"):
                os.link(file, target / file.name)
            elif file.is_file():
                shutil.copyfile(file, target / file.name)
    except OSError as error:
        raise StorageFailed(f"copying {source} to {target} failed: {error.strerror or error}") from error


class MemoryDatabase:
    """A `MemoryStorage` beside a `MemoryFileSystem`, for tests and the simulator.

    `storage` is the present one, None when nothing is there; `moved` holds what was moved away, by folder. A mode in
    `refusing` raises StorageCorrupt, as a damaged database does. Its steps count as steps of the file system.

    Args:
        files: the file system whose crash is also the crash of this database.
        draw: returns that many random bytes, for the id of a new database.
        make: makes a storage of that id.
    """

    def __init__(
        self,
        files: MemoryFileSystem,
        draw: Callable[[int], bytes],
        make: Callable[[bytes], MemoryStorage] = MemoryStorage,
    ) -> None:
        self.storage: MemoryStorage | None = None
        self.moved: dict[str, MemoryStorage] = {}
        self.wal_copies: list[str] = []
        self.refusing: frozenset[RecoveryMode] = frozenset()
        self.damaged: str | None = None
        """What `damage` says of the present storage."""
        self.room_for_copy = True
        self.copy: MemoryStorage | None = None
        self._files = files
        self._draw = draw
        self._make = make
        self._open = False

    def exists(self) -> bool:
        """Whether there is a storage."""
        return self.storage is not None

    def open(self, mode: RecoveryMode) -> Storage:
        """Open or make the storage; see Database."""
        if self.storage is None:
            self._files.step()
            self.storage = self._make(self._draw(16))
            self.refusing = frozenset()
        elif mode in self.refusing:
            raise StorageCorrupt(f"the database in memory refuses {mode.value}")
        elif self._open:
            self.storage.reopen()
        self._open = True
        return self.storage

    def copy_wal(self, folder: str) -> None:
        """Remember the folder; see Database."""
        self._files.step()
        self.wal_copies.append(folder)

    def move(self, folder: str) -> None:
        """Remember the storage under the folder; see Database."""
        assert self.storage is not None, "nothing is there to be moved"
        self._files.step()
        self.moved[folder], self.storage = self.storage, None
        self.damaged = None
        self._open = False

    def damage(self) -> str | None:
        """Answer `damaged`; see Database."""
        return self.damaged

    def has_room_for_copy(self, folder: str | None = None) -> bool:
        """Answer `room_for_copy`; see Database."""
        return self.room_for_copy

    @contextmanager
    def salvaging(self, folder: str) -> Iterator[tuple[Storage, Iterable[tuple[bytes, bytes]]]]:
        """The storage that was moved into the folder; see Database."""
        _reopen(self.moved[folder])
        yield self.moved[folder], ()

    def make_copy(self) -> Storage:
        """Make another storage; see Database."""
        self._files.step()
        self.copy = self._make(self._draw(16))
        return self.copy

    def copy_id(self) -> bytes | None:
        """Database id of the other storage; see Database."""
        return None if self.copy is None else self.copy.database_id()

    def take_copy(self) -> None:
        """Put the other storage in place; see Database."""
        assert self.storage is None, "the place is taken"
        assert self.copy is not None, "there is no copy"
        self._files.step()
        self.storage, self.copy = self.copy, None
        _reopen(self.storage)

    def drop_copy(self) -> None:
        """Forget the other storage; see Database."""
        if self.copy is not None:
            self._files.step()
            self.copy = None

    def crash(self, keep: int = 0) -> None:
        """Cut the power: the storage loses its unsynced batches except the first `keep`."""
        for storage in (self.storage, self.copy):
            if storage is not None:
                storage.crash(keep)
        self._open = False


def _reopen(storage: MemoryStorage) -> None:
    """Open a storage that is closed, or was in use when the machine crashed, as it is."""
    storage.crash(storage.unsynced_batches())

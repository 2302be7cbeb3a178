"""The database of a data folder as opening it sees it: something that may be missing, refuse, or be moved aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from quorumlog.node.errors import StorageCorrupt, StorageFailed
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.interface import RecoveryMode, Storage
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem

DATABASE_NAME = "db"

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


class DatabaseFolder:
    """The folder `db` of a data folder on a disk.

    Args:
        files: the data folder.
        opener: how to open a database; see StorageOpener.
    """

    def __init__(self, files: DataFolder, opener: StorageOpener) -> None:
        self._files = files
        self._opener = opener
        self.path = files.path / DATABASE_NAME

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self._files.exists(DATABASE_NAME)

    def open(self, mode: RecoveryMode) -> Storage:
        """Open or make the database; see Database."""
        names = self._files.list_names(DATABASE_NAME)
        if names:
            self._check_manifest(names)
        storage = self._opener(self.path, mode)
        if not names:
            self._files.sync_folder()
        return storage

    def _check_manifest(self, names: list[str]) -> None:
        """Raise StorageCorrupt unless CURRENT names a manifest that is there.

        Without CURRENT RocksDB would take the folder for an empty one, make a new database in it and delete the tables
        of the old. A missing manifest it reports like any failure of the file system, as if trying again could help.
        """
        current = self._files.read(f"{DATABASE_NAME}/CURRENT")
        if current is None:
            raise StorageCorrupt(f"database {self.path} has files but no CURRENT among them")
        manifest = current.decode("utf-8", "replace").strip()
        if manifest not in names:
            raise StorageCorrupt(f"database {self.path} lacks its manifest: CURRENT says {manifest!r}")

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
        self._open = False

    def crash(self, keep: int = 0) -> None:
        """Cut the power: the storage loses its unsynced batches except the first `keep`."""
        if self.storage is not None:
            self.storage.crash(keep)
        self._open = False

"""Storage in RocksDB: the only place that imports rocksdict.

How rocksdict behaves, and what follows (rocksdict 0.3.29, measured):

- write, get and iterators hold the GIL; flush_wal, flush, compact_range, a list get release it. Hence who calls what.
- A refused write ("Result incomplete" under no_slowdown) has used its batch up, so RocksDB's batch is made from ours at
  each attempt.
- An iterator ends silently at a damaged block, and only status() says so; get and list get raise.
- The lower bound of ReadOptions is ignored, so a scan compares keys itself.
- A failed sync or write is latched: everything fails until the next opening, and the failed write may be there then.
- A damaged block or blob fails the reads of the keys in it, also those of other groups, and scans across it even after
  the keys were written again: a scan reads old versions too. Everything else is served.
- Compaction across a damaged block fails, and with it every later write until the next opening, and soon the same
  again: such a database has to be copied into a new one. `compact_range` itself says nothing. Hence DAMAGED_NAME.
- `Rdict.repair` forgets the blob files, leaves out a table with one bad block, and does not miss a table that is gone.
- A database stays open (and locked) as long as any handle of it lives, a column family's too.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rocksdict import Cache, DBRecoveryMode, Rdict, WriteOptions
from rocksdict import WriteBatch as RocksBatch

from quorumlog.node.errors import StorageBusy, StorageCorrupt, StorageError, StorageFailed, StorageLocked
from quorumlog.node.storage.interface import ChangeKind, Family, Pressure, RecoveryMode, WriteBatch
from quorumlog.node.storage.keys import NODE_WIDE, MetaRow, group_of_key, meta_key
from quorumlog.node.storage.rocks_options import (
    BLOB_GARBAGE_AGE,
    BLOB_GARBAGE_AGE_OPTION,
    DEFAULT_MEMORY,
    LEVEL_ZERO_SLOWDOWN_FILES,
    MEMTABLES_FULL_MAX,
    PENDING_COMPACTION_SLOWDOWN_BYTES,
    MemoryBudget,
    database_options,
    family_options,
)

_FAMILY_NAMES: Final = {Family.LOG: "log", Family.INDEX: "index", Family.STATE: "state", Family.META: "meta"}
"""Names of the column families; on disk, so they never change."""

_SIZE_PROPERTIES: Final = (
    "rocksdb.total-sst-files-size",
    "rocksdb.total-blob-file-size",
    "rocksdb.size-all-mem-tables",
)
DAMAGED_NAME: Final = "DAMAGED"
"""A file in the database's folder, made when a background task met a damaged table: says what RocksDB said. Writes will
fail for ever; what can be read must be copied into a new database."""

_DATABASE_ID_KEY: Final = meta_key(NODE_WIDE, MetaRow.DATABASE_ID)


class RocksStorage:
    """`Storage` in the folder `path`, made when it does not exist (its parent must).

    Opening raises StorageLocked when another process has it open, StorageCorrupt when `recovery` refuses what is there,
    StorageFailed when the file system does.
    """

    def __init__(
        self, path: Path, recovery: RecoveryMode = RecoveryMode.TOLERATE_TAIL, memory: MemoryBudget = DEFAULT_MEMORY
    ) -> None:
        self.path = path
        self.syncs = 0
        options = database_options(memory, getattr(DBRecoveryMode, recovery.value)())
        cache = Cache(memory.block_cache_bytes)
        families = {name: family_options(family, memory, cache) for family, name in _FAMILY_NAMES.items()}
        families["default"] = family_options(Family.META, memory, cache)  # RocksDB demands it; nothing is kept there
        try:
            self._database = Rdict(str(path), options, families)
        except Exception as error:
            raise _opening_error(error, path) from error
        self._families: tuple[Rdict, ...] = tuple(
            self._database.get_column_family(_FAMILY_NAMES[family]) for family in Family
        )
        self._handles = [self._database.get_column_family_handle(_FAMILY_NAMES[family]) for family in Family]
        self._write_options = WriteOptions()
        self._write_options.no_slowdown = True
        self._closed = False
        try:
            self._database_id = self._read_or_draw_database_id()
        except BaseException:
            self._release()
            raise

    def new_batch(self) -> WriteBatch:
        """See Storage."""
        return WriteBatch()

    def write(self, batch: WriteBatch) -> None:
        """See Storage."""
        assert not self._closed, "storage is closed"
        handles = self._handles
        changes = RocksBatch(raw_mode=True)
        put = changes.put
        for kind, family, key, value in batch.changes:
            if kind is ChangeKind.PUT:
                put(key, value, handles[family])
            elif kind is ChangeKind.DELETE:
                changes.delete(key, handles[family])
            else:
                changes.delete_range(key, value, handles[family])
        try:
            self._database.write(changes, self._write_options)
        except Exception as error:
            if str(error).startswith("Result incomplete"):
                raise StorageBusy(
                    f"the database in {self.path} is behind with flushing or compaction: {error}"
                ) from error
            raise self._failed("write", error) from error

    def sync(self) -> None:
        """See Storage."""
        assert not self._closed, "storage is closed"
        try:
            self._database.flush_wal(True)
        except Exception as error:
            raise self._failed("sync", error) from error
        self.syncs += 1

    def get(self, family: Family, key: bytes) -> bytes | None:
        """See Storage."""
        table = self._table(family)
        try:
            value: bytes | None = table.get(key)
        except Exception as error:
            raise self._read_error(error, family, key) from error
        return value

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Storage."""
        table = self._table(family)
        try:
            values: list[bytes | None] | None = table.get(list(keys))
        except Exception as error:
            raise self._read_error(error, family, keys[0]) from error
        assert values is not None, "a list get answers with a list"
        return values

    def scan(
        self, family: Family, start: bytes, end_exclusive: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """See Storage."""
        table = self._table(family)
        if start >= end_exclusive:
            return []
        pairs: list[tuple[bytes, bytes]] = []
        try:
            iterator = table.iter()
            if reverse:
                iterator.seek_for_prev(end_exclusive)
                if iterator.valid() and iterator.key() == end_exclusive:
                    iterator.prev()
            else:
                iterator.seek(start)
            advance = iterator.prev if reverse else iterator.next
            while (limit is None or len(pairs) < limit) and iterator.valid():
                key = iterator.key()
                if not start <= key < end_exclusive:
                    break
                pairs.append((key, iterator.value()))
                advance()
            iterator.status()  # an iterator is just as invalid at the end as at a damaged block
        except Exception as error:
            raise self._read_error(error, family, start) from error
        return pairs

    def sequence_number(self) -> int:
        """See Storage."""
        return self._database.latest_sequence_number()

    def database_id(self) -> bytes:
        """See Storage."""
        return self._database_id

    def pressure(self) -> Pressure:
        """See Storage; a few microseconds."""
        level_zero_files = memtables = pending_bytes = 0
        for family in self._families:
            level_zero_files = max(level_zero_files, _property(family, "rocksdb.num-files-at-level0"))
            memtables = max(memtables, _property(family, "rocksdb.num-immutable-mem-table"))
            pending_bytes = max(pending_bytes, _property(family, "rocksdb.estimate-pending-compaction-bytes"))
        ratios = (
            level_zero_files / LEVEL_ZERO_SLOWDOWN_FILES,
            memtables / MEMTABLES_FULL_MAX,
            pending_bytes / PENDING_COMPACTION_SLOWDOWN_BYTES,
        )
        return Pressure(max(ratios), *ratios)

    def size_bytes(self) -> int:
        """See Storage: tables, blob files, and what is still in memory and in the write-ahead log."""
        return sum(_property(family, name) for family in self._families for name in _SIZE_PROPERTIES)

    def flush(self) -> None:
        """See Storage."""
        assert not self._closed, "storage is closed"
        try:
            for family in self._families:
                family.flush()
        except Exception as error:
            raise self._failed("flush", error) from error

    def reclaim(self, family: Family, start: bytes, end_exclusive: bytes) -> None:
        """See Storage.

        A deleted range is only a mark until the tables under it are compacted, and a blob file goes when nothing points
        into it any more. So: flush the mark, compact under it, and let that compaction move what lives out of blob
        files of any age, not only of the older ones as in the background. One thread at a time.
        """
        table = self._table(family)
        try:
            table.flush()
            table.set_options({BLOB_GARBAGE_AGE_OPTION: "1.0"})
            try:
                table.compact_range(start, end_exclusive)
            finally:
                table.set_options({BLOB_GARBAGE_AGE_OPTION: str(BLOB_GARBAGE_AGE)})
        except Exception as error:
            raise self._failed("giving back space", error) from error

    def close(self) -> None:
        """See Storage."""
        if self._closed:
            return
        try:
            self.sync()
        finally:
            failure = self._release()
        if failure is not None:
            raise self._failed("close", failure) from failure

    def _table(self, family: Family) -> Rdict:
        assert not self._closed, "storage is closed"
        return self._families[family]

    def _release(self) -> Exception | None:
        """Let go of every handle: each keeps the database open, and with it the lock of the folder.

        A database that has failed before says so once more while closing; returns the first such error.
        """
        self._closed = True
        failure: Exception | None = None
        for database in (*self._families, self._database):
            try:
                database.close()
            except Exception as error:  # noqa: BLE001 # rocksdict raises nothing more specific
                failure = failure or error
        self._handles.clear()
        self._families = ()
        del self._database
        return failure

    def _read_or_draw_database_id(self) -> bytes:
        stored = self.get(Family.META, _DATABASE_ID_KEY)
        if stored is not None:
            return stored
        drawn = secrets.token_bytes(16)
        batch = self.new_batch()
        batch.put(Family.META, _DATABASE_ID_KEY, drawn)
        self.write(batch)
        self.sync()
        return drawn

    def _failed(self, what: str, error: Exception) -> StorageFailed:
        fix = "Check the disk (space, dmesg), then start the node again"
        if _tells_damage(str(error)):
            self._leave_mark(str(error))
            fix = "Check the disk (dmesg, smartctl); the next start copies what can be read into a new database"
        return StorageFailed(f"{what} in {self.path} failed, its outcome is unknown: {error}. {fix}")

    def _leave_mark(self, text: str) -> None:
        try:
            with open(self.path / DAMAGED_NAME, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            pass  # the failure itself is told; after the next start it happens again, and so does this

    def _read_error(self, error: Exception, family: Family, key: bytes) -> StorageError:
        where = f"{_FAMILY_NAMES[family]} of group {group_of_key(key)}"
        if _tells_damage(str(error)):
            return StorageCorrupt(
                f"the database in {self.path} is damaged in {where}: {error}. Check the disk; the replica must be "
                "repaired from its peers"
            )
        return StorageFailed(
            f"reading {where} in {self.path} failed: {error}. Check the disk, then start the node again"
        )


def repair_files(path: Path) -> None:
    """Let RocksDB put together what it can of a database that does not open, in place; blocks. Raises StorageFailed.

    What comes out may hold older versions of keys, and none of the values in blob files (`blob_files` reads those).
    """
    try:
        Rdict.repair(str(path), database_options(DEFAULT_MEMORY, DBRecoveryMode.point_in_time()))
    except Exception as error:
        raise StorageFailed(f"the database in {path} cannot be repaired: {error}") from error


def _property(family: Rdict, name: str) -> int:
    value = family.property_int_value(name)
    return 0 if value is None else value


def _tells_damage(text: str) -> bool:
    """Whether a read, by whomever, met a table or blob file that is not what was written, is gone, or has a bad sector.

    Reading such a place again brings the same; whoever asked for something else is not concerned.
    """
    unreadable = any(sign in text for sign in ("While pread", "While read", "No such file or directory"))
    return text.startswith("Corruption") or (text.startswith("IO error") and unreadable)


def _opening_error(error: Exception, path: Path) -> StorageError:
    text = str(error)
    if "lock hold by current process" in text or "Resource temporarily unavailable" in text:
        return StorageLocked(
            f"the database in {path} is in use: another node is probably running on this folder. Stop it, or give this "
            f"node a folder of its own ({text})"
        )
    if _tells_damage(text):
        return StorageCorrupt(f"the database in {path} does not open: {text}")
    return StorageFailed(f"the database in {path} does not open: {text}. Check that the disk works and has space")

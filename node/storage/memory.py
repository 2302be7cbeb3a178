"""Storage in memory that behaves as RocksDB does when the power goes: for tests and the simulator.

A write is visible at once and undone by `crash` unless a sync covered it. `begin_sync` and `finish_sync` are the two
ends of one sync, so that a simulator decides when, in virtual time, the disk is done and what is written in between.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from quorumlog.node.errors import StorageFailed
from quorumlog.node.storage.interface import ChangeKind, Family, Pressure, WriteBatch
from quorumlog.node.storage.keys import NODE_WIDE, MetaRow, meta_key

_DEFAULT_DATABASE_ID: Final = b"memory-database!"


class _Table:
    """One family: values by key, and the keys in order."""

    __slots__ = ("keys", "size_bytes", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []
        self.size_bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        old = self.values.get(key)
        if old is None:
            if not self.keys or key > self.keys[-1]:
                self.keys.append(key)  # the usual case: logs grow at their end
            else:
                insort(self.keys, key)
            self.size_bytes += len(key)
        else:
            self.size_bytes -= len(old)
        self.values[key] = value
        self.size_bytes += len(value)

    def delete(self, key: bytes) -> None:
        old = self.values.pop(key, None)
        if old is not None:
            del self.keys[bisect_left(self.keys, key)]
            self.size_bytes -= len(key) + len(old)

    def slice(self, start: bytes, end_exclusive: bytes) -> tuple[int, int]:
        return bisect_left(self.keys, start), bisect_left(self.keys, end_exclusive)

    def delete_range(self, start: bytes, end_exclusive: bytes) -> list[tuple[bytes, bytes]]:
        """Remove a range and return what was in it."""
        low, high = self.slice(start, end_exclusive)
        removed = [(key, self.values.pop(key)) for key in self.keys[low:high]]
        del self.keys[low:high]
        self.size_bytes -= sum(len(key) + len(value) for key, value in removed)
        return removed


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A sync under way: it covers the first `batches` batches since the storage was made."""

    batches: int
    crashes: int


_Undo = tuple[_Table, bytes, bytes | None]
"""Put this value back under this key; None: there was no such key."""

_UndoBatch = tuple[int, list[_Undo]]
"""The sequence number before a batch, and how to take it back."""


class MemoryStorage:
    """`Storage` in dictionaries. `crash` keeps what a write-ahead log would have kept.

    `fail_next_write` and `fail_next_sync` are raised once by the next write or sync. StorageBusy leaves the batch
    unwritten; after any other error the batch is there or not, as `crash` decides, and everything fails until `crash`
    or `reopen`, as RocksDB latches an IO error.
    """

    def __init__(self, database_id: bytes = _DEFAULT_DATABASE_ID) -> None:
        assert len(database_id) == 16, "a database id has 16 bytes"
        self.fail_next_write: Exception | None = None
        self.fail_next_sync: Exception | None = None
        self.syncs = 0
        self.pressure_now = Pressure(0.0)
        self._tables = tuple(_Table() for _ in Family)
        self._database_id = database_id
        self._sequence_number = 0
        self._undo: list[_UndoBatch] = []  # of the unsynced batches, oldest first
        self._batches_synced = 0
        self._crashes = 0
        self._failed: Exception | None = None
        self._closed = False
        batch = self.new_batch()
        batch.put(Family.META, meta_key(NODE_WIDE, MetaRow.DATABASE_ID), database_id)
        self.write(batch)
        self.finish_sync(self.begin_sync())
        self.syncs = 0

    def new_batch(self) -> WriteBatch:
        """See Storage."""
        return WriteBatch()

    def write(self, batch: WriteBatch) -> None:
        """See Storage."""
        self._check_usable()
        error = self.fail_next_write
        if error is not None:
            self.fail_next_write = None
            if not isinstance(error, StorageFailed):
                raise error  # refused: nothing was written
            self._failed = error
        undo: list[_Undo] = []
        self._undo.append((self._sequence_number, undo))
        for kind, family, key, value in batch.changes:
            table = self._tables[family]
            if kind is ChangeKind.PUT:
                undo.append((table, key, table.values.get(key)))
                table.put(key, value)
            elif kind is ChangeKind.DELETE:
                undo.append((table, key, table.values.get(key)))
                table.delete(key)
            else:
                undo.extend((table, *pair) for pair in table.delete_range(key, value))
        self._sequence_number += len(batch.changes)
        if error is not None:
            raise error

    def begin_sync(self) -> SyncToken:
        """Start a sync of everything written so far."""
        self._check_usable()
        return SyncToken(self._batches_synced + len(self._undo), self._crashes)

    def finish_sync(self, token: SyncToken) -> None:
        """The disk is done with the sync that `begin_sync` started. Raises what `fail_next_sync` holds."""
        assert token.crashes == self._crashes, "a sync does not outlive the crash of its process"
        self._check_usable()
        if self.fail_next_sync is not None:
            self._failed, self.fail_next_sync = self.fail_next_sync, None
            raise self._failed
        if token.batches > self._batches_synced:
            del self._undo[: token.batches - self._batches_synced]
            self._batches_synced = token.batches
        self.syncs += 1

    def sync(self) -> None:
        """See Storage."""
        self.finish_sync(self.begin_sync())

    def crash(self, keep: int = 0) -> None:
        """Lose every unsynced batch except the first `keep` of them; what is left is durable. The storage is open
        again.
        """
        while len(self._undo) > keep:
            self._sequence_number, undo = self._undo.pop()
            for table, key, value in reversed(undo):
                if value is None:
                    table.delete(key)
                else:
                    table.put(key, value)
        self._batches_synced += len(self._undo)
        self._undo.clear()
        self._crashes += 1
        self._failed = None
        self._closed = False

    def unsynced_batches(self) -> int:
        """Number of batches that a crash may lose: the bound of `crash(keep)`."""
        return len(self._undo)

    def reopen(self) -> None:
        """Open again after `close`."""
        assert self._closed, "reopen() is for a closed storage; crash() is for one in use"
        self._closed = False
        self._failed = None

    def keys(self, family: Family) -> Sequence[bytes]:
        """All keys of a family in order, to choose one that shall be damaged."""
        return self._tables[family].keys

    def peek(self, family: Family, key: bytes) -> bytes | None:
        """What is stored, whoever has it open."""
        return self._tables[family].values.get(key)

    def damage(self, family: Family, key: bytes, value: bytes | None) -> None:
        """Change what is stored behind everybody's back, as a failing disk does; None removes the key."""
        if value is None:
            self._tables[family].delete(key)
        else:
            self._tables[family].put(key, value)

    def get(self, family: Family, key: bytes) -> bytes | None:
        """See Storage."""
        assert not self._closed, "storage is closed"
        return self._tables[family].values.get(key)

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """See Storage."""
        assert not self._closed, "storage is closed"
        values = self._tables[family].values
        return [values.get(key) for key in keys]

    def scan(
        self, family: Family, start: bytes, end_exclusive: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """See Storage."""
        assert not self._closed, "storage is closed"
        table = self._tables[family]
        low, high = table.slice(start, end_exclusive)
        if limit is not None and high - low > limit:
            low, high = (high - limit, high) if reverse else (low, low + limit)
        keys = table.keys[low:high]
        if reverse:
            keys.reverse()
        return [(key, table.values[key]) for key in keys]

    def sequence_number(self) -> int:
        """See Storage."""
        return self._sequence_number

    def database_id(self) -> bytes:
        """See Storage."""
        return self._database_id

    def pressure(self) -> Pressure:
        """`pressure_now`, which a test sets."""
        return self.pressure_now

    def size_bytes(self) -> int:
        """See Storage."""
        return sum(table.size_bytes for table in self._tables)

    def flush(self) -> None:
        """See Storage; tables in memory need no flush, but what is flushed is durable."""
        self.finish_sync(self.begin_sync())

    def reclaim(self, family: Family, start: bytes, end_exclusive: bytes) -> None:
        """See Storage; deleted keys hold no memory here."""
        self._check_usable()

    def close(self) -> None:
        """See Storage."""
        if not self._closed:
            self.sync()
            self._closed = True

    def _check_usable(self) -> None:
        assert not self._closed, "storage is closed"
        if self._failed is not None:
            raise StorageFailed(f"the storage has failed before and must be opened again: {self._failed}")

"""The seam between a node and its database: one ordered key-value store with four key spaces, shared by all groups.

Durability is in two steps, because group commit needs both: `write` makes a batch visible to reads at once and does
not wait for the disk; `sync` makes every batch whose `write` had returned *before sync was called* survive a power
cut. After a crash the database holds a prefix of the batches in the order they were written: all synced ones, and
perhaps some of the later ones; a batch is there as a whole or not at all.

Who calls what. `new_batch`, `write`, `get` and `scan` are cheap and belong on the event loop (one batch for all groups
per turn). `sync`, `get_many`, `flush`, `reclaim` and `close` may wait for the disk, release the GIL, and belong in a
thread. One thread at a time writes; reads and one `sync` may go on beside it.

Two implementations share one conformance suite: `MemoryStorage` (tests and the simulator; can crash) and
`RocksStorage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Protocol


class Family(IntEnum):
    """A key space with its own order and its own tuning. An int, so that it can pick from a tuple on the hot path."""

    LOG = 0
    INDEX = 1
    STATE = 2
    META = 3


class RecoveryMode(Enum):
    """What opening does with a write-ahead log that does not end as it should."""

    TOLERATE_TAIL = "tolerate_corrupted_tail_records"
    """A torn last record is dropped; anything else that does not check refuses the opening."""

    POINT_IN_TIME = "point_in_time"
    """Everything from the first record that does not check is dropped, silently: the caller compares
    `sequence_number`.
    """


@dataclass(frozen=True, slots=True)
class Pressure:
    """How near the database is to refusing writes.

    `level` is the largest of the ratios below: 0.0 idle, 1.0 the point where RocksDB slows writes down, which shows
    here as `StorageBusy`. Produce is pushed back well below 1.0.
    """

    level: float
    level_zero_files: float = 0.0
    memtables: float = 0.0
    pending_compaction: float = 0.0


class ChangeKind(IntEnum):
    """What one change of a batch does."""

    PUT = 0
    DELETE = 1
    DELETE_RANGE = 2


Change = tuple[ChangeKind, Family, bytes, bytes]
"""(kind, family, key, value or end of the range or b"")."""

_CHANGE_OVERHEAD_BYTES: Final = 8
"""About what the write-ahead log adds to key and value: a tag, a family and two lengths."""

_PUT: Final = ChangeKind.PUT
_DELETE: Final = ChangeKind.DELETE
_DELETE_RANGE: Final = ChangeKind.DELETE_RANGE


class WriteBatch:
    """Changes that are written as a whole. Later changes of a batch win over earlier ones.

    It is plain data for every implementation, so that a batch refused with StorageBusy can be written again: RocksDB's
    own batch is used up by a refused write.
    """

    __slots__ = ("__weakref__", "_size_bytes", "changes")

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._size_bytes = 0

    def put(self, family: Family, key: bytes, value: bytes) -> None:
        """Set `key` to `value`, replacing what was there."""
        self.changes.append((_PUT, family, key, value))
        self._size_bytes += len(key) + len(value) + _CHANGE_OVERHEAD_BYTES

    def delete(self, family: Family, key: bytes) -> None:
        """Remove `key`; nothing happens when it is absent."""
        self.changes.append((_DELETE, family, key, b""))
        self._size_bytes += len(key) + _CHANGE_OVERHEAD_BYTES

    def delete_range(self, family: Family, start: bytes, end_exclusive: bytes) -> None:
        """Remove every key k with start <= k < end_exclusive, earlier puts of this batch included."""
        assert start <= end_exclusive, f"range ends before it starts: {start.hex()} > {end_exclusive.hex()}"
        self.changes.append((_DELETE_RANGE, family, start, end_exclusive))
        self._size_bytes += len(start) + len(end_exclusive) + _CHANGE_OVERHEAD_BYTES

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.changes

    def __len__(self) -> int:
        """Number of changes; a range counts as one."""
        return len(self.changes)

    def size_bytes(self) -> int:
        """About how many bytes the batch takes in the write-ahead log."""
        return self._size_bytes


class Storage(Protocol):
    """An ordered key-value store. Keys and values are bytes; keys order bytewise."""

    @property
    def syncs(self) -> int:
        """Syncs finished since the opening; the figure behind `syncs_per_second`."""

    def new_batch(self) -> WriteBatch:
        """An empty batch for `write`."""

    def write(self, batch: WriteBatch) -> None:
        """Apply the batch, visible to reads at once, not yet durable. Never waits for compaction or the disk.

        Raises StorageBusy (nothing was written, try again later) or StorageFailed (outcome unknown: give up
        leadership, exit).
        """

    def sync(self) -> None:
        """Make durable exactly what `write` had returned for before this call. Blocks; releases the GIL.

        Raises StorageFailed: nothing that was not synced before may be relied on.
        """

    def get(self, family: Family, key: bytes) -> bytes | None:
        """Value of `key`, None when absent. Raises StorageCorrupt or StorageFailed."""

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of `keys` in their order, None for an absent one. Releases the GIL: for cold reads in a thread.

        Raises StorageCorrupt or StorageFailed.
        """

    def scan(
        self, family: Family, start: bytes, end_exclusive: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with start <= key < end_exclusive in key order, or from the last one down with `reverse`; at most
        `limit`.

        Raises StorageCorrupt when the database cannot be read through: a scan never just ends early. Raises
        StorageFailed.
        """

    def sequence_number(self) -> int:
        """Number of the last write; grows with every change written, survives reopening.

        What a finished sync covers is the number read *before* the sync was called.
        """

    def database_id(self) -> bytes:
        """16 random bytes, drawn and synced when the database was made."""

    def pressure(self) -> Pressure:
        """How near the database is to refusing writes. Cheap enough for every turn of the loop."""

    def size_bytes(self) -> int:
        """About how many bytes the database holds on disk."""

    def flush(self) -> None:
        """Write what is in memory to tables, so that the next opening has little to replay. Blocks. Raises
        StorageFailed.
        """

    def reclaim(self, family: Family, start: bytes, end_exclusive: bytes) -> None:
        """Give the space of deleted keys in start <= k < end_exclusive back to the file system. Blocks, perhaps for
        seconds.

        Raises StorageFailed. Damage in the way may show at a later write only.
        """

    def close(self) -> None:
        """Sync and close; a second call does nothing. Any other call after it is a programming error. Raises
        StorageFailed.
        """

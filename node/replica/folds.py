"""The states of one group that are kept, each at the index it was taken at.

That is where a start begins, where a prefix may be cut, and what a replica is sent that entries cannot help.

    STATE row at index i -> internal.GroupSnapshot of i
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from google.protobuf.message import DecodeError

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, index_of_log_key, state_key
from quorumlog.proto import internal_pb2
from quorumlog.raft import LogIndex

FOLD_SIZE_BYTES_MIN: Final = 4 << 20
"""Applied bytes between two folds; a prefix can be cut only where there is one, and a start replays what came after."""

FOLD_AMPLIFICATION_MIN: Final = 16
"""A fold is not written before this many times its own size has been applied."""

FOLDS_MAX: Final = 32
"""Kept of one group, spread over its log; a log is cut at a fold, and a start looks at all of them."""


class Folds:
    """The folds of one group, oldest first, none beyond `last_index`."""

    def __init__(self, storage: Storage, group_id: int, last_index: int) -> None:
        self._storage = storage
        self._group_id = group_id
        self._size_bytes = 0
        self._applied_bytes = 0
        self._put_index = 0  # of what was put last: its batch may not be written yet
        self.unreadable = ""
        """Why it cannot be told which folds there are: then they are passed over, like a single one that is damaged."""
        start, end = state_key(group_id, 0), state_key(group_id, INDEX_MAX)
        try:
            self.indexes = sorted({index_of_log_key(key) for key, _ in storage.scan(Family.STATE, start, end)})
        except StorageCorrupt as error:
            self.indexes = []
            self.unreadable = str(error)
        del self.indexes[bisect_right(self.indexes, last_index) :]

    @property
    def newest_index(self) -> int:
        """Of the newest fold; 0 without one."""
        return self.indexes[-1] if self.indexes else 0

    def read(self, index: int) -> bytes | None:
        """The stored GroupSnapshot of `index`, which must be one of `indexes`; None while the batch that it was put
        into is not written, as when the database pushes back. Raises StorageCorrupt.
        """
        stored = self._storage.get(Family.STATE, state_key(self._group_id, index))
        if stored is None and index != self._put_index:
            raise StorageCorrupt(f"the fold of group {self._group_id} at index {index} is gone from the database")
        return stored

    def newest(self) -> internal_pb2.GroupSnapshot | None:
        """The newest fold that can be read, those after it forgotten; None without one."""
        while self.indexes:
            try:
                stored = self.read(self.indexes[-1])
                assert stored is not None, "nothing was put yet"
                return internal_pb2.GroupSnapshot.FromString(stored)
            except (DecodeError, StorageCorrupt):
                self.indexes.pop()  # the log behind the one before it leads to the same state
        return None

    def note_applied(self, size_bytes: int) -> None:
        """Entries of this size were applied since."""
        self._applied_bytes += size_bytes

    @property
    def due(self) -> bool:
        """Whether enough was applied since the newest fold to write another one."""
        return self._applied_bytes >= max(FOLD_SIZE_BYTES_MIN, FOLD_AMPLIFICATION_MIN * self._size_bytes)

    def put(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> None:
        """Keep one more; the most dispensable one goes where they become too many."""
        assert snapshot.index > self.newest_index, f"fold at {snapshot.index} behind {self.newest_index}"
        stored = snapshot.SerializeToString(deterministic=True)
        batch.put(Family.STATE, state_key(self._group_id, snapshot.index), stored)
        self.indexes.append(snapshot.index)
        if len(self.indexes) > FOLDS_MAX:
            spare = min(range(1, FOLDS_MAX), key=lambda place: self.indexes[place + 1] - self.indexes[place - 1])
            batch.delete(Family.STATE, state_key(self._group_id, self.indexes.pop(spare)))
        self._size_bytes = len(stored)
        self._applied_bytes = 0
        self._put_index = snapshot.index

    def last_at_or_below(self, upto: int) -> LogIndex | None:
        """The newest fold at or below `upto`; None without one."""
        place = bisect_right(self.indexes, upto) - 1
        return LogIndex(self.indexes[place]) if place >= 0 else None

    def drop_before(self, batch: WriteBatch, index: int) -> None:
        """Forget the folds below `index` (exclusive)."""
        batch.delete_range(Family.STATE, state_key(self._group_id, 0), state_key(self._group_id, index))
        del self.indexes[: bisect_right(self.indexes, index - 1)]

    def begin_with(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> None:
        """Forget the folds before a snapshot that another replica sent, and keep that one."""
        later = [index for index in self.indexes if index > snapshot.index]
        size_bytes, applied_bytes = self._size_bytes, self._applied_bytes
        self.drop_before(batch, snapshot.index)
        self.indexes = []
        self.put(batch, snapshot)
        if later:
            self.indexes += later
            self._size_bytes, self._applied_bytes = size_bytes, applied_bytes

    def replace_all(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> None:
        """Forget every fold for the one that was installed."""
        batch.delete_range(Family.STATE, state_key(self._group_id, 0), state_key(self._group_id, INDEX_MAX))
        self.indexes = []
        self.put(batch, snapshot)

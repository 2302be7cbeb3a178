"""Which term began where: the small table that answers a term by index and where an epoch ended, without reading the
log.

    INDEX row EPOCH at the index of the term's first entry -> term u64 | first_offset i64

Rows outlive the prefix they describe (up to a limit), so that a consumer whose position is far above the beginning can
still be told that its history is not this log's. An epoch older than the first row contradicts nothing.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import Final

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, IndexRow, index_key, index_of_index_key
from quorumlog.proto.crc32c import crc32c

EPOCHS_BEFORE_FIRST_MAX: Final = 1024
"""How many rows are kept of epochs that ended before the first retained entry."""

_ROW: Final = struct.Struct(">Qq")
_DIGESTED: Final = struct.Struct(">QQq")


class EpochTable:
    """Rows (term, first index, first offset) of one group, ascending in all three; changes go into the batch given.

    The rows are derived: the entries say all of it.
    """

    def __init__(self, group_id: int) -> None:
        self._group_id = group_id
        self._terms: list[int] = []
        self._first_indexes: list[int] = []
        self._first_offsets: list[int] = []
        self._digest: int | None = None

    @classmethod
    def read(cls, storage: Storage, group_id: int) -> EpochTable:
        """The stored table. Raises StorageCorrupt where rows cannot be read or do not ascend; StorageFailed."""
        table = cls(group_id)
        for key, value in storage.scan(Family.INDEX, table._key(0), table._key(INDEX_MAX)):
            try:
                term, first_offset = _ROW.unpack(value)
            except struct.error as error:
                raise StorageCorrupt(f"a row of the term table of group {group_id} has {len(value)} bytes") from error
            if term <= table.last_term:
                raise StorageCorrupt(f"the term table of group {group_id}: {term} follows {table.last_term}")
            table.extend(term, index_of_index_key(key), first_offset)
        return table

    @property
    def digest(self) -> int:
        """CRC-32C of all rows, which the row of the log's end carries: rows of the table have no check of their own."""
        if self._digest is None:
            rows = zip(self._terms, self._first_indexes, self._first_offsets, strict=True)
            self._digest = crc32c(b"".join(_DIGESTED.pack(*row) for row in rows))
        return self._digest

    @property
    def last_term(self) -> int:
        """Term of the last row, 0 when there is none."""
        return self._terms[-1] if self._terms else 0

    @property
    def last_first_index(self) -> int:
        """Index at which the last row's term begins, 0 when there is none."""
        return self._first_indexes[-1] if self._terms else 0

    def add(self, batch: WriteBatch, term: int, first_index: int, first_offset: int) -> None:
        """The entry at `first_index` is the first of `term`."""
        assert term > self.last_term, f"term {term} at index {first_index} follows term {self.last_term}"
        assert first_index > self.last_first_index, f"index {first_index} follows {self.last_first_index}"
        self.extend(term, first_index, first_offset)
        batch.put(Family.INDEX, self._key(first_index), _ROW.pack(term, first_offset))

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`, None below the first row. The caller knows that the entry exists."""
        position = bisect_right(self._first_indexes, index) - 1
        return self._terms[position] if position >= 0 else None

    def end_offset(self, epoch: int, log_end_offset: int) -> tuple[int, int] | None:
        """The highest epoch known at or below `epoch` and the offset where it ended (exclusive); None if none is."""
        position = bisect_right(self._terms, epoch) - 1
        if position < 0:
            return None
        is_last = position == len(self._terms) - 1
        return self._terms[position], log_end_offset if is_last else self._first_offsets[position + 1]

    def truncate(self, batch: WriteBatch, since: int) -> None:
        """Forget the terms that begin at or after index `since`."""
        keep = bisect_left(self._first_indexes, since)
        if keep < len(self._terms):
            batch.delete_range(Family.INDEX, self._key(since), self._key(INDEX_MAX))
            del self._terms[keep:], self._first_indexes[keep:], self._first_offsets[keep:]
            self._digest = None

    def compact(self, batch: WriteBatch, first_index: int) -> None:
        """The log begins at `first_index` from now on: drop the oldest rows above the limit, never one still in use."""
        ended_before = bisect_right(self._first_indexes, first_index) - 1
        drop = ended_before - EPOCHS_BEFORE_FIRST_MAX
        if drop > 0:
            batch.delete_range(Family.INDEX, self._key(0), self._key(self._first_indexes[drop]))
            del self._terms[:drop], self._first_indexes[:drop], self._first_offsets[:drop]
            self._digest = None

    def begin_at(self, batch: WriteBatch, term: int, index: int, offset: int) -> None:
        """Forget everything: the history begins behind the entry at `index` (>= 1), of `term`, at `offset`.

        The caller has deleted the stored rows in `batch`. Where `term` began is not known, and nothing asks: no older
        epoch ends there.
        """
        assert index > 0, "nothing is installed at the beginning of a log"
        del self._terms[:], self._first_indexes[:], self._first_offsets[:]
        self.add(batch, term, index, offset)

    def rewrite(self, batch: WriteBatch) -> None:
        """Put the whole table in place of the stored rows."""
        batch.delete_range(Family.INDEX, self._key(0), self._key(INDEX_MAX))
        for term, first_index, first_offset in zip(self._terms, self._first_indexes, self._first_offsets, strict=True):
            batch.put(Family.INDEX, self._key(first_index), _ROW.pack(term, first_offset))

    def offset_at(self, index: int) -> int | None:
        """The next offset before the entry at `index` where a term begins there; otherwise None."""
        position = bisect_left(self._first_indexes, index)
        begins = position < len(self._terms) and self._first_indexes[position] == index
        return self._first_offsets[position] if begins else None

    def extend(self, term: int, first_index: int, first_offset: int) -> None:
        """Add a row in memory only."""
        self._digest = None
        self._terms.append(term)
        self._first_indexes.append(first_index)
        self._first_offsets.append(first_offset)

    def _key(self, index: int) -> bytes:
        return index_key(self._group_id, IndexRow.EPOCH, index)

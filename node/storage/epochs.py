"""Which term began where: the small table that answers a term by index and where an epoch ended, without reading the
log.

    INDEX row EPOCH at the index of the term's first entry -> term u64 | first_offset i64

Rows outlive the prefix they describe (up to a limit), so that a consumer whose position is far above the beginning can
still be told that its history is not this log's. An epoch older than the first row contradicts nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from struct import Struct
from typing import Final

from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, IndexRow, index_key, index_of_index_key

EPOCHS_BEFORE_FIRST_MAX: Final = 1024
"""How many rows are kept of epochs that ended before the first retained entry."""

_ROW: Final = Struct(">Qq")


class EpochTable:
    """Rows (term, first index, first offset) of one group, ascending in all three; changes go into the batch given."""

    def __init__(self, storage: Storage, group_id: int) -> None:
        self._group_id = group_id
        self._terms: list[int] = []
        self._first_indexes: list[int] = []
        self._first_offsets: list[int] = []
        for key, value in storage.scan(Family.INDEX, self._key(0), self._key(INDEX_MAX)):
            term, first_offset = _ROW.unpack(value)
            self._add(term, index_of_index_key(key), first_offset)

    def __len__(self) -> int:
        return len(self._terms)

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
        self._add(term, first_index, first_offset)
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

    def compact(self, batch: WriteBatch, first_index: int) -> None:
        """The log begins at `first_index` from now on: drop the oldest rows above the limit, never one still in use."""
        ended_before = bisect_right(self._first_indexes, first_index) - 1
        drop = ended_before - EPOCHS_BEFORE_FIRST_MAX
        if drop > 0:
            batch.delete_range(Family.INDEX, self._key(0), self._key(self._first_indexes[drop]))
            del self._terms[:drop], self._first_indexes[:drop], self._first_offsets[:drop]

    def begin_at(self, batch: WriteBatch, term: int, index: int, offset: int) -> None:
        """Forget everything: the history begins behind the entry at `index` (>= 1), of `term`, at `offset`.

        The caller has deleted the stored rows in `batch`. Where `term` began is not known, and nothing asks: no older
        epoch ends there.
        """
        assert index > 0, "nothing is installed at the beginning of a log"
        del self._terms[:], self._first_indexes[:], self._first_offsets[:]
        self.add(batch, term, index, offset)

    def _add(self, term: int, first_index: int, first_offset: int) -> None:
        self._terms.append(term)
        self._first_indexes.append(first_index)
        self._first_offsets.append(first_offset)

    def _key(self, index: int) -> bytes:
        return index_key(self._group_id, IndexRow.EPOCH, index)

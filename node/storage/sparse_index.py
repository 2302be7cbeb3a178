"""Milestones along a log: about one every 64 entries or 1 MiB tells what is true of everything before it.

    INDEX row SPARSE at index i -> next_offset i64 | max_timestamp_ms i64 | append_time_ms i64 | size_bytes u64

All four only ever grow along the log, so "the last milestone before which ..." is a binary search, and one row answers
positions by offset, by record time, by age and by size.

The rows are derived: the entries say all of it. A row that cannot be read is passed over, and searches begin at an
earlier one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import IndexRow, index_key, index_of_index_key

ENTRIES_PER_ROW: Final = 64
BYTES_PER_ROW: Final = 1 << 20

TIME_MIN: Final = -(1 << 63)
"""Earlier than any time: the running maximum of none."""

_ROW: Final = struct.Struct(">qqqQ")


class Milestone(NamedTuple):
    """What is true of every entry before `next_index`, since the log began (cut prefixes included)."""

    next_index: int
    next_offset: int
    max_timestamp_ms: int
    """Largest record timestamp, TIME_MIN without records."""
    append_time_ms: int
    """Largest append time, TIME_MIN without entries."""
    size_bytes: int
    """Sum of the stored entries' sizes."""

    def after(self, header: EntryHeader, max_timestamp_ms: int, size_bytes: int) -> Milestone:
        """The milestone behind the entry at `next_index`."""
        return Milestone(
            self.next_index + 1,
            header.next_offset,
            max(self.max_timestamp_ms, max_timestamp_ms),
            max(self.append_time_ms, header.append_time_ms),
            self.size_bytes + size_bytes,
        )


LOG_BEGINNING: Final = Milestone(
    next_index=1, next_offset=0, max_timestamp_ms=TIME_MIN, append_time_ms=TIME_MIN, size_bytes=0
)


def put_row(batch: WriteBatch, group_id: int, milestone: Milestone) -> None:
    """Write the milestone as a sparse row."""
    index, *values = milestone
    batch.put(Family.INDEX, index_key(group_id, IndexRow.SPARSE, index), _ROW.pack(*values))


def delete_rows(batch: WriteBatch, group_id: int, first: int, last: int) -> None:
    """Delete the sparse rows at `first` to `last`, both inclusive."""
    start, end = index_key(group_id, IndexRow.SPARSE, first), index_key(group_id, IndexRow.SPARSE, last + 1)
    batch.delete_range(Family.INDEX, start, end)


def last_row(storage: Storage, group_id: int, first: int, last: int) -> Milestone | None:
    """The last sparse row at `first` to `last`, both inclusive; None when there is none or none that can be read."""
    return _row(storage, group_id, first, last, reverse=True)


def first_row(storage: Storage, group_id: int, first: int, last: int) -> Milestone | None:
    """The first sparse row at `first` to `last`, both inclusive; None when there is none or none that can be read."""
    return _row(storage, group_id, first, last, reverse=False)


def _row(storage: Storage, group_id: int, first: int, last: int, *, reverse: bool) -> Milestone | None:
    start, end = index_key(group_id, IndexRow.SPARSE, first), index_key(group_id, IndexRow.SPARSE, last + 1)
    try:
        for key, value in storage.scan(Family.INDEX, start, end, reverse=reverse, limit=1):
            return Milestone(index_of_index_key(key), *_ROW.unpack(value))
    except (StorageCorrupt, struct.error):
        pass  # as good as missing
    return None


def last_row_where(
    storage: Storage, group_id: int, first: int, last: int, holds: Callable[[Milestone], bool]
) -> Milestone | None:
    """The last sparse row at `first` to `last` (inclusive) for which `holds`; None when there is none.

    `holds` is true up to some row and false after it. About log2(rows) short scans. Where rows cannot be read it may
    be an earlier one.
    """
    best = None
    while first <= last:
        middle = (first + last) // 2
        row = last_row(storage, group_id, first, middle)
        if row is None:
            first = middle + 1
        elif holds(row):
            best, first = row, middle + 1
        else:
            last = row.next_index - 1
    return best

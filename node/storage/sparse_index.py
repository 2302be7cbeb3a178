"""Milestones along a log: about one every 64 entries or 1 MiB tells what is true of everything before it.

    INDEX row SPARSE at index i -> next_offset i64 | max_timestamp_ms i64 | append_time_ms i64 | size_bytes u64
    META row PREFIX             -> term u64 | index u64 | and the same four

All four only ever grow along the log, so "the last milestone before which ..." is a binary search, and one row answers
positions by offset, by record time, by age and by size. The PREFIX row is the milestone at the first retained entry,
with the term of the entry before it.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import IndexRow, MetaRow, index_key, index_of_index_key, meta_key
from quorumlog.proto import internal_pb2

ENTRIES_PER_ROW: Final = 64
BYTES_PER_ROW: Final = 1 << 20

TIME_MIN: Final = -(1 << 63)
"""Earlier than any time: the running maximum of none."""

_ROW: Final = Struct(">qqqQ")
_PREFIX: Final = Struct(">QQqqqQ")


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


def milestone_of(snapshot: internal_pb2.GroupSnapshot) -> Milestone:
    """The milestone behind `snapshot.index`, of a log that has nothing before it: its sizes are counted from here."""
    return Milestone(
        next_index=snapshot.index + 1,
        next_offset=snapshot.next_offset,
        max_timestamp_ms=snapshot.max_timestamp_ms if snapshot.HasField("max_timestamp_ms") else TIME_MIN,
        append_time_ms=snapshot.append_time_ms,
        size_bytes=0,
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
    """The last sparse row at `first` to `last`, both inclusive; None when there is none."""
    start, end = index_key(group_id, IndexRow.SPARSE, first), index_key(group_id, IndexRow.SPARSE, last + 1)
    for key, value in storage.scan(Family.INDEX, start, end, reverse=True, limit=1):
        return Milestone(index_of_index_key(key), *_ROW.unpack(value))
    return None


def last_row_where(
    storage: Storage, group_id: int, first: int, last: int, holds: Callable[[Milestone], bool]
) -> Milestone | None:
    """The last sparse row at `first` to `last` (inclusive) for which `holds`; None when there is none.

    `holds` is true up to some row and false after it. About log2(rows) short scans.
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


def put_prefix(batch: WriteBatch, group_id: int, term: int, milestone: Milestone) -> None:
    """Write the PREFIX row: the log begins at `milestone.next_index`, and `term` is that of the entry before it."""
    batch.put(Family.META, meta_key(group_id, MetaRow.PREFIX), _PREFIX.pack(term, *milestone))


def read_prefix(storage: Storage, group_id: int) -> tuple[int, Milestone]:
    """The PREFIX row, (0, LOG_BEGINNING) for a log that was never cut."""
    value = storage.get(Family.META, meta_key(group_id, MetaRow.PREFIX))
    if value is None:
        return 0, LOG_BEGINNING
    term, *milestone = _PREFIX.unpack(value)
    return term, Milestone(*milestone)

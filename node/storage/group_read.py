"""Reading a group's entries from storage: functions of a few numbers, so that a thread can run them beside the event
loop.

Everything read is checked: both sums of each entry, that it is the one asked for, that indexes have no hole, that
terms do not fall and offsets join. What does not hold is EntryDamaged and names group and index; it is never the end
of the log, and what is not damaged is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from quorumlog.node.errors import EntryCorrupt, EntryDamaged, StorageCorrupt
from quorumlog.node.storage.entry import EntryHeader, check_entry
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import INDEX_MAX, log_key
from quorumlog.node.storage.sparse_index import Milestone, last_row_where
from quorumlog.raft.types import Entry, LogIndex, Term

SLICE_BYTES: Final = 1 << 20
"""About how much one list get brings: turning 1 MiB into Python bytes holds the GIL for about a millisecond."""

_SLICE_ENTRIES_MAX: Final = 256
_FIRST_SLICE_ENTRIES: Final = 4
"""Before the size of entries is known, a slice of the largest ones must still be bearable."""

MaxTimestamp = Callable[[EntryHeader, bytes], int]
"""(header, stored entry) -> largest timestamp of its records, Unix milliseconds; asked for entries with records only.
"""


Found = tuple[EntryHeader, Entry]
"""A stored entry that was read and checked, with its header."""


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A read of records that are not in memory, made on the loop and executed anywhere by `read_records`."""

    group_id: int
    first_index: int
    last_index: int
    offset: int
    limit_offset: int
    size_bytes_max: int
    cuts: int
    """How often the log had dropped entries when the plan was made."""


def survey(
    storage: Storage, group_id: int, first: int, last: int, slice_bytes: int = SLICE_BYTES
) -> Iterator[Found | EntryDamaged]:
    """For each index from `first` to `last`, both inclusive: the entry, checked, or in what way it is damaged.

    Read slice by slice as it is taken. Raises UnknownEntryKind, StorageFailed.
    """
    count = _FIRST_SLICE_ENTRIES
    previous: EntryHeader | None = None
    index = first
    while index <= last:
        indexes = range(index, min(index + count, last + 1))
        size_bytes = 0
        for position, data in zip(indexes, _get_slice(storage, group_id, indexes), strict=True):
            if data is None:
                yield EntryDamaged(group_id, position, f"it is missing, the log reaches from {first} to {last}")
                continue
            if isinstance(data, StorageCorrupt):
                yield EntryDamaged(group_id, position, str(data))
                continue
            size_bytes += len(data)
            try:
                header = check_entry(data, group_id, position)
            except EntryCorrupt as error:
                yield EntryDamaged(group_id, position, str(error))
                continue
            if previous is not None and not _may_follow(previous, header):
                yield EntryDamaged(
                    group_id,
                    position,
                    f"term {header.term} and offset {header.base_offset} do not follow entry {previous.index} of term "
                    f"{previous.term}, next offset {previous.next_offset}",
                )
                continue
            yield header, Entry(LogIndex(position), Term(header.term), header.kind, data)
            previous = header
        index += len(indexes)
        average_bytes = max(1, size_bytes // len(indexes))
        count = max(1, min(_SLICE_ENTRIES_MAX, slice_bytes // average_bytes))


def _get_slice(storage: Storage, group_id: int, indexes: range) -> Sequence[bytes | StorageCorrupt | None]:
    """A list get fails as a whole when one of its blocks is damaged; then one by one."""
    keys = [log_key(group_id, index) for index in indexes]
    try:
        return storage.get_many(Family.LOG, keys)
    except StorageCorrupt:
        return [_get_one(storage, key) for key in keys]


def _get_one(storage: Storage, key: bytes) -> bytes | StorageCorrupt | None:
    try:
        return storage.get(Family.LOG, key)
    except StorageCorrupt as error:
        return error


def _may_follow(previous: EntryHeader, header: EntryHeader) -> bool:
    """Whether both can stand in one log; with damaged entries between them, offsets may have been taken there."""
    if header.term < previous.term or header.base_offset < previous.next_offset:
        return False
    return header.base_offset == previous.next_offset or header.index > previous.index + 1


def walk(storage: Storage, group_id: int, first: int, last: int, slice_bytes: int = SLICE_BYTES) -> Iterator[Found]:
    """The entries from `first` to `last`, both inclusive, checked; read slice by slice as they are taken.

    Raises EntryDamaged at the first that is; UnknownEntryKind, StorageFailed.
    """
    for item in survey(storage, group_id, first, last, slice_bytes):
        if isinstance(item, EntryDamaged):
            raise item
        yield item


def find_damage(storage: Storage, group_id: int, first: int, last: int) -> list[LogIndex]:
    """Indexes of the damaged entries between `first` and `last`, both inclusive: damage rarely comes alone, so look
    around what was met, in a thread. Raises UnknownEntryKind, StorageFailed.

    What was cut meanwhile looks damaged, and so does an entry that is still to be written.
    """
    found = survey(storage, group_id, first, last)
    return [LogIndex(item.index) for item in found if isinstance(item, EntryDamaged)]


def read_entries(storage: Storage, group_id: int, first: int, last: int, size_bytes_max: int) -> list[Entry]:
    """Entries from `first` to `last`, both inclusive: one, and then no more than `size_bytes_max` bytes of data, up to
    the first that is damaged.

    Raises EntryDamaged where that is the first of all; UnknownEntryKind, StorageFailed.
    """
    entries: list[Entry] = []
    size_bytes = 0
    for item in survey(storage, group_id, first, last, min(size_bytes_max, SLICE_BYTES)):
        if isinstance(item, EntryDamaged):
            if entries:
                break
            raise item
        entry = item[1]
        size_bytes += len(entry.data)
        if entries and size_bytes > size_bytes_max:
            break
        entries.append(entry)
        if size_bytes >= size_bytes_max:
            break
    return entries


def read_records(storage: Storage, plan: ReadPlan) -> list[Entry]:
    """The entries with records from `plan.offset` (the first may begin below it) up to `plan.limit_offset` (exclusive).

    One entry, and then no more than `plan.size_bytes_max` bytes, up to the first that is damaged; empty when there is
    none below the limit. Entries without records are passed over. Raises EntryDamaged where a damaged entry may hold
    the record at `plan.offset`, also after entries were dropped meanwhile, which `GroupLog.still_holds` tells;
    UnknownEntryKind, StorageFailed.
    """
    entries: list[Entry] = []
    size_bytes = 0
    slice_bytes = min(plan.size_bytes_max, SLICE_BYTES)
    found = walk_from_offset(
        storage, plan.group_id, plan.first_index, plan.last_index, plan.offset, plan.limit_offset, slice_bytes
    )
    try:
        for header, entry in found:
            if header.next_offset > plan.limit_offset:
                break
            if header.count == 0 or header.next_offset <= plan.offset:
                continue
            size_bytes += len(entry.data)
            if entries and size_bytes > plan.size_bytes_max:
                break
            entries.append(entry)
            if size_bytes >= plan.size_bytes_max:
                break
    except EntryDamaged:
        if not entries:
            raise
    return entries


def walk_from_offset(
    storage: Storage, group_id: int, first: int, last: int, offset: int, limit_offset: int, slice_bytes: int
) -> Iterator[Found]:
    """Entries of the log from `first` to `last` (inclusive), beginning a little before the one with `offset`.

    Damage before that is passed over. Raises EntryDamaged where damaged entries may hold records from `offset` on and
    below `limit_offset`; UnknownEntryKind, StorageFailed.
    """
    row, items = _survey_from_row(storage, group_id, first, last, lambda row: row.next_offset <= offset, slice_bytes)
    reached = None if row is None else row.next_offset
    hole: EntryDamaged | None = None
    for item in items:
        if isinstance(item, EntryDamaged):
            hole = hole or item
            continue
        header = item[0]
        if hole is not None and header.base_offset > offset and header.base_offset != reached:
            raise hole
        hole, reached = None, header.next_offset
        yield item
    if hole is not None and (reached is None or reached < limit_offset):
        raise hole


def _survey_from_row(
    storage: Storage, group_id: int, first: int, last: int, holds: Callable[[Milestone], bool], slice_bytes: int
) -> tuple[Milestone | None, Iterator[Found | EntryDamaged]]:
    """A survey from the last row for which `holds`, and that row; the whole log where there is none or it contradicts
    the entry at it. The entry has checks of its own, the row has none.
    """
    row = last_row_where(storage, group_id, first, last, holds)
    if row is not None:
        items = survey(storage, group_id, row.next_index, last, slice_bytes)
        for item in items:
            if isinstance(item, EntryDamaged) or item[0].base_offset == row.next_offset:
                return row, chain((item,), items)
            break
    return None, survey(storage, group_id, first, last, slice_bytes)


def find_offset(storage: Storage, group_id: int, first: int, last: int, offset: int) -> LogIndex | None:
    """Index of the first entry in `first` to `last` (inclusive) with records at or after `offset`, or None.

    Raises EntryDamaged where a damaged entry may be the one; UnknownEntryKind, StorageFailed.
    """
    for header, entry in walk_from_offset(storage, group_id, first, last, offset, INDEX_MAX, SLICE_BYTES):
        if header.count and header.next_offset > offset:
            return entry.index
    return None


def find_time(
    storage: Storage, group_id: int, first: int, last: int, timestamp_ms: int, max_timestamp: MaxTimestamp
) -> LogIndex | None:
    """Index of the first entry between `first` and `last` (inclusive) with a record at or after the time; None if
    none. Raises as `walk` does.
    """

    def all_earlier(row: Milestone) -> bool:
        return row.max_timestamp_ms < timestamp_ms

    for item in _survey_from_row(storage, group_id, first, last, all_earlier, SLICE_BYTES)[1]:
        if isinstance(item, EntryDamaged):
            raise item
        header, entry = item
        if header.count and max_timestamp(header, entry.data) >= timestamp_ms:
            return entry.index
    return None

"""Reading a group's entries from storage: functions of a few numbers, so that a thread can run them beside the event
loop.

Everything read is checked: both sums of each entry, that it is the one asked for, that indexes have no hole, that
terms do not fall and offsets join. What does not hold is StorageCorrupt and names group and index; it is never the end
of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.entry import EntryHeader, check_entry
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import log_key
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


def walk(
    storage: Storage, group_id: int, first: int, last: int, slice_bytes: int = SLICE_BYTES
) -> Iterator[tuple[EntryHeader, Entry]]:
    """The entries from `first` to `last`, both inclusive, checked; read slice by slice as they are taken.

    Raises StorageCorrupt (EntryCorrupt), UnknownEntryKind, StorageFailed.
    """
    count = _FIRST_SLICE_ENTRIES
    previous: EntryHeader | None = None
    index = first
    while index <= last:
        indexes = range(index, min(index + count, last + 1))
        size_bytes = 0
        for data in storage.get_many(Family.LOG, [log_key(group_id, position) for position in indexes]):
            if data is None:
                raise StorageCorrupt(
                    f"entry {index} of group {group_id} is missing although the log reaches from {first} to {last}: "
                    "the replica must be repaired from its peers"
                )
            header = check_entry(data, group_id, index)
            if previous is not None and (
                header.term < previous.term or header.base_offset != previous.base_offset + previous.count
            ):
                raise StorageCorrupt(
                    f"entry {index} of group {group_id} (term {header.term}, offset {header.base_offset}) does not "
                    f"follow the one before it (term {previous.term}, next offset {previous.next_offset})"
                )
            yield header, Entry(LogIndex(index), Term(header.term), header.kind, data)
            previous = header
            size_bytes += len(data)
            index += 1
        average_bytes = size_bytes // len(indexes)
        count = max(1, min(_SLICE_ENTRIES_MAX, slice_bytes // average_bytes))


def read_entries(storage: Storage, group_id: int, first: int, last: int, size_bytes_max: int) -> list[Entry]:
    """Entries from `first` to `last`, both inclusive: one, and then no more than `size_bytes_max` bytes of data.

    Raises as `walk` does.
    """
    entries: list[Entry] = []
    size_bytes = 0
    for _, entry in walk(storage, group_id, first, last, min(size_bytes_max, SLICE_BYTES)):
        size_bytes += len(entry.data)
        if entries and size_bytes > size_bytes_max:
            break
        entries.append(entry)
        if size_bytes >= size_bytes_max:
            break
    return entries


def read_records(storage: Storage, plan: ReadPlan) -> list[Entry]:
    """The entries with records from `plan.offset` (the first may begin below it) up to `plan.limit_offset` (exclusive).

    One entry, and then no more than `plan.size_bytes_max` bytes; empty when there is none below the limit. Entries
    without records are passed over. Raises as `walk` does; after entries were dropped meanwhile, which
    `GroupLog.still_holds` tells.
    """
    row = last_row_where(
        storage, plan.group_id, plan.first_index, plan.last_index, lambda row: row.next_offset <= plan.offset
    )
    start = plan.first_index if row is None else row.next_index
    entries: list[Entry] = []
    size_bytes = 0
    for header, entry in walk(storage, plan.group_id, start, plan.last_index, min(plan.size_bytes_max, SLICE_BYTES)):
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
    return entries


def find_offset(storage: Storage, group_id: int, first: int, last: int, offset: int) -> LogIndex | None:
    """Index of the first entry in `first` to `last` (inclusive) with records at or after `offset`, or None."""
    row = last_row_where(storage, group_id, first, last, lambda row: row.next_offset <= offset)
    for header, entry in walk(storage, group_id, first if row is None else row.next_index, last):
        if header.count and header.next_offset > offset:
            return entry.index
    return None


def find_time(
    storage: Storage, group_id: int, first: int, last: int, timestamp_ms: int, max_timestamp: MaxTimestamp
) -> LogIndex | None:
    """Index of the first entry between `first` and `last` (inclusive) with a record at or after the time; None if
    none.
    """

    def all_earlier(row: Milestone) -> bool:
        return row.max_timestamp_ms < timestamp_ms

    row = last_row_where(storage, group_id, first, last, all_earlier)
    for header, entry in walk(storage, group_id, first if row is None else row.next_index, last):
        if header.count and max_timestamp(header, entry.data) >= timestamp_ms:
            return entry.index
    return None

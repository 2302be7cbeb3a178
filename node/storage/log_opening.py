"""Opening the log of a group: what stands in memory of it, put together from the rows and the entries at its end.

What cannot be rebuilt are the two small rows that say where the log begins and ends (`log_ends`). Everything else is
checked against them and the entries: a damaged entry is noted and the log opens; a term table that cannot be read or
contradicts is made again from the entries; a milestone that contradicts is passed over. Only where not even the shape
can be told does opening raise LogLost.

A log that an earlier release wrote last has no row for its end. It is looked up among the entries as then, and nothing
at its end may be damaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from quorumlog.node.errors import EntryDamaged, LogLost, StorageCorrupt
from quorumlog.node.storage import log_ends, sparse_index
from quorumlog.node.storage.epochs import EpochTable
from quorumlog.node.storage.group_read import Found, MaxTimestamp, survey, walk
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import group_range, index_of_log_key, log_key
from quorumlog.node.storage.log_ends import LastRow
from quorumlog.node.storage.sparse_index import ENTRIES_PER_ROW, TIME_MIN, Milestone
from quorumlog.node.storage.tail_cache import TailCache


@dataclass(slots=True)
class StoredLog:
    """A log as it was found. `end` is the milestone behind its last entry, `row` the last sound one before that."""

    prefix_term: int
    prefix: Milestone
    epochs: EpochTable
    end: Milestone
    row: Milestone
    tail: TailCache
    damaged: set[int]
    """Damaged entries among those that were looked at: the ones at the end."""
    epochs_rebuilt: bool
    """The stored term table is wrong, and `epochs` is to be written in its place."""


def open_log(storage: Storage, group_id: int, max_timestamp: MaxTimestamp) -> StoredLog:
    """Read and check the log of a group. Raises LogLost, UnknownEntryKind, StorageFailed."""
    try:
        prefix_term, prefix, last = log_ends.read_ends(storage, group_id)
        if last is None:
            last = _find_last(storage, group_id, prefix_term, prefix, max_timestamp)
    except LogLost:
        raise
    except StorageCorrupt as error:
        raise LogLost(group_id, str(error)) from error
    epochs, rebuilt = _read_epochs(storage, group_id, prefix_term, prefix, last)
    _check_nothing_behind(storage, group_id, last)
    end = last.milestone
    row = _last_sound_row(storage, group_id, prefix, end.next_index - 1)
    tail = TailCache(end.next_index, end.next_offset, end.max_timestamp_ms)
    found = StoredLog(prefix_term, prefix, epochs, end, row, tail, set(), rebuilt)
    _check_beginning(storage, group_id, found)
    _load_tail(storage, group_id, found, max_timestamp)
    return found


def _find_last(
    storage: Storage, group_id: int, prefix_term: int, prefix: Milestone, max_timestamp: MaxTimestamp
) -> LastRow:
    """The end of a log without a row for it. Raises StorageCorrupt where anything is damaged there."""
    last_index, term = prefix.next_index - 1, prefix_term
    start, end = log_key(group_id, prefix.next_index), group_range(group_id)[1]
    for key, _ in storage.scan(Family.LOG, start, end, reverse=True, limit=1):
        last_index = index_of_log_key(key)
    milestone = _last_sound_row(storage, group_id, prefix, last_index)
    for header, entry in walk(storage, group_id, milestone.next_index, last_index):
        milestone = milestone.after(
            header, max_timestamp(header, entry.data) if header.count else TIME_MIN, len(entry.data)
        )
        term = header.term
    for header, _ in walk(storage, group_id, prefix.next_index, min(prefix.next_index, last_index)):
        if header.base_offset != prefix.next_offset:
            raise EntryDamaged(group_id, header.index, f"its offset is {header.base_offset}, not {prefix.next_offset}")
    try:
        epochs_crc = EpochTable.read(storage, group_id).digest
    except StorageCorrupt:
        epochs_crc = 0  # the table will be made again
    return LastRow(term, milestone, epochs_crc)


# --- the term table ---


def _read_epochs(
    storage: Storage, group_id: int, prefix_term: int, prefix: Milestone, last: LastRow
) -> tuple[EpochTable, bool]:
    """The term table, and whether it had to be made again."""
    last_index = last.milestone.next_index - 1
    try:
        epochs = EpochTable.read(storage, group_id)
    except StorageCorrupt:
        pass
    else:
        if epochs.last_term == last.term and epochs.digest == last.epochs_crc and epochs.last_first_index <= last_index:
            return epochs, False
    epochs = _rebuild_epochs(storage, group_id, prefix_term, prefix, last_index)
    if epochs.last_term != last.term:
        raise LogLost(group_id, f"its entries end in term {epochs.last_term}, its LAST row in term {last.term}")
    return epochs, True


def _rebuild_epochs(
    storage: Storage, group_id: int, prefix_term: int, prefix: Milestone, last_index: int
) -> EpochTable:
    """The term table from the entries alone: it begins with the term before the log."""
    epochs = EpochTable(group_id)
    if prefix_term:
        epochs.extend(prefix_term, prefix.next_index - 1, prefix.next_offset)
    hole: EntryDamaged | None = None
    for item in survey(storage, group_id, prefix.next_index, last_index):
        if isinstance(item, EntryDamaged):
            hole = hole or item
            continue
        header = item[0]
        if header.term != epochs.last_term:
            if hole is not None:
                raise LogLost(group_id, f"its term table is damaged, and {hole}: nobody knows where a term began")
            epochs.extend(header.term, header.index, header.base_offset)
        hole = None
    return epochs


# --- the end ---


def _check_nothing_behind(storage: Storage, group_id: int, last: LastRow) -> None:
    """Entries behind the end would mean that the row of the end is an old one."""
    start, end = log_key(group_id, last.milestone.next_index), group_range(group_id)[1]
    try:
        behind = storage.scan(Family.LOG, start, end, limit=1)
    except StorageCorrupt:
        return  # an unreadable block, perhaps of other groups
    if behind:
        raise LogLost(group_id, f"entry {index_of_log_key(behind[0][0])} stands behind its last one")


def _last_sound_row(storage: Storage, group_id: int, prefix: Milestone, last_index: int) -> Milestone:
    """The last milestone that does not contradict the entry at it."""
    index = last_index
    while (row := sparse_index.last_row(storage, group_id, prefix.next_index, index)) is not None:
        for item in survey(storage, group_id, row.next_index, row.next_index):
            if isinstance(item, EntryDamaged) or item[0].base_offset == row.next_offset:
                return row
        index = row.next_index - 1
    return prefix


def _check_beginning(storage: Storage, group_id: int, found: StoredLog) -> None:
    first = found.prefix.next_index
    for item in survey(storage, group_id, first, min(first, found.end.next_index - 1)):
        if isinstance(item, EntryDamaged) or not belongs(found.epochs, item):
            found.damaged.add(first)
        elif item[0].base_offset != found.prefix.next_offset:
            raise LogLost(
                group_id,
                f"entry {first} begins at offset {item[0].base_offset}, its PREFIX row ends at "
                f"{found.prefix.next_offset}",
            )


def _load_tail(storage: Storage, group_id: int, found: StoredLog, max_timestamp: MaxTimestamp) -> None:
    """Check the entries behind the last milestone, and keep those behind the last damage in memory."""
    end = found.end
    last_index = end.next_index - 1
    # Where milestones are lost the last one may be far away; then only the end is looked at.
    row = found.row
    start = max(row.next_index, end.next_index - 2 * ENTRIES_PER_ROW)
    exact = start == row.next_index
    if not exact:
        found.row = end  # the distance to the next milestone is counted from here
    sound: list[Found] = []
    for index, item in enumerate(survey(storage, group_id, start, last_index), start):
        if isinstance(item, EntryDamaged) or not belongs(found.epochs, item):
            found.damaged.add(index)
            sound.clear()
            exact = False
        else:
            sound.append(item)
    if not sound:
        return
    first, last = sound[0][0], sound[-1][0]
    if last.next_offset != end.next_offset:
        raise LogLost(group_id, f"its last entry ends at offset {last.next_offset}, its LAST row at {end.next_offset}")
    # Of what comes before damage only an upper bound is known, so that no time is looked for in this tail.
    time_ms = row.max_timestamp_ms if exact else end.max_timestamp_ms
    found.tail = TailCache(first.index, first.base_offset, time_ms)
    for header, entry in sound:
        if header.count:
            time_ms = max(time_ms, max_timestamp(header, entry.data))
        found.tail.append(entry, header.next_offset, time_ms)


def belongs(epochs: EpochTable, item: Found) -> bool:
    """Whether the entry is of the term that the table tells for its index: identity in a log is index and term."""
    header, _ = item
    return epochs.term_at(header.index) == header.term

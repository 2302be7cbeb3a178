"""The log of one group as it can be asked: what stands in memory of it, and the reads behind that.

In memory are the term table, the end of the log, and the newest entries, up to `tail_bytes_max` (2 MiB unless told; the
entries of the open batch beyond that). Older entries are read from storage in the calling thread, except records for
consumers, which the node reads elsewhere: `plan_read` here, `group_read.read_records` in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import ReferenceType

from quorumlog.node.errors import EntryDamaged
from quorumlog.node.storage import log_ends, sparse_index
from quorumlog.node.storage.entry import EntryHeader, decode_header
from quorumlog.node.storage.group_read import (
    Found,
    MaxTimestamp,
    ReadPlan,
    find_offset,
    find_time,
    read_entries,
    survey,
)
from quorumlog.node.storage.interface import Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, log_key
from quorumlog.node.storage.log_opening import open_log
from quorumlog.node.storage.sparse_index import Milestone
from quorumlog.node.storage.timestamps import max_timestamp_of
from quorumlog.proto import internal_pb2
from quorumlog.raft.types import Entry, LogIndex, Term

TAIL_BYTES_MAX_DEFAULT: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class LogPlan:
    """A look at stored entries, made on the loop and executed in a thread; both indexes inclusive."""

    group_id: int
    first_index: LogIndex
    last_index: LogIndex
    unsound: frozenset[LogIndex]
    """Damage that is known of, or mended in a batch that may not be written yet: seeing it again is no news."""
    cuts: int
    """How often the log had dropped entries when the plan was made."""


class LogView:
    """One group's log, without its changes; see `group_log.GroupLog`."""

    def __init__(
        self,
        storage: Storage,
        group_id: int,
        *,
        max_timestamp: MaxTimestamp = max_timestamp_of,
        tail_bytes_max: int = TAIL_BYTES_MAX_DEFAULT,
    ) -> None:
        assert group_id > 0, "group id 0 is the node itself"
        self.group_id = group_id
        self.tail_bytes_max = tail_bytes_max
        self._storage = storage
        self._max_timestamp = max_timestamp
        self._open_batch: ReferenceType[WriteBatch] | None = None
        self._rows_stale_from = INDEX_MAX  # sparse rows in storage from here on are deleted in the open batch
        self._cuts = 0  # how often entries were dropped: a read planned before may miss them
        self._prefix_stored = log_ends.read_prefix(storage, group_id) is not None
        stored = open_log(storage, group_id, max_timestamp)
        self._prefix_term, self._prefix = stored.prefix_term, stored.prefix
        self._epochs, self._epochs_rebuilt = stored.epochs, stored.epochs_rebuilt
        self._end, self._row = stored.end, stored.row
        self._tail = stored.tail
        self._tail.trim(tail_bytes_max)
        self._damaged = stored.damaged
        self._mended: dict[int, Entry] = {}  # in the open batch

    # --- what the Raft core asks ---

    def first_index(self) -> LogIndex:
        """Index of the first entry retained; `last_index() + 1` when there is none."""
        return LogIndex(self._prefix.next_index)

    def last_index(self) -> LogIndex:
        """Index of the last entry (inclusive); `first_index() - 1` when there is none."""
        return LogIndex(self._end.next_index - 1)

    def term(self, index: LogIndex) -> Term | None:
        """Term at `index` for `first_index() - 1 <= index <= last_index()`, otherwise None. Never reads storage."""
        if not self._prefix.next_index <= index < self._end.next_index:
            return Term(self._prefix_term) if index == self._prefix.next_index - 1 else None
        term = self._epochs.term_at(index)
        assert term is not None, f"group {self.group_id} has entry {index} but no term for it"
        return Term(term)

    def entries(self, first: LogIndex, last: LogIndex, size_bytes_max: int) -> Sequence[Entry]:
        """Entries from `first` to `last` (both inclusive and retained): one, and then no more than `size_bytes_max`.

        Entries older than the cached tail are read from storage here and now, up to that size; such an answer may end
        where the tail begins, and ends before a damaged entry. Raises EntryDamaged for `first`, UnknownEntryKind.
        """
        assert self._prefix.next_index <= first <= last < self._end.next_index, f"no entries {first} to {last}"
        if first >= self._tail.first_index:
            return self._tail.slice(first, last, size_bytes_max)
        if first in self._mended:
            return [self._mended[first]]
        stop = min([self._tail.first_index, last + 1, *(index for index in self._mended if index > first)])
        try:
            return read_entries(self._storage, self.group_id, first, stop - 1, size_bytes_max)
        except EntryDamaged as damage:
            self.note_damage(LogIndex(damage.index))
            raise

    # --- damage ---

    @property
    def damaged(self) -> frozenset[LogIndex]:
        """Indexes of the damaged entries that are known of."""
        return frozenset(LogIndex(index) for index in self._damaged)

    @property
    def has_damage(self) -> bool:
        """Whether any entry is known to be damaged."""
        return bool(self._damaged)

    def is_damaged(self, index: LogIndex) -> bool:
        """Whether the entry is known to be damaged."""
        return index in self._damaged

    def note_damage(self, index: LogIndex) -> None:
        """A read elsewhere raised EntryDamaged for `index`, in a log that `still_holds`. One outside the log is passed
        over.
        """
        if self._prefix.next_index <= index < self._end.next_index and index not in self._mended:
            self._damaged.add(index)

    # --- offsets, times, sizes ---

    @property
    def log_end_offset(self) -> int:
        """The offset that the next record gets (exclusive end)."""
        return self._end.next_offset

    @property
    def last_append_time_ms(self) -> int:
        """The largest append time of the log, of cut entries too; TIME_MIN where there has been no entry."""
        return self._end.append_time_ms

    @property
    def first_offset(self) -> int:
        """The next offset before the first retained entry: no record below it is left."""
        return self._prefix.next_offset

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of the retained entries."""
        return self._end.size_bytes - self._prefix.size_bytes

    @property
    def max_timestamp_ms(self) -> int | None:
        """Largest timestamp of any record the log has had, Unix milliseconds; None without records."""
        return None if self._end.max_timestamp_ms == sparse_index.TIME_MIN else self._end.max_timestamp_ms

    def next_offset_before(self, index: LogIndex) -> int:
        """The next offset before the entry at `index`, first_index() <= index <= last_index() + 1."""
        if self._tail.first_index < index:
            return self._tail.next_offset_behind(index - 1)
        return self._milestone_before(index).next_offset

    def locate(self, offset: int) -> LogIndex | None:
        """Index of the first entry with records at or after `offset`; None from `log_end_offset` on."""
        offset = max(offset, self._prefix.next_offset)
        if offset >= self._end.next_offset:
            return None
        if offset >= self._tail.offset_before:
            return self._tail.find_offset(offset)
        return find_offset(self._storage, self.group_id, self._prefix.next_index, self._tail.first_index - 1, offset)

    def locate_time(self, timestamp_ms: int) -> LogIndex | None:
        """Index of the first retained entry with a record at or after the time; None when there is none.

        Which record of the entry it is, its batch tells. Times outside the tail are read from storage, usually about 64
        entries; when a prefix that was cut held a later time than what follows it, all entries up to the one that is
        found. `group_read.find_time` does the same in a thread.
        """
        if timestamp_ms > self._end.max_timestamp_ms:
            return None
        if timestamp_ms > self._tail.max_timestamp_before_ms:
            return self._tail.find_time(timestamp_ms)
        first, last = self._prefix.next_index, self._tail.first_index - 1
        found = find_time(self._storage, self.group_id, first, last, timestamp_ms, self._max_timestamp)
        if found is not None:
            return found
        for header, entry in self._walk(self._tail.first_index, self._end.next_index - 1):
            if header.count and self._max_timestamp(header, entry.data) >= timestamp_ms:
                return entry.index  # the larger time before it was in the prefix that was cut
        return None

    def epoch_end_offset(self, epoch: int) -> tuple[int, int] | None:
        """(highest known epoch at or below `epoch`, its end offset, exclusive); None when `epoch` is older than all
        known.
        """
        return self._epochs.end_offset(epoch, self._end.next_offset)

    def first_append_time_ms(self) -> int | None:
        """Append time of the first retained entry, Unix milliseconds; None for an empty log. May read one entry."""
        for header, _ in self._walk(self._prefix.next_index, min(self._prefix.next_index, self._end.next_index - 1)):
            return header.append_time_ms
        return None

    def upto_for_size(self, retained_bytes: int) -> LogIndex:
        """The last index that a cut may take (inclusive) so that at least `retained_bytes` stay; `first_index() - 1`
        for none.

        Cuts fall on written milestones. Reads a few rows.
        """
        limit = self._end.size_bytes - retained_bytes
        return self._upto_where(lambda row: row.size_bytes <= limit)

    def upto_for_time(self, append_time_ms: int) -> LogIndex:
        """The last index (inclusive) such that every entry up to it was appended before the time, as `upto_for_size`.

        Cuts fall on milestones, except that a log that is too old as a whole goes as a whole.
        """
        if self._end.append_time_ms < append_time_ms:
            return self.last_index()
        return self._upto_where(lambda row: row.append_time_ms < append_time_ms)

    def snapshot_at(self, index: LogIndex) -> internal_pb2.GroupSnapshot:
        """What `install` needs to know of the log through `index`, first_index() - 1 <= index <= last_index(); without
        state and configuration.
        """
        term = self.term(index)
        assert term is not None, (
            f"a snapshot at {index} of a log that spans {self.first_index()} to {self.last_index()}"
        )
        milestone = self._milestone_before(index + 1)
        snapshot = internal_pb2.GroupSnapshot(
            group_id=self.group_id,
            index=index,
            term=term,
            next_offset=milestone.next_offset,
            append_time_ms=milestone.append_time_ms,
        )
        if milestone.max_timestamp_ms != sparse_index.TIME_MIN:
            snapshot.max_timestamp_ms = milestone.max_timestamp_ms
        return snapshot

    # --- records for consumers ---

    def cached_records(self, offset: int, limit_offset: int, size_bytes_max: int) -> Sequence[Entry] | None:
        """Entries with records from `offset` up to `limit_offset` (exclusive); None when they are not in memory.

        One entry, and then no more than `size_bytes_max` bytes of data; the first may begin below `offset`.
        """
        offset = max(offset, self._prefix.next_offset)
        if offset < self._tail.offset_before:
            return None
        return self._tail.records(offset, limit_offset, size_bytes_max)

    def plan_read(self, offset: int, limit_offset: int, size_bytes_max: int) -> ReadPlan:
        """The same read for a thread: `read_records(storage, plan)`, once everything below `limit_offset` is written.

        When that raises StorageCorrupt and `still_holds` says no, the log was cut meanwhile: look again what it has.
        """
        first, last = self._prefix.next_index, self._end.next_index - 1
        return ReadPlan(self.group_id, first, last, offset, limit_offset, size_bytes_max, self._cuts)

    def plan_check(self, first: LogIndex, last: LogIndex) -> LogPlan:
        """A look in a thread at the entries from `first` to `last`, both inclusive, as far as the log has them.

        To be made when everything appended is written.
        """
        first, last = max(first, self.first_index()), min(last, self.last_index())
        unsound = frozenset(LogIndex(index) for index in (*self._damaged, *self._mended))
        return LogPlan(self.group_id, first, last, unsound, self._cuts)

    def still_holds(self, plan: ReadPlan | LogPlan) -> bool:
        """Whether what the plan may read was retained until now."""
        return self._cuts == plan.cuts

    def reclaimable(self) -> tuple[bytes, bytes]:
        """Start and exclusive end of the keys that compaction has deleted, for `storage.reclaim(Family.LOG, ...)`."""
        return log_key(self.group_id, 0), log_key(self.group_id, self._prefix.next_index)

    # --- inside ---

    def _after(self, milestone: Milestone, header: EntryHeader, data: bytes) -> Milestone:
        timestamp_ms = self._max_timestamp(header, data) if header.count else sparse_index.TIME_MIN
        return milestone.after(header, timestamp_ms, len(data))

    def _walk(self, first: int, last: int) -> Iterator[Found]:
        """Entries from storage, and from memory where they are there; both bounds inclusive. Raises EntryDamaged."""
        split = self._tail.first_index
        for index, item in enumerate(survey(self._storage, self.group_id, first, min(last, split - 1)), first):
            if index in self._mended:
                entry = self._mended[index]
                yield decode_header(entry.data), entry
            elif isinstance(item, EntryDamaged):
                self.note_damage(LogIndex(index))
                raise item
            else:
                yield item
        for entry in self._tail.slice(max(first, split), last, INDEX_MAX) if last >= split else ():
            yield decode_header(entry.data), entry

    def _header_at(self, index: int) -> EntryHeader | None:
        """Header of a retained entry; None when it is damaged."""
        try:
            for header, _ in self._walk(index, index):
                return header if index not in self._damaged else None
        except EntryDamaged:
            pass
        return None

    def _known_offset_before(self, index: int) -> int | None:
        """The next offset before the entry at `index` where a row tells."""
        for milestone in (self._prefix, self._end):
            if index == milestone.next_index:
                return milestone.next_offset
        return self._epochs.offset_at(index)

    def _last_row_index(self) -> int:
        """Up to where the sparse rows in storage are those of this log: not beyond a cut that is still in its batch."""
        if self._open_batch is not None and self._open_batch() is None:
            self._rows_stale_from = INDEX_MAX  # the batch was written and let go
        return self._rows_stale_from - 1

    def _row_up_to(self, index: int) -> Milestone:
        """The last sparse row at or before `index`, the prefix when there is none."""
        last = min(index, self._last_row_index())
        row = sparse_index.last_row(self._storage, self.group_id, self._prefix.next_index, last)
        return self._prefix if row is None else row

    def _milestone_before(self, index: int) -> Milestone:
        """The milestone at `index`. Where damage is in the way, all but the offset are upper bounds: what follows is
        not later, and searches begin early rather than late. Raises EntryDamaged where not even the offset is known.
        """
        if index == self._end.next_index:
            return self._end
        milestone = self._row_up_to(index)
        try:
            for header, entry in self._walk(milestone.next_index, index - 1):
                milestone = self._after(milestone, header, entry.data)
        except EntryDamaged:
            offset = self._offset_before(index)
            if offset is None:
                raise
            bound = sparse_index.first_row(self._storage, self.group_id, index, self._last_row_index()) or self._end
            return bound._replace(next_index=index, next_offset=offset)
        return milestone

    def _offset_before(self, index: int) -> int | None:
        known = self._known_offset_before(index)
        if known is None and (before := self._header_at(index - 1)) is not None:
            known = before.next_offset
        if known is None and (at := self._header_at(index)) is not None:
            known = at.base_offset
        return known

    def _upto_where(self, holds: Callable[[Milestone], bool]) -> LogIndex:
        first, last = self._prefix.next_index, min(self._end.next_index - 1, self._last_row_index())
        row = sparse_index.last_row_where(self._storage, self.group_id, first, last, holds)
        return LogIndex((self._prefix if row is None else row).next_index - 1)

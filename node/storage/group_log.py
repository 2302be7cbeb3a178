"""The log of one group in the shared storage: what the Raft core reads, and what the node appends, cuts and looks up.

Lifecycle. Opening reads the few rows that say where the log begins and ends, and the entries behind the last
milestone, all checked. `append`, `truncate`, `compact` and `install` change memory at once and put the same change into
a batch that the node writes at the end of its loop turn.

Rules for the caller: a group's changes go into one batch until that is written; then into another. Between the change
and the write everything may be read: entries of the open batch are always in memory.

In memory are the term table, the end of the log, and the newest entries, up to `tail_bytes_max` (2 MiB unless told; the
entries of the open batch beyond that). Older entries are read from storage in the calling thread, except records for
consumers, which the node reads elsewhere: `plan_read` here, `group_read.read_records` in a thread.

Not safe for use from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final
from weakref import ReferenceType, ref

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage import sparse_index
from quorumlog.node.storage.entry import EntryHeader, decode_header
from quorumlog.node.storage.epochs import EpochTable
from quorumlog.node.storage.group_read import MaxTimestamp, ReadPlan, find_offset, find_time, read_entries, walk
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, group_range, index_of_log_key, log_key
from quorumlog.node.storage.sparse_index import BYTES_PER_ROW, ENTRIES_PER_ROW, Milestone
from quorumlog.node.storage.tail_cache import TailCache
from quorumlog.node.storage.timestamps import max_timestamp_of
from quorumlog.proto import internal_pb2
from quorumlog.raft.types import Entry, LogIndex, Term

TAIL_BYTES_MAX_DEFAULT: Final = 2 << 20


class GroupLog:
    """One group's log; implements `quorumlog.raft.LogReader`. Opening raises StorageCorrupt where rows contradict.

    `tail_bytes_max` may be changed at any time and takes effect with the next append.
    """

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
        self._prefix_term, self._prefix = sparse_index.read_prefix(storage, group_id)
        self._epochs = EpochTable(storage, group_id)
        last = self._stored_last_index()
        self._end = self._row_up_to(last)
        self._row = self._end
        self._tail = TailCache(self._end.next_index, self._end.next_offset, self._end.max_timestamp_ms)
        self._load_tail(last)

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

        Entries older than the cached tail are read from storage here and now, up to that size; such an answer ends
        where the tail begins. Raises StorageCorrupt.
        """
        assert self._prefix.next_index <= first <= last < self._end.next_index, f"no entries {first} to {last}"
        if first >= self._tail.first_index:
            return self._tail.slice(first, last, size_bytes_max)
        return read_entries(self._storage, self.group_id, first, min(last, self._tail.first_index - 1), size_bytes_max)

    # --- changes ---

    def append(self, batch: WriteBatch, entries: Sequence[Entry]) -> None:
        """Add `entries`, which follow the last one (indexes, offsets, terms: asserted), to the log and to `batch`."""
        self._begin(batch)
        group_id, end = self.group_id, self._end
        for entry in entries:
            index, data = entry.index, entry.data
            header = decode_header(data)
            assert header.group_id == group_id, f"entry of group {header.group_id} for group {group_id}"
            assert index == header.index == end.next_index, f"entry {index} ({header.index}) after {end.next_index - 1}"
            assert header.term == entry.term, f"entry {index}: term {entry.term} around, {header.term} inside"
            assert header.base_offset == end.next_offset, f"entry {index}: {header.base_offset}, not {end.next_offset}"
            if header.term != self._epochs.last_term:
                self._epochs.add(batch, header.term, index, header.base_offset)
            row = self._row
            if index - row.next_index >= ENTRIES_PER_ROW or end.size_bytes - row.size_bytes >= BYTES_PER_ROW:
                sparse_index.put_row(batch, group_id, end)
                self._row = end
            batch.put(Family.LOG, log_key(group_id, index), data)
            end = self._after(end, header, data)
            self._tail.append(entry, end.next_offset, end.max_timestamp_ms)
            self._end = end

    def truncate(self, batch: WriteBatch, since: LogIndex) -> None:
        """Drop the entries from `since` (inclusive) to the end; nothing to do when there are none. Reads a few
        entries.
        """
        assert since >= self._prefix.next_index, f"truncating at {since} a log that begins at {self._prefix.next_index}"
        last = self._end.next_index - 1
        if since > last:
            return
        self._begin(batch)
        self._cuts += 1
        end = self._milestone_before(since)
        batch.delete_range(Family.LOG, log_key(self.group_id, since), log_key(self.group_id, last + 1))
        sparse_index.delete_rows(batch, self.group_id, since, last)
        self._rows_stale_from = min(self._rows_stale_from, since)
        self._epochs.truncate(batch, since)
        if since >= self._tail.first_index:
            self._tail.truncate(since)
        else:
            self._tail = TailCache(end.next_index, end.next_offset, end.max_timestamp_ms)
        self._end = end
        self._row = self._row_up_to(since)

    def compact(self, batch: WriteBatch, upto: LogIndex) -> None:
        """Drop the entries up to `upto` (inclusive); nothing to do when they are gone. The space is given back later.

        Reads a few entries. `storage.reclaim` over `reclaimable()` gives the space back at once.
        """
        first = self._prefix.next_index
        if upto < first:
            return
        term = self.term(upto)
        assert term is not None, f"compacting up to {upto} a log that ends at {self._end.next_index - 1}"
        self._begin(batch)
        self._cuts += 1
        prefix = self._milestone_before(upto + 1)
        sparse_index.put_prefix(batch, self.group_id, term, prefix)
        batch.delete_range(Family.LOG, log_key(self.group_id, first), log_key(self.group_id, upto + 1))
        sparse_index.delete_rows(batch, self.group_id, first, upto)
        self._epochs.compact(batch, prefix.next_index)
        self._tail.drop_before(prefix.next_index)
        self._prefix, self._prefix_term = prefix, term
        if self._row.next_index < prefix.next_index:
            self._row = prefix

    def install(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> None:
        """Replace the whole log, damaged or not, by one that begins behind `snapshot.index` and has no entry yet.

        Afterwards `first_index() == snapshot.index + 1`, `last_index() == snapshot.index` with the snapshot's term, and
        `log_end_offset == first_offset == snapshot.next_offset`. The epoch table begins with the snapshot's term: an
        older epoch contradicts nothing. `snapshot.state`, `snapshot.configuration` and the caller's own rows are the
        caller's to put into the same batch.
        """
        self._begin(batch)
        self._cuts += 1
        group_id = self.group_id
        prefix = sparse_index.milestone_of(snapshot)
        for family in (Family.LOG, Family.INDEX):
            batch.delete_range(family, *group_range(group_id))
        sparse_index.put_prefix(batch, group_id, snapshot.term, prefix)
        self._epochs.begin_at(batch, snapshot.term, snapshot.index, snapshot.next_offset)
        self._rows_stale_from = min(self._rows_stale_from, prefix.next_index)
        self._prefix_term = snapshot.term
        self._prefix = self._row = self._end = prefix
        self._tail = TailCache(prefix.next_index, prefix.next_offset, prefix.max_timestamp_ms)

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

    def still_holds(self, plan: ReadPlan) -> bool:
        """Whether what the plan may read was retained until now."""
        return self._cuts == plan.cuts

    def reclaimable(self) -> tuple[bytes, bytes]:
        """Start and exclusive end of the keys that compaction has deleted, for `storage.reclaim(Family.LOG, ...)`."""
        return log_key(self.group_id, 0), log_key(self.group_id, self._prefix.next_index)

    # --- inside ---

    def _begin(self, batch: WriteBatch) -> None:
        if self._open_batch is not None and self._open_batch() is batch:
            return
        self._open_batch = ref(batch)
        self._rows_stale_from = INDEX_MAX
        self._tail.trim(self.tail_bytes_max)  # only now is all that is cached written as well

    def _after(self, milestone: Milestone, header: EntryHeader, data: bytes) -> Milestone:
        timestamp_ms = self._max_timestamp(header, data) if header.count else sparse_index.TIME_MIN
        return milestone.after(header, timestamp_ms, len(data))

    def _walk(self, first: int, last: int) -> Iterator[tuple[EntryHeader, Entry]]:
        """Entries from storage, and from memory where they are there; both bounds inclusive."""
        split = self._tail.first_index
        cached = self._tail.slice(max(first, split), last, INDEX_MAX) if last >= split else []
        return chain(
            walk(self._storage, self.group_id, first, min(last, split - 1)),
            ((decode_header(entry.data), entry) for entry in cached),
        )

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
        if index == self._end.next_index:
            return self._end
        milestone = self._row_up_to(index)
        for header, entry in self._walk(milestone.next_index, index - 1):
            milestone = self._after(milestone, header, entry.data)
        return milestone

    def _upto_where(self, holds: Callable[[Milestone], bool]) -> LogIndex:
        first, last = self._prefix.next_index, min(self._end.next_index - 1, self._last_row_index())
        row = sparse_index.last_row_where(self._storage, self.group_id, first, last, holds)
        return LogIndex((self._prefix if row is None else row).next_index - 1)

    # --- opening ---

    def _stored_last_index(self) -> int:
        start, end = log_key(self.group_id, self._prefix.next_index), group_range(self.group_id)[1]
        for key, _ in self._storage.scan(Family.LOG, start, end, reverse=True, limit=1):
            return index_of_log_key(key)
        return self._prefix.next_index - 1

    def _load_tail(self, last: int) -> None:
        first = self._prefix.next_index
        for header, _ in walk(self._storage, self.group_id, first, min(first, last)):
            self._check_joins(header, self._prefix)
        term = self._prefix_term
        for header, entry in walk(self._storage, self.group_id, self._end.next_index, last):
            self._check_joins(header, self._end)
            self._end = self._after(self._end, header, entry.data)
            self._tail.append(entry, self._end.next_offset, self._end.max_timestamp_ms)
            term = header.term
        self._tail.trim(self.tail_bytes_max)
        if self._epochs.last_term != term or self._epochs.last_first_index > last:
            raise StorageCorrupt(
                f"the log of group {self.group_id} ends at entry {last} of term {term}, its term table at term "
                f"{self._epochs.last_term} from entry {self._epochs.last_first_index}: the replica must be repaired "
                "from its peers"
            )

    def _check_joins(self, header: EntryHeader, before: Milestone) -> None:
        if header.base_offset != before.next_offset:
            raise StorageCorrupt(
                f"entry {header.index} of group {self.group_id} begins at offset {header.base_offset}, the rows before "
                f"it end at {before.next_offset}: the replica must be repaired from its peers"
            )


def delete_group(batch: WriteBatch, group_id: int) -> None:
    """Delete everything that the group has in storage: log, indexes, folds and rows."""
    start, end_exclusive = group_range(group_id)
    for family in Family:
        batch.delete_range(family, start, end_exclusive)

"""The log of one group in the shared storage: what the Raft core reads, and what the node appends, cuts and looks up.

Lifecycle. Opening reads the few rows that say where the log begins and ends, and the entries behind the last
milestone, all checked (`log_opening`). What can be asked then is in `log_view`. `append`, `truncate`, `compact`,
`install` and `mend` change memory at once and put the same change into a batch that the node writes at the end of its
loop turn.

Damage. An entry that cannot be read is noted in `damaged`, whoever meets it: opening, a read here, or a thread
(`note_damage`). Reading it raises EntryDamaged, everything else is served, and where the log begins and ends does not
change. What another replica has under the same index and term takes its place: `mend`. A log whose beginning or end
cannot be told does not open: LogLost. `forget_log` lets it begin anew.

Rules for the caller: a group's changes go into one batch until that is written; then into another. Between the change
and the write everything may be read: entries of the open batch are always in memory.

Not safe for use from several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ref

from quorumlog.node.errors import EntryCorrupt, UnknownEntryKind
from quorumlog.node.storage import log_ends, sparse_index
from quorumlog.node.storage.entry import check_entry, decode_header
from quorumlog.node.storage.interface import Family, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, MetaRow, group_range, log_key, meta_key
from quorumlog.node.storage.log_ends import LastRow
from quorumlog.node.storage.log_view import LogView
from quorumlog.node.storage.sparse_index import BYTES_PER_ROW, ENTRIES_PER_ROW, Milestone
from quorumlog.node.storage.tail_cache import TailCache
from quorumlog.proto import internal_pb2
from quorumlog.raft.types import Entry, LogIndex, Term


class GroupLog(LogView):
    """One group's log; implements `quorumlog.raft.LogReader`. Opening raises LogLost, UnknownEntryKind, StorageFailed.

    `tail_bytes_max` may be changed at any time and takes effect with the next append.
    """

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
        self._put_last(batch)

    def truncate(self, batch: WriteBatch, since: LogIndex) -> None:
        """Drop the entries from `since` (inclusive) to the end; nothing to do when there are none. Reads a few entries.

        Raises EntryDamaged, with nothing changed, when entries around `since` must be mended first.
        """
        assert since >= self._prefix.next_index, f"truncating at {since} a log that begins at {self._prefix.next_index}"
        last = self._end.next_index - 1
        if since > last:
            return
        end = self._milestone_before(since)
        self._begin(batch)
        self._cuts += 1
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
        self._forget_damage(self._prefix.next_index, since)
        self._put_last(batch)

    def compact(self, batch: WriteBatch, upto: LogIndex) -> None:
        """Drop the entries up to `upto` (inclusive); nothing to do when they are gone. The space is given back later.

        Reads a few entries. `storage.reclaim` over `reclaimable()` gives the space back at once. Raises EntryDamaged,
        with nothing changed, when entries around `upto` must be mended first.
        """
        first = self._prefix.next_index
        if upto < first:
            return
        term = self.term(upto)
        assert term is not None, f"compacting up to {upto} a log that ends at {self._end.next_index - 1}"
        self._drop_before(batch, self._milestone_before(upto + 1), term)

    def begin_behind(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> None:
        """Drop the entries up to that of a snapshot of this very log, without reading any: they may be damaged.

        What is left counts as larger by a little, for the sizes of entries that cannot be read are not known.
        """
        index = LogIndex(snapshot.index)
        assert self.term(index) == snapshot.term, f"a snapshot of another log: {index} is of term {self.term(index)}"
        known = self._end if index + 1 == self._end.next_index else self._row_up_to(index + 1)
        prefix = log_ends.milestone_of(snapshot)._replace(size_bytes=known.size_bytes)
        self._drop_before(batch, prefix, Term(snapshot.term))

    def _drop_before(self, batch: WriteBatch, prefix: Milestone, term: Term) -> None:
        first, upto = self._prefix.next_index, prefix.next_index - 1
        self._begin(batch)
        self._cuts += 1
        log_ends.put_prefix(batch, self.group_id, term, prefix)
        batch.delete_range(Family.LOG, log_key(self.group_id, first), log_key(self.group_id, upto + 1))
        sparse_index.delete_rows(batch, self.group_id, first, upto)
        self._epochs.compact(batch, prefix.next_index)
        self._tail.drop_before(prefix.next_index)
        self._prefix, self._prefix_term = prefix, term
        if self._row.next_index < prefix.next_index:
            self._row = prefix
        self._forget_damage(prefix.next_index, self._end.next_index)
        self._put_last(batch)

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
        prefix = log_ends.milestone_of(snapshot)
        for family in (Family.LOG, Family.INDEX):
            batch.delete_range(family, *group_range(group_id))
        log_ends.put_prefix(batch, group_id, snapshot.term, prefix)
        self._epochs.begin_at(batch, snapshot.term, snapshot.index, snapshot.next_offset)
        self._rows_stale_from = min(self._rows_stale_from, prefix.next_index)
        self._prefix_term = snapshot.term
        self._prefix = self._row = self._end = prefix
        self._tail = TailCache(prefix.next_index, prefix.next_offset, prefix.max_timestamp_ms)
        self._forget_damage(prefix.next_index, prefix.next_index)
        self._put_last(batch)

    # --- damage ---

    def mend(self, batch: WriteBatch, entries: Sequence[Entry]) -> list[LogIndex]:
        """Put entries that another replica sent in the place of damaged ones; returns the indexes of those.

        What is not known to be damaged is left alone. So is, and stays damaged, what does not fit: its checks, its term
        (index and term identify an entry), or its offsets between those of its neighbours. A neighbour that contradicts
        an entry of the right term is noted as damaged itself. Nothing is ever cut. Reads two entries for each.

        `entries` has them at once; lookups and reads by offset or time once the batch is written.
        """
        self._begin(batch)
        mended = []
        for entry in sorted(entries, key=lambda entry: entry.index):
            if entry.index in self._damaged and self._fits(entry):
                batch.put(Family.LOG, log_key(self.group_id, entry.index), entry.data)
                self._mended[entry.index] = entry
                self._damaged.remove(entry.index)
                mended.append(entry.index)
        self._put_last(batch)
        return mended

    # --- inside ---

    def _begin(self, batch: WriteBatch) -> None:
        if self._open_batch is not None and self._open_batch() is batch:
            return
        self._open_batch = ref(batch)
        self._rows_stale_from = INDEX_MAX
        self._tail.trim(self.tail_bytes_max)  # only now is all that is cached written as well
        self._mended.clear()
        if self._epochs_rebuilt:
            self._epochs.rewrite(batch)
            self._epochs_rebuilt = False

    def _put_last(self, batch: WriteBatch) -> None:
        """Every change of the log ends with this: its end, and its beginning where that was never written."""
        if not self._prefix_stored:
            log_ends.put_prefix(batch, self.group_id, self._prefix_term, self._prefix)
            self._prefix_stored = True
        log_ends.put_last(batch, self.group_id, LastRow(self._epochs.last_term, self._end, self._epochs.digest))

    def _forget_damage(self, first: int, end: int) -> None:
        """The log now spans `first` to `end` (exclusive)."""
        self._damaged = {index for index in self._damaged if first <= index < end}
        self._mended = {index: entry for index, entry in self._mended.items() if first <= index < end}

    def _fits(self, entry: Entry) -> bool:
        index = entry.index
        try:
            header = check_entry(entry.data, self.group_id, index)
        except (EntryCorrupt, UnknownEntryKind):
            return False
        if not header.term == entry.term == self.term(index):
            return False
        for neighbour, own, known in (
            (index - 1, header.base_offset, self._known_offset_before(index)),
            (index + 1, header.next_offset, self._known_offset_before(index + 1)),
        ):
            if known is None:
                found = self._header_at(neighbour)
                known = own if found is None else found.next_offset if neighbour < index else found.base_offset
                if known != own:
                    self.note_damage(LogIndex(neighbour))
            if known != own:
                return False
        return True


def delete_group(batch: WriteBatch, group_id: int) -> None:
    """Delete everything that the group has in storage: log, indexes, folds and rows."""
    start, end_exclusive = group_range(group_id)
    for family in Family:
        batch.delete_range(family, start, end_exclusive)


def forget_log(batch: WriteBatch, group_id: int) -> None:
    """Delete log, indexes, folds and configurations of a group whose log is lost: the replica begins anew, in REPAIR.

    What says that it is here, and its term and vote, stays.
    """
    start, end_exclusive = group_range(group_id)
    for family in (Family.LOG, Family.INDEX, Family.STATE):
        batch.delete_range(family, start, end_exclusive)
    for row in (MetaRow.PREFIX, MetaRow.LAST, MetaRow.COMMIT_HINT, MetaRow.CONFIGURATIONS, MetaRow.WHOLE):
        batch.delete(Family.META, meta_key(group_id, row))

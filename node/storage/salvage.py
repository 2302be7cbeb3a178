"""Copying what can be read of a damaged database into a new one, group by group.

What makes it safe. The identity of an entry is its group, index and term, and each entry carries them under a checksum.
Which term belongs to which index the term table says, and the row of the log's end carries the checksum of that table.
So whatever older or deleted versions a broken database brings back: an entry is taken only if the log, as it once
was, had exactly this one there. What is missing stays a damaged entry of the new log, to be fetched from a peer.

Two callers with different rights. A database that opens and is whole, but holds a damaged table, is copied `as whole`:
nothing that was promised is forgotten, replicas that were whole are. From one that does not open, no replica comes out
whole: that only saves the traffic of repairing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from quorumlog.node.errors import EntryCorrupt, EntryDamaged, LogLost, StorageBusy, StorageCorrupt, UnknownEntryKind
from quorumlog.node.storage import log_ends, sparse_index
from quorumlog.node.storage.entry import check_entry
from quorumlog.node.storage.group_log import forget_log
from quorumlog.node.storage.group_read import survey
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.keys import (
    NODE_WIDE,
    MetaRow,
    all_groups_range,
    group_of_key,
    group_range,
    index_of_log_key,
    log_key,
    meta_key,
    state_key,
)
from quorumlog.node.storage.log_ends import LastRow
from quorumlog.node.storage.log_opening import StoredLog, belongs, open_log
from quorumlog.node.storage.sparse_index import BYTES_PER_ROW, ENTRIES_PER_ROW, TIME_MIN
from quorumlog.node.storage.timestamps import max_timestamp_of

_BATCH_BYTES = 1 << 20
_GROUPS_PROBED_MAX = 1 << 20
_REPLICA_ROWS = (MetaRow.HARD_STATE, MetaRow.COMMIT_HINT, MetaRow.CONFIGURATIONS)


@dataclass(slots=True)
class Saved:
    """What a copy brought over."""

    groups: int = 0
    """Replicas with their logs."""
    entries: int = 0
    size_bytes: int = 0
    missing: int = 0
    """Entries that their logs have and that could not be read."""
    lost: dict[int, str] = field(default_factory=dict)
    """Groups whose log could not be told, and why."""

    def in_words(self) -> str:
        """For a finding."""
        words = f"{self.entries} entries ({self.size_bytes} bytes) of {self.groups} replicas were copied"
        if self.missing:
            words += f", {self.missing} damaged ones were not"
        if self.lost:
            words += f"; nothing of groups {', '.join(map(str, sorted(self.lost)))} could be used"
        return words


def copy_database(source: Storage, target: Storage, loose: Iterable[tuple[bytes, bytes]], *, as_whole: bool) -> Saved:
    """Copy all replicas of `source` into the new, empty `target`, synced. Blocks; memory for one slice of entries and
    one fold.

    Args:
        source: what is left; reads of it may fail.
        target: gets everything.
        loose: keys and values found beside `source`, alive or not; see `blob_files`.
        as_whole: `source` is whole, apart from what cannot be read.

    Raises StorageCorrupt when `as_whole` and rows of META cannot be read: what they promised is forgotten;
    UnknownEntryKind; StorageFailed.
    """
    return _Copy(source, target, as_whole=as_whole).run(loose)


class _Copy:
    def __init__(self, source: Storage, target: Storage, *, as_whole: bool) -> None:
        self._source = source
        self._target = target
        self._as_whole = as_whole
        self._batch = target.new_batch()
        self._saved = Saved()

    def run(self, loose: Iterable[tuple[bytes, bytes]]) -> Saved:
        self._copy_row(NODE_WIDE, MetaRow.BORN_UPTO)
        if self._as_whole:
            self._copy_row(NODE_WIDE, MetaRow.OWNER)
        logs: dict[int, StoredLog] = {}
        for group_id in self._groups():
            try:
                if self._copy_row(group_id, MetaRow.REPLICA):
                    logs[group_id] = self._copy_group(group_id)
            except StorageCorrupt as error:
                if self._as_whole and not isinstance(error, LogLost):
                    raise
                self._saved.lost[group_id] = str(error)
                forget_log(self._batch, group_id)
        self._flush()
        for key, value in loose:
            self._take(logs, key, value)
        self._flush()
        for group_id, log in logs.items():
            self._finish_log(group_id, log)
        self._flush()
        self._target.sync()
        return self._saved

    def _groups(self) -> Iterable[int]:
        """Ids of all groups; where META cannot be read through, every id there can be."""
        try:
            return sorted({group_of_key(key) for key, _ in self._source.scan(Family.META, *all_groups_range())})
        except StorageCorrupt:
            if self._as_whole:
                raise
        last = 0
        for family in Family:
            try:
                pairs = self._source.scan(family, *all_groups_range(), reverse=True, limit=1)
            except StorageCorrupt:
                continue
            last = max([last, *(group_of_key(key) for key, _ in pairs)])
        return range(1, min(last, _GROUPS_PROBED_MAX) + 1)

    # --- one group ---

    def _copy_group(self, group_id: int) -> StoredLog:
        """Copy rows, folds and entries of a replica; what makes a log of them comes last. Raises StorageCorrupt."""
        log = open_log(self._source, group_id, max_timestamp_of)
        if not self._as_whole and (log.epochs_rebuilt or log_ends.read_last(self._source, group_id) is None):
            raise LogLost(group_id, "its term table is not the one that its end was written with")
        first, last = log.prefix.next_index, log.end.next_index - 1
        newest_fold = self._copy_folds(group_id, last)
        if newest_fold < first - 1:
            raise LogLost(group_id, f"no state of what came before entry {first} is left")
        for row in _REPLICA_ROWS:
            self._copy_row(group_id, row)
        if self._as_whole:
            self._copy_row(group_id, MetaRow.WHOLE)
        for item in survey(self._source, group_id, first, last):
            if not isinstance(item, EntryDamaged) and belongs(log.epochs, item):
                self._put(Family.LOG, log_key(group_id, item[1].index), item[1].data)
        return log

    def _copy_row(self, group_id: int, row: MetaRow) -> bool:
        value = self._source.get(Family.META, meta_key(group_id, row))
        if value is not None:
            self._put(Family.META, meta_key(group_id, row), value)
        return value is not None

    def _copy_folds(self, group_id: int, last: int) -> int:
        """Copy the folds up to `last`, newest first as far as they can be read; the index of the newest, 0 without."""
        newest = 0
        start, end = group_range(group_id)[0], state_key(group_id, last + 1)
        while True:
            found = []
            with suppress(StorageCorrupt):
                found = self._source.scan(Family.STATE, start, end, reverse=True, limit=1)
            if not found:
                return newest
            end, value = found[0]
            self._put(Family.STATE, end, value)
            newest = max(newest, index_of_log_key(end))

    def _take(self, logs: dict[int, StoredLog], key: bytes, value: bytes) -> None:
        """Take a loose entry if its log has exactly this one and it is not there yet."""
        if len(key) != len(log_key(0, 0)):
            return
        group_id, index = group_of_key(key), index_of_log_key(key)
        log = logs.get(group_id)
        if log is None or not log.prefix.next_index <= index < log.end.next_index:
            return
        try:
            header = check_entry(value, group_id, index)
        except (EntryCorrupt, UnknownEntryKind):
            return
        if log.epochs.term_at(index) == header.term and key == log_key(group_id, index):
            self._put(Family.LOG, key, value)

    def _finish_log(self, group_id: int, log: StoredLog) -> None:
        """Count what has arrived, make milestones along it, and write where the log begins and ends."""
        milestone = row = log.prefix
        for item in survey(self._target, group_id, log.prefix.next_index, log.end.next_index - 1):
            if isinstance(item, EntryDamaged):
                self._saved.missing += 1
                milestone = milestone._replace(next_index=milestone.next_index + 1)
                continue
            header, entry = item
            if milestone.next_offset != header.base_offset:
                milestone = milestone._replace(next_offset=header.base_offset)
            far = milestone.next_index - row.next_index >= ENTRIES_PER_ROW
            if far or milestone.size_bytes - row.size_bytes >= BYTES_PER_ROW:
                sparse_index.put_row(self._batch, group_id, milestone)
                row = milestone
            timestamp_ms = max_timestamp_of(header, entry.data) if header.count else TIME_MIN
            milestone = milestone.after(header, timestamp_ms, len(entry.data))
            self._saved.entries += 1
            self._saved.size_bytes += len(entry.data)
        self._saved.groups += 1
        log.epochs.rewrite(self._batch)
        log_ends.put_prefix(self._batch, group_id, log.prefix_term, log.prefix)
        log_ends.put_last(self._batch, group_id, LastRow(log.epochs.last_term, log.end, log.epochs.digest))
        self._flush()

    # --- writing ---

    def _put(self, family: Family, key: bytes, value: bytes) -> None:
        self._batch.put(family, key, value)
        if self._batch.size_bytes() >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, self._target.new_batch()
        while not batch.is_empty():
            try:
                self._target.write(batch)
                return
            except StorageBusy:
                # Nobody else uses this database: wait until it has tidied up.
                self._target.flush()
                self._target.reclaim(Family.LOG, *all_groups_range())

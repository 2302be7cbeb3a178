"""Term and vote of every group, in an append-only file outside the database.

A vote that is forgotten can be given twice, and then a term has two leaders (Raft section 5.2). Term and vote therefore
stand in the database *and* here, both synced before any message of that term leaves: losing the write-ahead log of
the database never forgets a vote. Rows of replicas that were removed stay, so that a second birth starts from them.

    header, 20 bytes:  "QLVOTES" | version u8 | durable u64 | crc u32
    record, 36 bytes:  group id u64 | term u64 | vote u64 | durable u64 | crc u32        all big-endian

    The CRC-32C covers the record and, as its seed, the position, so a record in a wrong place does not check.
    `durable` is how many records of this file were known to be synced when the record or the header was written.

Torn tail or damage? A power cut may leave any part of what was not yet synced, with holes before sound records. The
two are told apart by `durable`: a record that does not check is damage when any sound record, or the header, says that
its position was synced; otherwise it belongs to the tail that nobody relied on, and the file is cut there. Damage to
the records of the very last sync cannot be told from a torn tail; for those the database answers.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.files import DurableFile, FileSystem
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import MetaRow, all_groups_range, group_and_row_of_meta_key, meta_key
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import NO_NODE, HardState, NodeId, Term

VOTES_NAME = "votes"
VERSION = 1
REWRITE_RECORDS_MIN = 20_000
"""A file shorter than this (about 0.7 MB) is never rewritten."""
REWRITE_RATIO = 4
"""Rewritten when it holds this many times more records than there are groups."""

_MAGIC = b"QLVOTES" + bytes([VERSION])
_RECORD = struct.Struct(">QQQQ")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">8sQ")
_HEADER_BYTES = _HEADER.size + _CRC.size
_RECORD_BYTES = _RECORD.size + _CRC.size
_HARD_STATE = struct.Struct(">BQQ")


class VoteRecord(NamedTuple):
    """Term and vote of one group; `vote` is NO_NODE while none was given in `term`."""

    group_id: int
    term: Term
    vote: NodeId


def merge_hard_states(first: HardState | None, second: HardState | None) -> HardState | None:
    """Return what two sources together know: the higher term wins, and in one term a vote beats none.

    Two different votes in one term are a broken promise, not a merge: asserted.
    """
    if first is None or second is None:
        return first or second
    if first.term != second.term:
        return first if first.term > second.term else second
    assert NO_NODE in (first.vote, second.vote) or first.vote == second.vote, f"two votes in a term: {first}, {second}"
    return first if first.vote != NO_NODE else second


def put_hard_state(batch: WriteBatch, group_id: int, hard_state: HardState) -> None:
    """Add the group's META row to `batch`: version u8, term u64, vote u64."""
    value = _HARD_STATE.pack(VERSION, hard_state.term, hard_state.vote)
    batch.put(Family.META, meta_key(group_id, MetaRow.HARD_STATE), value)


def get_hard_state(storage: Storage, group_id: int) -> HardState | None:
    """Return what the database says of the group's term and vote, None when nothing. Raises StorageCorrupt."""
    value = storage.get(Family.META, meta_key(group_id, MetaRow.HARD_STATE))
    return None if value is None else decode_hard_state(value, group_id)


def hard_states_of(storage: Storage) -> dict[int, HardState]:
    """Return what the database says of every group's term and vote. Raises StorageCorrupt or StorageFailed."""
    states = {}
    for key, value in storage.scan(Family.META, *all_groups_range()):
        group_id, row = group_and_row_of_meta_key(key)
        if row == MetaRow.HARD_STATE:
            states[group_id] = decode_hard_state(value, group_id)
    return states


def decode_hard_state(value: bytes, group_id: int) -> HardState:
    """Return the content of a group's META row. Raises StorageCorrupt."""
    if len(value) != _HARD_STATE.size or value[0] != VERSION:
        raise StorageCorrupt(f"the term and vote of group {group_id} in the database are damaged or of a newer version")
    _, term, vote = _HARD_STATE.unpack(value)
    return HardState(Term(term), NodeId(vote))


def _encode(position: int, record: VoteRecord, durable: int) -> bytes:
    body = _RECORD.pack(record.group_id, record.term, record.vote, durable)
    return body + _CRC.pack(crc32c(body, position))


def _decode(data: bytes, position: int) -> tuple[VoteRecord, int] | None:
    """Return (record, durable) of the record at `position`, None when it does not check."""
    at = _HEADER_BYTES + position * _RECORD_BYTES
    body = data[at : at + _RECORD.size]
    if len(data) < at + _RECORD_BYTES or _CRC.unpack_from(data, at + _RECORD.size)[0] != crc32c(body, position):
        return None
    group_id, term, vote, durable = _RECORD.unpack(body)
    return VoteRecord(group_id, Term(term), NodeId(vote)), durable


def _encode_file(rows: Mapping[int, HardState]) -> bytes:
    """Return a whole file with one record per group. It is written by an atomic replacement, so all is durable."""
    records = (VoteRecord(group_id, state.term, state.vote) for group_id, state in sorted(rows.items()))
    parts = [_encode(position, record, durable=len(rows)) for position, record in enumerate(records)]
    header = _HEADER.pack(_MAGIC, len(rows))
    return b"".join([header, _CRC.pack(crc32c(header)), *parts])


def _decode_file(data: bytes, where: str) -> list[VoteRecord]:
    """Return the records before the torn tail. Raises StorageCorrupt."""
    header = data[: _HEADER.size]
    if not header.startswith(_MAGIC) or data[_HEADER.size : _HEADER_BYTES] != _CRC.pack(crc32c(header)):
        raise StorageCorrupt(f"votes file {where} is damaged or of a newer version: its header does not check")
    # The last piece may be shorter than a record; it never checks.
    count = -(-(len(data) - _HEADER_BYTES) // _RECORD_BYTES)
    decoded = [_decode(data, position) for position in range(count)]
    durable = max((entry[1] for entry in decoded if entry is not None), default=0)
    durable = max(durable, _HEADER.unpack(header)[1])
    records = []
    for entry in decoded:
        if entry is None:
            break
        records.append(entry[0])
    if len(records) < durable:
        raise StorageCorrupt(
            f"votes file {where} is damaged: record {len(records)} of {durable} that were synced does not check"
        )
    return records


class VotesFile:
    """The votes file of an open data folder.

    `append` belongs on the event loop, once per turn with all groups that changed; `sync` in a thread, one at a time,
    and appends may go on beside it.
    """

    def __init__(
        self,
        files: FileSystem,
        file: DurableFile,
        rows: dict[int, HardState],
        records: int,
        rewrite_records_min: int = REWRITE_RECORDS_MIN,
    ) -> None:
        self._files = files
        self._rewrite_records_min = rewrite_records_min
        self._file = file
        self._rows = rows
        self._records = records
        self._durable = records
        self._late: list[VoteRecord] | None = None  # what is appended during a rewrite
        # Guards what append and sync both touch: the handle, the rows and the counts. Never held while a disk syncs.
        self._lock = threading.Lock()
        self.torn_bytes = 0
        """Bytes of a torn tail that opening cut off."""

    @classmethod
    def create(cls, files: FileSystem, rows: Mapping[int, HardState]) -> VotesFile:
        """Make the file with these rows, in place of any other; durable on return. Raises StorageFailed."""
        files.replace(VOTES_NAME, _encode_file(rows))
        return cls(files, files.open(VOTES_NAME), dict(rows), len(rows))

    @classmethod
    def open(cls, files: FileSystem, *, rewrite_records_min: int = REWRITE_RECORDS_MIN) -> VotesFile:
        """Open the file and cut a torn tail. Raises StorageCorrupt when it is missing or damaged, StorageFailed."""
        data, where = files.read(VOTES_NAME), files.describe(VOTES_NAME)
        if data is None:
            raise StorageCorrupt(f"votes file {where} is missing")
        records = _decode_file(data, where)
        file = files.open(VOTES_NAME)
        size_bytes = _HEADER_BYTES + len(records) * _RECORD_BYTES
        if size_bytes < len(data):
            file.truncate(size_bytes)
        # What was found may never have been synced. Synced now, it cannot vanish after somebody has acted on it.
        file.sync()
        votes = cls(files, file, {}, len(records), rewrite_records_min)
        votes.torn_bytes = len(data) - size_bytes
        for record in records:
            votes._remember(record)
        return votes

    def get(self, group_id: int) -> HardState | None:
        """Return the last term and vote of the group, None when it never had any."""
        return self._rows.get(group_id)

    def rows(self) -> dict[int, HardState]:
        """Return the last term and vote of every group, removed ones included."""
        with self._lock:
            return dict(self._rows)

    def append(self, records: Iterable[VoteRecord]) -> None:
        """Write the records, as one piece; durable only after a `sync` that was called later.

        A term never falls and a vote never changes within its term: asserted. Raises StorageFailed.
        """
        with self._lock:
            data = []
            for record in records:
                self._remember(record)
                data.append(_encode(self._records, record, self._durable))
                self._records += 1
                if self._late is not None:
                    self._late.append(record)
            self._file.append(b"".join(data))

    def sync(self) -> None:
        """Make durable every record whose `append` had returned before this call. Blocks. Raises StorageFailed.

        Now and then it rewrites the file instead, which is as durable and keeps it short.
        """
        with self._lock:
            file, records = self._file, self._records
            rewrite = records >= max(self._rewrite_records_min, REWRITE_RATIO * len(self._rows))
        if rewrite:
            self._rewrite()
        else:
            file.sync()
            with self._lock:
                self._durable = records

    def close(self) -> None:
        """Close the file, without a sync."""
        self._file.close()

    def _remember(self, record: VoteRecord) -> None:
        old = self._rows.get(record.group_id)
        new = HardState(record.term, record.vote)
        if old is not None:
            assert new.term >= old.term, f"group {record.group_id}: the term falls from {old.term} to {new.term}"
            assert new.term > old.term or old.vote in (NO_NODE, new.vote), f"group {record.group_id}: a second vote"
        self._rows[record.group_id] = new

    def _rewrite(self) -> None:
        """Write one record per group beside the file, then take its place.

        The rows are taken under the lock, so they include every append before this sync. What is appended while the
        new file is being synced goes to the old one, and to the new one as well before it takes over; like every later
        append it waits for the next sync.
        """
        with self._lock:
            rows, self._late = dict(self._rows), []
        beside = VOTES_NAME + ".new"
        new = self._files.create(beside)
        new.append(_encode_file(rows))
        new.sync()
        with self._lock:
            late, self._late = self._late, None
            new.append(b"".join(_encode(at, record, len(rows)) for at, record in enumerate(late, len(rows))))
            self._files.rename(beside, VOTES_NAME)
            old, self._file = self._file, new
            self._records, self._durable = len(rows) + len(late), len(rows)
        old.close()
        self._files.sync_folder()

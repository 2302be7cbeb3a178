"""Where a log begins and where it ends: two small rows, so that damage to entries never changes the shape of the log.

    META row PREFIX -> term u64 | milestone (sparse_index: index u64 and its four values)
    META row LAST   -> term u64 | milestone | epochs_crc u32

PREFIX is the milestone at the first retained entry, with the term of the entry before it. LAST is the milestone behind
the last entry, with that entry's term and the CRC-32C of the term table. It is written with every change of the
log: were the end looked up among the entries, an unreadable block would pass for it. In one write of 1,000 entries of
one group the row costs 1 % of the time, and about 1 us for each group that appends.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from quorumlog.node.errors import LogLost
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import MetaRow, meta_key
from quorumlog.node.storage.sparse_index import LOG_BEGINNING, TIME_MIN, Milestone
from quorumlog.proto import internal_pb2

_PREFIX: Final = struct.Struct(">QQqqqQ")
_LAST: Final = struct.Struct(">QQqqqQI")


class LastRow(NamedTuple):
    """The end of a log."""

    term: int
    """Of the last entry; of the one before the log where there is none."""
    milestone: Milestone
    epochs_crc: int
    """CRC-32C of the term table (`EpochTable.digest`)."""


def milestone_of(snapshot: internal_pb2.GroupSnapshot) -> Milestone:
    """The milestone behind `snapshot.index`, of a log that has nothing before it: its sizes are counted from here."""
    return Milestone(
        next_index=snapshot.index + 1,
        next_offset=snapshot.next_offset,
        max_timestamp_ms=snapshot.max_timestamp_ms if snapshot.HasField("max_timestamp_ms") else TIME_MIN,
        append_time_ms=snapshot.append_time_ms,
        size_bytes=0,
    )


def put_prefix(batch: WriteBatch, group_id: int, term: int, milestone: Milestone) -> None:
    """Write the PREFIX row: the log begins at `milestone.next_index`, and `term` is that of the entry before it."""
    batch.put(Family.META, meta_key(group_id, MetaRow.PREFIX), _PREFIX.pack(term, *milestone))


def read_prefix(storage: Storage, group_id: int) -> tuple[int, Milestone] | None:
    """The PREFIX row; None for a log that never had an entry, or that an earlier release began and never cut.

    Raises StorageCorrupt (LogLost for a row that is not one), StorageFailed.
    """
    value = storage.get(Family.META, meta_key(group_id, MetaRow.PREFIX))
    if value is None:
        return None
    try:
        term, *milestone = _PREFIX.unpack(value)
    except struct.error as error:
        raise LogLost(group_id, f"its PREFIX row has {len(value)} bytes") from error
    if milestone[0] < 1:
        raise LogLost(group_id, f"its PREFIX row says that it begins at entry {milestone[0]}")
    return term, Milestone(*milestone)


def put_last(batch: WriteBatch, group_id: int, last: LastRow) -> None:
    """Write the LAST row, in the batch with the change that it tells."""
    batch.put(Family.META, meta_key(group_id, MetaRow.LAST), _LAST.pack(last.term, *last.milestone, last.epochs_crc))


def read_last(storage: Storage, group_id: int) -> LastRow | None:
    """The LAST row; None where an earlier release wrote last, or nobody has.

    Raises StorageCorrupt (LogLost for a row that is not one), StorageFailed.
    """
    value = storage.get(Family.META, meta_key(group_id, MetaRow.LAST))
    if value is None:
        return None
    try:
        term, *milestone, epochs_crc = _LAST.unpack(value)
    except struct.error as error:
        raise LogLost(group_id, f"its LAST row has {len(value)} bytes") from error
    return LastRow(term, Milestone(*milestone), epochs_crc)


def read_ends(storage: Storage, group_id: int) -> tuple[int, Milestone, LastRow | None]:
    """(term before the log, its beginning, its end if a row tells). Raises LogLost, StorageFailed."""
    prefix, last = read_prefix(storage, group_id), read_last(storage, group_id)
    if prefix is None:
        if last is not None:
            raise LogLost(group_id, "its PREFIX row is gone")
        return 0, LOG_BEGINNING, None
    if last is not None and last.milestone.next_index < prefix[1].next_index:
        raise LogLost(group_id, f"it would begin at {prefix[1].next_index} and end before {last.milestone.next_index}")
    return *prefix, last

"""Reading committed records of one partition: what is in memory at once, the rest through a reader off the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from quorumlog.node.broker.directory import Directory, Found
from quorumlog.node.broker.limits import OPEN_LIMITS
from quorumlog.node.errors import EntryDamaged, StorageCorrupt
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import HEADER_BYTES, decode_header
from quorumlog.node.storage.group_read import ReadPlan, read_records
from quorumlog.node.storage.interface import Storage
from quorumlog.proto import client_pb2
from quorumlog.proto.batch import to_wire
from quorumlog.proto.compression import CodecUnavailable
from quorumlog.proto.errors import make_error
from quorumlog.proto.invalid import BatchInvalid
from quorumlog.proto.rows import batch_to_rows
from quorumlog.raft import Entry, NotLeader

READ_SIZE_BYTES_MAX: Final = 8 << 20
"""Bytes of one read of one partition, whatever the client asks for."""

ROWS_SIZE_BYTES_MAX: Final = 16 << 20
"""Of one batch as rows, which may be a thousand times its size as stored; with what may stand before it in an answer it
fits into one message."""

Done = Callable[[client_pb2.FetchedPartition], None]


T = TypeVar("T")


class ColdReader(Protocol):
    """Reads off the loop: threads in the server, virtual time in a simulator."""

    def submit(self, read: Callable[[Storage], T], done: Callable[[T], None]) -> None:
        """Call `read`, then `done` with what it gave from the driving thread. Whatever `read` raises ends the node."""


class PartitionReader:
    """Reads for fetches and subscriptions alike."""

    def __init__(self, directory: Directory, cold: ColdReader) -> None:
        self._directory = directory
        self._cold = cold

    def read(
        self,
        wanted: client_pb2.FetchPartition,
        *,
        size_bytes_max: int,
        any_replica: bool,
        fetch_format: int,
        done: Done,
    ) -> None:
        """Call `done`, perhaps at once, with the records from the wanted offset on, with none when there is none yet,
        or with an error. With `size_bytes_max` 0 no records are read.
        """
        self._directory.look_up(
            wanted.topic_id,
            wanted.topic,
            wanted.partition,
            lambda found: self._read(found, wanted, size_bytes_max, any_replica, fetch_format, done),
        )

    def _read(
        self,
        found: Found | client_pb2.Error,
        wanted: client_pb2.FetchPartition,
        size_bytes_max: int,
        any_replica: bool,
        fetch_format: int,
        done: Done,
    ) -> None:
        if isinstance(found, client_pb2.Error):
            done(_failed(wanted, found))
            return
        replica = found.replica
        if replica is None or replica.partition is None or not (replica.leads or any_replica):
            done(_failed(wanted, self._directory.not_leader(found)))
            return
        if replica.stopped is not None:
            done(_failed(wanted, make_error(client_pb2.STORAGE_CORRUPT, replica.stopped)))
            return
        if not self._in_bounds(replica, wanted):
            again = partial(
                self.read,
                wanted,
                size_bytes_max=size_bytes_max,
                any_replica=any_replica,
                fetch_format=fetch_format,
                done=done,
            )
            self._answer_outside(found, replica, wanted, done, again)
            return
        limit = min(size_bytes_max, wanted.max_bytes or size_bytes_max, READ_SIZE_BYTES_MAX)
        high_watermark = replica.high_watermark
        if wanted.offset == high_watermark or limit == 0:
            done(_answer(found, replica, (), wanted.offset, fetch_format, limit))
            return
        entries = replica.log.cached_records(wanted.offset, high_watermark, limit)
        if entries is not None:
            done(_answer(found, replica, entries, wanted.offset, fetch_format, limit))
            return
        self._read_cold(found, replica, wanted, limit, fetch_format, done)

    def _read_cold(
        self,
        found: Found,
        replica: Replica,
        wanted: client_pb2.FetchPartition,
        limit: int,
        fetch_format: int,
        done: Done,
    ) -> None:
        plan = replica.log.plan_read(wanted.offset, replica.high_watermark, limit)

        def on_read(result: Sequence[Entry] | StorageCorrupt) -> None:
            again = self._directory.find(found.topic.topic_id, "", found.partition.partition)
            if not isinstance(result, StorageCorrupt):
                done(_answer(found, replica, result, wanted.offset, fetch_format, limit))
            elif isinstance(again, client_pb2.Error):
                done(_failed(wanted, again))  # the topic was deleted during the read, its rows with it
            elif replica.log.still_holds(plan) and isinstance(result, EntryDamaged) and len(replica.members) > 1:
                replica.note_damage(result.index)
                self._directory.touch(replica)
                done(_failed(wanted, make_error(client_pb2.NOT_YET_AVAILABLE, str(result))))
            elif replica.log.still_holds(plan):
                done(_failed(wanted, make_error(client_pb2.STORAGE_CORRUPT, str(result))))
            else:
                done(_failed(wanted, make_error(client_pb2.NOT_YET_AVAILABLE, "the log was trimmed during the read")))

        self._cold.submit(partial(_read_or_say, plan=plan), on_read)

    def _in_bounds(self, replica: Replica, wanted: client_pb2.FetchPartition) -> bool:
        """Whether the offset may be read or awaited now."""
        partition = replica.partition
        assert partition is not None
        return (
            partition.log_start_offset <= wanted.offset <= replica.high_watermark
            and _divergence(replica, wanted) is None
        )

    def _answer_outside(
        self,
        found: Found,
        replica: Replica,
        wanted: client_pb2.FetchPartition,
        done: Done,
        again: Callable[[], None],
    ) -> None:
        """Say why the offset cannot be read. What speaks against the reader is said only where it is certain: by what
        is committed here, or by a leader that has proved to be one just now.
        """
        partition = replica.partition
        assert partition is not None
        if partition.log_start_offset <= wanted.offset:
            # Whether the logs part is asked before whether there is more: after a divergence a larger offset is no
            # news.
            certain = _divergence(replica, wanted, committed_only=True)
            if certain is not None:
                done(_failed(wanted, certain))
                return
        if replica.leads:
            self._confirm_range(found, replica, wanted, done, again)
            return
        behind = make_error(
            client_pb2.NOT_YET_AVAILABLE,
            f"offset {wanted.offset} is outside of what this replica of {found.topic.name!r} partition "
            f"{wanted.partition} has ({partition.log_start_offset} to {replica.high_watermark})",
        )
        done(_failed(wanted, behind))

    def _confirm_range(
        self,
        found: Found,
        replica: Replica,
        wanted: client_pb2.FetchPartition,
        done: Done,
        again: Callable[[], None],
    ) -> None:
        """OUT_OF_RANGE and what only the open end of a log contradicts are said by a leader that has proved to be one
        just now, and has applied everything that was committed before.
        """

        def on_confirmed(leads: bool) -> None:
            partition = replica.partition
            assert partition is not None
            if not leads:
                done(_failed(wanted, self._directory.not_leader(found)))
                return
            if partition.log_start_offset <= wanted.offset:
                diverged = _divergence(replica, wanted)
                if diverged is not None:
                    done(_failed(wanted, diverged))
                    return
            if partition.log_start_offset <= wanted.offset <= replica.high_watermark:
                # It came into range while the proof was under way: what it wants may be there already.
                again()
            elif partition.log_start_offset <= wanted.offset <= replica.log_end_offset:
                uncommitted = f"offset {wanted.offset} is appended but not committed yet"
                done(_failed(wanted, make_error(client_pb2.NOT_YET_AVAILABLE, uncommitted)))
            else:
                done(_failed(wanted, _out_of_range(found, replica, wanted)))

        try:
            replica.read_index(on_confirmed)
        except NotLeader:
            done(_failed(wanted, self._directory.not_leader(found)))
            return
        self._directory.touch(replica)


def _read_or_say(storage: Storage, plan: ReadPlan) -> Sequence[Entry] | StorageCorrupt:
    try:
        return read_records(storage, plan)
    except StorageCorrupt as error:
        return error


def _divergence(
    replica: Replica, wanted: client_pb2.FetchPartition, *, committed_only: bool = False
) -> client_pb2.Error | None:
    """DIVERGED where the log contradicts what the reader has read: the highest epoch known at or below the reader's
    ends before the reader's position.

    With `committed_only` the end of that epoch must be committed here. Otherwise it may be the end of a log that is
    merely behind, or of a tail that will be replaced: a deposed leader and a follower have both.
    """
    if wanted.offset == 0 or not wanted.HasField("last_leader_epoch"):
        return None
    known = replica.log.epoch_end_offset(wanted.last_leader_epoch)
    if known is None:
        return None
    epoch, end_offset = known
    if end_offset >= wanted.offset or (committed_only and end_offset >= replica.high_watermark):
        return None
    return make_error(
        client_pb2.DIVERGED,
        f"a record of leader epoch {wanted.last_leader_epoch} before offset {wanted.offset} of topic "
        f"{replica.descriptor.topic!r} partition {wanted.partition} was read, but here epoch {epoch} ends at offset "
        f"{end_offset}",
        end_offset=end_offset,
        leader_epoch=epoch,
    )


def _out_of_range(found: Found, replica: Replica, wanted: client_pb2.FetchPartition) -> client_pb2.Error:
    assert replica.partition is not None
    start, end = replica.partition.log_start_offset, replica.high_watermark
    return make_error(
        client_pb2.OUT_OF_RANGE,
        f"offset {wanted.offset} of topic {found.topic.name!r} partition {wanted.partition} is not between {start} and "
        f"{end}",
        log_start_offset=start,
        log_end_offset=end,
    )


def _failed(wanted: client_pb2.FetchPartition, error: client_pb2.Error) -> client_pb2.FetchedPartition:
    return client_pb2.FetchedPartition(
        topic_id=wanted.topic_id, topic=wanted.topic, partition=wanted.partition, error=error
    )


def _answer(
    found: Found, replica: Replica, entries: Sequence[Entry], offset: int, fetch_format: int, size_bytes_max: int
) -> client_pb2.FetchedPartition:
    assert replica.partition is not None
    answer = client_pb2.FetchedPartition(
        topic_id=found.topic.topic_id,
        topic=found.topic.name,
        partition=found.partition.partition,
        high_watermark=replica.high_watermark,
        log_start_offset=replica.partition.log_start_offset,
        last_stable_offset=replica.high_watermark,
        leader_epoch=replica.raft.term,
    )
    if fetch_format == client_pb2.ROWS:
        _add_rows(answer, entries, offset, size_bytes_max)
    else:
        answer.batches.extend([_to_wire(entry) for entry in entries])
    return answer


def _add_rows(answer: client_pb2.FetchedPartition, entries: Sequence[Entry], offset: int, size_bytes_max: int) -> None:
    """Unpack batches, from `offset` on, until the rows have reached `size_bytes_max`. What cannot be unpacked is an
    error where it would be the first.
    """
    where = f"a batch of topic {answer.topic!r} partition {answer.partition} "
    size_bytes = 0
    for entry in entries:
        error = None
        rows: list[client_pb2.Record] = []
        try:
            rows = [row for row in batch_to_rows(_to_wire(entry), OPEN_LIMITS) if row.offset >= offset]
        except BatchInvalid as invalid:
            error = make_error(invalid.code, where + f"cannot be unpacked: {invalid.message}", hint=invalid.hint)
        except CodecUnavailable as unavailable:
            error = make_error(client_pb2.UNSUPPORTED_VERSION, where + f"cannot be unpacked: {unavailable}")
        batch_bytes = sum(row.ByteSize() for row in rows)
        if batch_bytes > ROWS_SIZE_BYTES_MAX:
            message = where + f"has {batch_bytes} bytes as rows, and {ROWS_SIZE_BYTES_MAX} fit into an answer"
            error = make_error(client_pb2.RECORD_TOO_LARGE, message, hint="fetch it in the format BATCHES")
        if error is not None:
            if not size_bytes:
                answer.error.CopyFrom(error)
            return
        answer.rows.records.extend(rows)
        size_bytes += batch_bytes
        if size_bytes >= size_bytes_max:
            return


def _to_wire(entry: Entry) -> client_pb2.RecordBatch:
    header = decode_header(entry.data)
    return to_wire(
        memoryview(entry.data)[HEADER_BYTES:],
        base_offset=header.base_offset,
        leader_epoch=header.term,
        append_time_ms=header.append_time_ms,
        crc=header.batch_crc,
    )

"""ListOffsets: earliest, latest, and the first record at or after a time."""

from __future__ import annotations

from collections.abc import Callable

from quorumlog.node.broker.directory import Directory, Found
from quorumlog.node.broker.limits import OPEN_LIMITS
from quorumlog.node.errors import EntryDamaged, StorageCorrupt
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import HEADER_BYTES, decode_header
from quorumlog.proto import client_pb2
from quorumlog.proto.batch import open_batch, to_wire
from quorumlog.proto.compression import CodecUnavailable
from quorumlog.proto.errors import make_error
from quorumlog.proto.invalid import BatchInvalid
from quorumlog.raft import NotLeader

Done = Callable[[client_pb2.ListedOffset], None]


class OffsetsPath:
    """Answers where a partition begins, ends, or was at a time."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def list_offsets(
        self, request: client_pb2.ListOffsetsRequest, reply: Callable[[client_pb2.ListOffsetsResponse], None]
    ) -> None:
        """Answer once every partition has its offset."""
        results: list[client_pb2.ListedOffset | None] = [None] * len(request.partitions)
        missing = len(results)
        if not missing:
            reply(client_pb2.ListOffsetsResponse())

        def collect(position: int, result: client_pb2.ListedOffset) -> None:
            nonlocal missing
            results[position] = result
            missing -= 1
            if missing == 0:
                reply(client_pb2.ListOffsetsResponse(offsets=[result for result in results if result is not None]))

        for position, wanted in enumerate(request.partitions):
            self._list(wanted, lambda result, position=position: collect(position, result))  # type: ignore[misc]

    def _list(self, wanted: client_pb2.ListOffsetsPartition, done: Done) -> None:
        self._directory.look_up(
            wanted.topic_id, wanted.topic, wanted.partition, lambda found: self._list_at(found, wanted, done)
        )

    def _list_at(self, found: Found | client_pb2.Error, wanted: client_pb2.ListOffsetsPartition, done: Done) -> None:
        if isinstance(found, client_pb2.Error):
            done(_failed(wanted, found))
            return
        replica = found.replica
        if replica is None or not replica.leads:
            done(_failed(wanted, self._directory.not_leader(found)))
            return
        if wanted.WhichOneof("position") is None:
            error = make_error(client_pb2.INVALID_REQUEST, "ask for `earliest`, `latest` or a `timestamp_ms`")
            done(_failed(wanted, error))
            return

        # That in which it proves to lead. A later one may be known by the time of the answer, and is another leader's.
        leader_epoch = replica.raft.term

        def on_confirmed(leads: bool) -> None:
            if not leads:
                done(_failed(wanted, self._directory.not_leader(found)))
                return
            try:
                answer = _locate(found, replica, wanted, leader_epoch)
            except EntryDamaged as damage:
                replica.note_damage(damage.index)
                self._directory.touch(replica)
                answer = _failed(wanted, make_error(client_pb2.NOT_YET_AVAILABLE, str(damage)))
            except StorageCorrupt as error:
                answer = _failed(wanted, make_error(client_pb2.STORAGE_CORRUPT, str(error)))
            except (BatchInvalid, CodecUnavailable) as error:
                # Written by a later release, or compressed by what is not installed here.
                unreadable = (
                    f"a batch of topic {found.topic.name!r} partition {wanted.partition} cannot be opened: {error}"
                )
                answer = _failed(wanted, make_error(client_pb2.UNSUPPORTED_VERSION, unreadable))
            done(answer)

        try:
            replica.read_index(on_confirmed)
        except NotLeader:
            done(_failed(wanted, self._directory.not_leader(found)))
            return
        self._directory.touch(replica)


def _locate(
    found: Found, replica: Replica, wanted: client_pb2.ListOffsetsPartition, leader_epoch: int
) -> client_pb2.ListedOffset:
    assert replica.partition is not None
    start, end = replica.partition.log_start_offset, replica.high_watermark
    answer = client_pb2.ListedOffset(
        topic_id=found.topic.topic_id,
        topic=found.topic.name,
        partition=wanted.partition,
        leader_epoch=leader_epoch,
    )
    match wanted.WhichOneof("position"):
        case "earliest":
            answer.offset = start
        case "latest":
            answer.offset = end
        case _:
            answer.offset, answer.timestamp_ms = _locate_time(replica, wanted.timestamp_ms, start, end)
    return answer


def _locate_time(replica: Replica, timestamp_ms: int, start: int, end: int) -> tuple[int, int]:
    """Offset and time of the first readable record at or after `timestamp_ms`; the end, and 0, where there is none."""
    index = replica.log.locate_time(timestamp_ms)
    while index is not None and index <= replica.raft.applied:
        entries = replica.log.entries(index, index, 1)
        data = entries[0].data
        header = decode_header(data)
        if header.count:
            batch = to_wire(
                memoryview(data)[HEADER_BYTES:],
                base_offset=header.base_offset,
                leader_epoch=header.term,
                append_time_ms=header.append_time_ms,
                crc=header.batch_crc,
            )
            if batch.max_timestamp_ms >= timestamp_ms or header.append_time_ms >= timestamp_ms:
                times = open_batch(batch, OPEN_LIMITS).timestamps_ms
                for delta, time_ms in enumerate(times):
                    if time_ms >= timestamp_ms and header.base_offset + delta >= start:
                        return header.base_offset + delta, time_ms
        index = index + 1 if index < replica.log.last_index() else None  # type: ignore[assignment]
    return end, 0


def _failed(wanted: client_pb2.ListOffsetsPartition, error: client_pb2.Error) -> client_pb2.ListedOffset:
    return client_pb2.ListedOffset(
        topic_id=wanted.topic_id, topic=wanted.topic, partition=wanted.partition, error=error
    )

"""What every replica holds at the end of a run, read from the node that keeps it."""

from __future__ import annotations

import asyncio
from typing import Any

from quorumlog.chaos.history.writer import Recorder
from quorumlog.chaos.workloads.batches import Read, read_batches
from quorumlog.chaos.workloads.producing import unpad
from quorumlog.chaos.workloads.program import Place
from quorumlog.chaos.workloads.wire import Refused, Wire, attempt, check
from quorumlog.clock import monotonic
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.crc32c import crc32c

CALL_SECONDS = 10.0
PAUSE_SECONDS = 0.2
FETCH_BYTES_MAX = 8 << 20


async def read_replica(
    wire: Wire, recorder: Recorder, node: int, place: Place, partition: int, *, seconds: float
) -> bool:
    """Note what one node holds of a partition, up to its high watermark; returns whether it could be read."""
    tp = place.tp(partition)
    try:
        reads, told = await _read_all(wire, node, place, partition, monotonic() + seconds)
    except Refused as refused:
        operation = recorder.invoke("final_read", node=node, tp=tp)
        operation.fail(node=node, tp=tp, error=str(refused))
        return False
    recorder.tell(
        "final_read",
        node=node,
        tp=tp,
        recs=_chained(reads),
        start=told.log_start_offset,
        hw=told.high_watermark,
        commit=told.high_watermark,
    )
    return True


async def _read_all(
    wire: Wire, node: int, place: Place, partition: int, deadline: float
) -> tuple[list[Read], pb.FetchedPartition]:
    reads: list[Read] = []
    offset = 0
    while True:
        try:
            told = await _fetch(wire, node, place, partition, offset)
        except Refused as refused:
            if not refused.error.retriable or monotonic() >= deadline:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        found = read_batches(told.batches, offset)
        reads += found
        offset = found[-1].offset + 1 if found else offset
        if offset >= told.high_watermark:
            return reads, told
        if not found and monotonic() >= deadline:
            said = f"node {node} shows {offset} of {told.high_watermark} records of {place.tp(partition)}"
            raise Refused(pb.Error(code=pb.TIMED_OUT, message=said))


async def _fetch(wire: Wire, node: int, place: Place, partition: int, offset: int) -> pb.FetchedPartition:
    wanted = pb.FetchPartition(topic_id=place.topic_id, topic=place.topic, partition=partition, offset=offset)
    request = pb.FetchRequest(partitions=[wanted], any_replica=True, max_bytes=FETCH_BYTES_MAX)
    answer = await attempt(lambda: wire.log(node).Fetch(request, timeout=CALL_SECONDS))
    check(answer.error if answer.HasField("error") else None)
    told: pb.FetchedPartition = answer.partitions[0]
    check(told.error if told.HasField("error") else None)
    return told


def _chained(reads: list[Read]) -> list[list[Any]]:
    """The records as histories have them, each with the check of itself and of all before it."""
    chain = 0
    records: list[list[Any]] = []
    for one in reads:
        chain = crc32c(repr(tuple(one)).encode(), chain)
        writer = [one.producer_id, one.epoch, one.sequence] if one.producer_id else [None, None, None]
        records.append([one.offset, one.term, *writer, unpad(one.value), f"{chain:08x}"])
    return records

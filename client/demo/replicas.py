"""Reads what one replica of a partition holds, from the node that keeps it."""

from collections.abc import Callable

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import Cluster
from quorumlog.cursor import LIMITS
from quorumlog.demo.samples import Identity, decode
from quorumlog.errors import NotYetAvailable, QuorumlogError, from_wire
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import open_batch

WAIT_MS = 500
CALL_SECONDS = 10.0

Log = dict[int, Identity]
"""The records of a partition: offset to which record it is."""


async def read_replica(
    cluster: Cluster, address: str, topic: str, partition: int, end: int, is_late: Callable[[], bool]
) -> Log:
    """Return the records below offset `end` that the node at `address` holds.

    Waits while the node is behind, as one is that was down; what it has when `is_late()` is returned as it is.

    Raises:
        QuorumlogError: the node refuses for good, or does not answer when it is late.
    """
    log: Log = {}
    offset = 0
    while offset < end:
        try:
            part = await _fetch(cluster, address, topic, partition, offset)
        except QuorumlogError as error:
            if not error.retriable or is_late():
                raise
            continue
        for batch in part.batches:
            columns = open_batch(batch, LIMITS)
            for position, (key, value) in enumerate(zip(columns.keys, columns.values, strict=True)):
                if batch.base_offset + position >= offset:
                    assert key is not None
                    assert value is not None
                    log[batch.base_offset + position] = decode(key, value)[0]
            offset = max(offset, batch.base_offset + batch.last_offset_delta + 1)
        if not part.batches and is_late():
            break
    return log


async def _fetch(cluster: Cluster, address: str, topic: str, partition: int, offset: int) -> pb.FetchedPartition:
    wanted = pb.FetchPartition(topic=topic, partition=partition, offset=offset)
    request = pb.FetchRequest(partitions=[wanted], any_replica=True, max_wait_ms=WAIT_MS, min_bytes=1)

    async def call(connection: Connection, seconds: float) -> pb.FetchedPartition:
        response = await connection.log.Fetch(request, timeout=seconds)
        if response.HasField("error") and response.error.code != pb.OK:
            raise from_wire(response.error)
        if not response.partitions:
            raise NotYetAvailable(f"{address} says nothing of {topic}[{partition}]")
        return response.partitions[0]

    # `ask` turns the error of the partition into an exception as well.
    return await cluster.ask(address, call, CALL_SECONDS)

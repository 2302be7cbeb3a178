"""Offsets by position or time, asked of the leaders."""

import asyncio
from collections.abc import Iterable, Mapping

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import Cluster, Deadline
from quorumlog.cursor import Start
from quorumlog.errors import from_wire
from quorumlog.fetching import list_offsets_partition
from quorumlog.proto import client_pb2 as pb


async def list_offsets(
    cluster: Cluster, topic: str, partitions: Iterable[int] | None, position: Start, deadline: Deadline
) -> Mapping[int, int]:
    """Return, per partition (None: all), the offset of `position`: earliest, latest, or the first at or after a time
    in ms.

    Raises:
        QuorumlogError: a leader refused for good, or did not answer in time.
    """
    known = await cluster.topic(topic, deadline.left())

    async def one(partition: int) -> tuple[int, int]:
        question = list_offsets_partition(known.topic_id, topic, partition, position)

        async def call(connection: Connection, seconds: float) -> int:
            answer = await connection.log.ListOffsets(pb.ListOffsetsRequest(partitions=[question]), timeout=seconds)
            listed = answer.offsets[0]
            if listed.HasField("error") and listed.error.code != pb.OK:
                raise from_wire(listed.error)
            return listed.offset

        offset = await cluster.ask_partition_leader(topic, partition, call, deadline.left())
        return partition, offset

    wanted = range(len(known.leaders)) if partitions is None else partitions
    return dict(sorted(await asyncio.gather(*(one(partition) for partition in wanted))))

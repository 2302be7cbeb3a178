"""Processes that read: records from leaders, records from other replicas, and where logs begin and end."""

from __future__ import annotations

import asyncio

import grpc

from quorumlog.chaos.history.writer import Recorder
from quorumlog.chaos.workloads.batches import read_batches
from quorumlog.chaos.workloads.producing import unpad
from quorumlog.chaos.workloads.program import Place, Stage
from quorumlog.chaos.workloads.wire import Refused, Wire, attempt, check
from quorumlog.proto import client_pb2 as pb

CALL_SECONDS = 3.0
FETCH_BYTES_MAX = 64 << 10
WAIT_MS = 100
REREAD = 0.05
"""How often something is read again that was read before."""


class Reader:
    """A process that reads every partition from its beginning on, and now and then something from before again.

    Args:
        stage: what it plays on.
        name: of the process.
        follows: read from one node, drawn, whether it leads or not; otherwise from leaders.
        place: what it reads; None: the topic of the workload.
    """

    def __init__(self, stage: Stage, name: str, *, follows: bool, place: Place | None = None) -> None:
        self._stage = stage
        self._place = place or stage.place
        self._name = name
        self._rng = stage.rng(name)
        self._recorder = Recorder(stage.orders.directory, name)
        self._wire = stage.wire(name)
        self._follows = follows
        self._node = 0
        self._session = 0
        self._positions: dict[int, int] = {}

    async def run(self, rate: float) -> None:
        """Read until it is time to end."""
        try:
            await self._stage.at_rate(rate, self.step)
        finally:
            await self.close()

    async def close(self) -> None:
        """Read no more."""
        self._recorder.close()
        await self._wire.close()

    async def step(self) -> None:
        """Read once."""
        partition = self._rng.randrange(self._place.partitions)
        position = self._positions.get(partition, 0)
        if self._rng.random() < REREAD:
            position = self._rng.randint(0, position)
        node = await self._whom(partition)
        if self._wire.channel(node).get_state() is not grpc.ChannelConnectivity.READY:
            # How far a node knows its log to be committed may go back with a new process, or with a new leader.
            self._session += 1
            if not await self._wire.connected(node, CALL_SECONDS):
                self._lost(partition, 0)
                return
        operation = self._recorder.invoke(
            "fetch",
            tp=self._place.tp(partition),
            **{"from": position},
            max=FETCH_BYTES_MAX,
            node=node,
            consistency="follower" if self._follows else "leader",
            session=f"{self._name}/{self._session}/{node}/{partition}",
        )
        try:
            told = await self._fetch(node, partition, position)
        except Refused as refused:
            operation.fail(error=str(refused))
            self._lost(partition, refused.error.leader.node_id)
            return
        reads = read_batches(told.batches, position)
        operation.ok(
            recs=[
                [one.offset, unpad(one.value), one.term, *_writer(one.producer_id, one.epoch, one.sequence)]
                for one in reads
            ],
            hw=told.high_watermark,
            start=told.log_start_offset,
            leader_term=told.leader_epoch,
            node=node,
        )
        if reads:
            self._positions[partition] = max(self._positions.get(partition, 0), reads[-1].offset + 1)

    async def _whom(self, partition: int) -> int:
        if not self._follows:
            return await self._wire.leader(self._place.topic, partition)
        if not self._node:
            self._node = self._wire.any_node()
        return self._node

    def _lost(self, partition: int, leader: int) -> None:
        self._node = 0
        self._session += 1
        self._wire.led_by(self._place.topic, partition, leader)

    async def _fetch(self, node: int, partition: int, position: int) -> pb.FetchedPartition:
        wanted = pb.FetchPartition(
            topic_id=self._place.topic_id, topic=self._place.topic, partition=partition, offset=position
        )
        request = pb.FetchRequest(
            partitions=[wanted], any_replica=self._follows, max_bytes=FETCH_BYTES_MAX, max_wait_ms=WAIT_MS
        )
        answer = await attempt(lambda: self._wire.log(node).Fetch(request, timeout=CALL_SECONDS))
        check(answer.error if answer.HasField("error") else None)
        told: pb.FetchedPartition = answer.partitions[0]
        check(told.error if told.HasField("error") else None)
        return told


def _writer(producer_id: int, epoch: int, sequence: int) -> list[int | None]:
    return [producer_id, epoch, sequence] if producer_id else [None, None, None]


async def list_offsets(stage: Stage, name: str, rate: float) -> None:
    """Ask leaders for the beginnings and the ends of logs, until it is time to end."""
    rng = stage.rng(name)
    recorder = Recorder(stage.orders.directory, name)
    wire = stage.wire(name)
    topic = stage.orders.topic

    async def step() -> None:
        partition = rng.randrange(stage.orders.partitions)
        node = await wire.leader(topic, partition)
        if not await wire.connected(node, CALL_SECONDS):
            wire.led_by(topic, partition, 0)
            return
        operation = recorder.invoke("list_offsets", tp=f"{topic}/{partition}", node=node)
        try:
            start, end = await _offsets(wire, node, topic, partition)
        except Refused as refused:
            operation.fail(error=str(refused))
            wire.led_by(topic, partition, refused.error.leader.node_id)
            await asyncio.sleep(0)
            return
        operation.ok(start=start.offset, hw=end.offset, term=end.leader_epoch, node=node)

    try:
        await stage.at_rate(rate, step)
    finally:
        recorder.close()
        await wire.close()


async def _offsets(wire: Wire, node: int, topic: str, partition: int) -> tuple[pb.ListedOffset, pb.ListedOffset]:
    request = pb.ListOffsetsRequest(
        partitions=[
            pb.ListOffsetsPartition(topic=topic, partition=partition, earliest=True),
            pb.ListOffsetsPartition(topic=topic, partition=partition, latest=True),
        ]
    )
    answer = await attempt(lambda: wire.log(node).ListOffsets(request, timeout=CALL_SECONDS))
    for listed in answer.offsets:
        check(listed.error if listed.HasField("error") else None)
    return answer.offsets[0], answer.offsets[1]

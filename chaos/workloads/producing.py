"""Processes that write: batch by batch on the wire, with known sequences, and record by record by the client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from quorumlog import aio
from quorumlog.chaos.history.values import value_of
from quorumlog.chaos.history.writer import Recorder, Recording
from quorumlog.chaos.workloads.batches import batch_of
from quorumlog.chaos.workloads.program import OPERATION_SECONDS, Place, Stage
from quorumlog.chaos.workloads.wire import Refused, attempt, check
from quorumlog.clock import monotonic
from quorumlog.errors import DeliveryFailed, Outcome, QuorumlogError
from quorumlog.proto import client_pb2 as pb

BATCH_MAX = 4
CALL_SECONDS = 4.0
PAUSE_SECONDS = 0.05
IN_FLIGHT_MAX = 16
LAST_TRY_SECONDS = 0.5
"""An attempt with less time than this would only make unknown what is certain."""


class Producer:
    """A process that sends one batch at a time, each a new operation, and tries it until it knows what became of it.

    Args:
        stage: what it plays on.
        name: of the process.
        place: where it writes to; None: to the topic of the workload.
    """

    def __init__(self, stage: Stage, name: str, place: Place | None = None) -> None:
        self._stage = stage
        self._place = place or stage.place
        self._padding = stage.orders.padding
        self._rng = stage.rng(name)
        self._recorder = Recorder(stage.orders.directory, name)
        self._wire = stage.wire(name)
        self._identity: tuple[int, int] | None = None
        self._sequences: dict[int, int] = {}
        self._counter = 0

    async def run(self, rate: float) -> None:
        """Send until it is time to end."""
        try:
            await self._stage.at_rate(rate, self.step)
        finally:
            await self.close()

    async def close(self) -> None:
        """Send no more."""
        self._recorder.close()
        await self._wire.close()

    async def step(self) -> None:
        """Send one batch, as soon as there is a producer id."""
        if self._identity is None:
            self._identity = await self._introduce()
        if self._identity is not None:
            await self._send(self._rng.randrange(self._place.partitions), *self._identity)

    async def _introduce(self) -> tuple[int, int] | None:
        """Get a producer id."""
        operation = self._recorder.invoke("init_pid")
        node = self._wire.any_node()
        try:
            answer = await attempt(
                lambda: self._wire.log(node).InitProducer(pb.InitProducerRequest(), timeout=CALL_SECONDS)
            )
            check(answer.error)
        except Refused as refused:
            # An id that was given and not heard of is used by nobody.
            operation.fail(error=str(refused))
            await self._stage.pause(PAUSE_SECONDS)
            return None
        operation.ok(pid=answer.producer_id, epoch=answer.producer_epoch)
        self._sequences.clear()
        return answer.producer_id, answer.producer_epoch

    async def _send(self, partition: int, producer_id: int, epoch: int) -> None:
        tp = self._place.tp(partition)
        count = self._rng.randint(1, 1 if self._padding else BATCH_MAX)
        self._counter += 1
        process = self._recorder.process
        values = [value_of(tp, process, self._counter, place, count) for place in range(1, count + 1)]
        sequence = self._sequences.get(partition, 0)
        batch = batch_of(pad(values, self._padding), producer_id, epoch, sequence)
        operation = self._recorder.invoke(
            "produce", tp=tp, vals=values, acks="all", batch=True, pid=producer_id, epoch=epoch, base_seq=sequence
        )
        known, refused = await self._until_known(operation, partition, batch, [producer_id, epoch, sequence])
        if refused is None:
            self._sequences[partition] = sequence + count
        elif known:
            operation.fail(error=str(refused))
            if not refused.error.retriable:
                self._identity = None
        else:
            operation.info(error=str(refused))
            self._identity = None

    async def _until_known(
        self, operation: Recording, partition: int, batch: pb.RecordBatch, identity: Sequence[int]
    ) -> tuple[bool, Refused | None]:
        """Try it until it is acknowledged or time is up; returns whether it is certain, and what went wrong last."""
        topic = self._place.topic
        deadline = monotonic() + OPERATION_SECONDS
        certain, tries = True, 0
        last = Refused(pb.Error(code=pb.TIMED_OUT, message="no node could be reached", outcome=pb.NOT_APPENDED))
        while (left := deadline - monotonic()) > LAST_TRY_SECONDS:
            node = await self._wire.leader(topic, partition)
            if not await self._wire.connected(node, min(left, 1.0)):
                self._wire.led_by(topic, partition, 0)
                continue
            try:
                result = await self._try(node, partition, batch, tries, min(left, CALL_SECONDS))
            except Refused as refused:
                last, tries = refused, tries + 1
                certain = certain and refused.certain
                self._wire.led_by(topic, partition, refused.error.leader.node_id)
                if not refused.error.retriable:
                    break
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            pid, epoch, sequence = identity
            operation.ok(
                base_offset=result.base_offset,
                term=result.leader_epoch,
                dup=result.duplicate,
                pid=pid,
                epoch=epoch,
                base_seq=sequence,
                node=node,
            )
            return True, None
        return certain, last

    async def _try(
        self, node: int, partition: int, batch: pb.RecordBatch, tries: int, seconds: float
    ) -> pb.ProduceResult:
        one = pb.PartitionBatch(
            topic_id=self._place.topic_id, topic=self._place.topic, partition=partition, attempt=tries, batch=batch
        )
        request = pb.ProduceRequest(batches=[one], timeout_ms=int(seconds * 1000))
        answer = await attempt(lambda: self._wire.log(node).ProduceOnce(request, timeout=seconds + 0.5))
        result: pb.ProduceResult = answer.results[0]
        check(result.error if result.HasField("error") else None)
        return result


async def send_by_client(stage: Stage, name: str, rate: float) -> None:
    """Send records by the client's own producer, several of them in flight, each from a process of its own."""
    async with aio.connect(list(stage.orders.bootstrap), client_id=name) as client:
        producer = client.producer(delivery_timeout=OPERATION_SECONDS)
        try:
            await asyncio.gather(
                *(
                    _send_records(stage, f"{name}-{number}", producer, rate / IN_FLIGHT_MAX)
                    for number in range(1, IN_FLIGHT_MAX + 1)
                )
            )
        finally:
            with contextlib.suppress(DeliveryFailed):  # each record has been told its own outcome
                await producer.close(timeout=OPERATION_SECONDS)


async def _send_records(stage: Stage, name: str, producer: aio.Producer, rate: float) -> None:
    rng = stage.rng(name)
    recorder = Recorder(stage.orders.directory, name)
    counter = 0

    async def step() -> None:
        nonlocal counter
        counter += 1
        partition = rng.randrange(stage.orders.partitions)
        tp = f"{stage.orders.topic}/{partition}"
        value = value_of(tp, recorder.process, counter, 1, 1)
        (padded,) = pad([value], stage.orders.padding)
        operation = recorder.invoke("produce", tp=tp, vals=[value], acks="all", batch=False)
        try:
            future = await producer.send(stage.orders.topic, padded.encode(), partition=partition)
            appended = await future
        except QuorumlogError as error:
            if error.outcome is Outcome.NOT_APPENDED:
                operation.fail(error=str(error))
            else:
                operation.info(error=str(error))
            return
        if appended.offset < 0:
            operation.info(error="it is in the log, at an offset that is no longer known")
            return
        operation.ok(base_offset=appended.offset, term=None, dup=False)

    try:
        await stage.at_rate(rate, step)
    finally:
        recorder.close()


def pad(values: Sequence[str], padding: int) -> list[str]:
    """Return the values with so many bytes after them, which the last character of the value repeats."""
    return [f"{value}|{value[-1] * padding}" if padding else value for value in values]


def unpad(value: str) -> str:
    """Return the value without the padding that `pad` gave it; with any other it is returned as it is."""
    head, bar, padding = value.rpartition("|")
    return head if bar and head.count("|") == 4 and padding == head[-1] * len(padding) else value

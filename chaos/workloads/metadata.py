"""Topics made, used, deleted and made again: `python -m quorumlog.chaos.workloads.metadata`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from quorumlog.chaos.history.writer import Recorder
from quorumlog.chaos.workloads.producing import Producer
from quorumlog.chaos.workloads.program import OPERATION_SECONDS, Place, Stage, note_living, run
from quorumlog.chaos.workloads.reading import Reader
from quorumlog.chaos.workloads.wire import Refused, attempt, check
from quorumlog.clock import monotonic
from quorumlog.proto import client_pb2 as pb

CHURNERS = 2
PARTITIONS = 2
USES = (2, 12)
"""How many times a topic is written to and read in one life."""
CALL_SECONDS = 4.0
LAST_TRY_SECONDS = 0.5
PAUSE_SECONDS = 0.1


class Churner:
    """A process that has one topic at a time, which nobody else makes or deletes. When it does not know whether its
    topic is there, it goes on with another name.

    Args:
        stage: what it plays on.
        name: of the process.
    """

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name
        self._rng = stage.rng(name)
        self._recorder = Recorder(stage.orders.directory, name)
        self._wire = stage.wire(name)
        self._names = 1
        self._life = 0

    async def run(self, rate: float) -> None:
        """Make, use and delete, until it is time to end."""
        try:
            await self._stage.at_rate(rate, self._step)
        finally:
            self._recorder.close()
            await self._wire.close()

    @property
    def _topic(self) -> str:
        return f"{self._name}-{self._names}"

    async def _step(self) -> None:
        self._life += 1
        place = Place(self._topic, PARTITIONS, life=self._life)
        made = await self._change("create_topic", place, lambda node, seconds: self._create(node, place, seconds))
        if made is None:
            return
        await self._use(Place(place.topic, PARTITIONS, made, self._life))
        gone = await self._change("delete_topic", place, lambda node, seconds: self._delete(node, place, made, seconds))
        if gone is None:
            note_living(self._stage.orders.directory, replace(place, topic_id=made))

    async def _use(self, place: Place) -> None:
        producer = Producer(self._stage, f"{place.label}-producer", place)
        reader = Reader(self._stage, f"{place.label}-reader", follows=False, place=place)
        try:
            for _ in range(self._rng.randint(*USES)):
                await producer.step()
                await reader.step()
        finally:
            await producer.close()
            await reader.close()

    async def _change(self, command: str, place: Place, call: Callable[[int, float], Awaitable[bytes]]) -> bytes | None:
        """Make one change, at whoever leads the metadata; returns what the answer brought, None if it failed."""
        told = {"topic": place.topic, "life": place.life, "partitions": place.partitions}
        operation = self._recorder.invoke("meta", cmd=command, id=place.topic, args=told)
        deadline = monotonic() + OPERATION_SECONDS
        certain, node, last = True, self._wire.any_node(), "no node could be reached"
        while (left := deadline - monotonic()) > LAST_TRY_SECONDS:
            if not await self._wire.connected(node, min(left, 1.0)):
                node = self._wire.any_node()
                continue
            try:
                result = await call(node, min(left, CALL_SECONDS))
            except Refused as refused:
                last = str(refused)
                if not refused.error.retriable:
                    # After an attempt of which nobody knows, this may be the answer to its success.
                    break
                certain = certain and refused.error.code in (pb.NOT_LEADER, pb.NO_LEADER)
                node = refused.error.leader.node_id or self._wire.any_node()
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            operation.ok(result=result.hex())
            return result
        self._names += 1
        self._life = 0
        if certain:
            operation.fail(error=last)
        else:
            operation.info(error=last)
        return None

    async def _create(self, node: int, place: Place, seconds: float) -> bytes:
        request = pb.CreateTopicRequest(name=place.topic, partitions=place.partitions)
        answer: Any = await attempt(lambda: self._wire.admin(node).CreateTopic(request, timeout=seconds))
        check(answer.error if answer.HasField("error") else None)
        return bytes(answer.topic.topic_id)

    async def _delete(self, node: int, place: Place, topic_id: bytes, seconds: float) -> bytes:
        request = pb.DeleteTopicRequest(name=place.topic, topic_id=topic_id)
        answer: Any = await attempt(lambda: self._wire.admin(node).DeleteTopic(request, timeout=seconds))
        check(answer.error if answer.HasField("error") else None)
        return topic_id


async def play(stage: Stage) -> None:
    """Churn topics until it is time to end."""
    async with asyncio.TaskGroup() as group:
        for number in range(1, CHURNERS + 1):
            name = f"{stage.orders.topic}-{number}"
            group.create_task(Churner(stage, name).run(stage.orders.rate / CHURNERS))


if __name__ == "__main__":
    sys.exit(run(__doc__, play))

"""Faults of leadership: handed over again and again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from quorumlog import aio
from quorumlog.chaos.faults.fault import Fault, Layout, end_task
from quorumlog.errors import QuorumlogError

CALL_SECONDS = 3.0


class Transfer(Fault):
    """Partitions are given to other leaders, one every `every_seconds`."""

    kind = "transfer"
    patience_seconds = 20.0
    _task: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the pace and the moves, which are begun anew when all are done."""
        moves = [[rng.randrange(layout.partitions), rng.randint(1, layout.nodes)] for _ in range(16)]
        return {"topic": layout.topic, "moves": moves, "every_seconds": round(rng.uniform(0.1, 1.0), 2)}

    async def start(self) -> None:
        """Begin with the first move."""
        self.targets = [self.parameters["topic"]]
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        bootstrap = [node.client_address for node in self.scene.supervisor.nodes]
        topic = self.parameters["topic"]
        async with aio.connect(bootstrap, client_id="chaos-transfer") as client:
            while True:
                for partition, target in self.parameters["moves"]:
                    before = await self.scene.sight.lead(topic, partition)
                    if before is not None and before.node != target:
                        # Refused, or too late because of another fault: the next one.
                        with contextlib.suppress(QuorumlogError):
                            await client.cluster.transfer(topic, partition, target, timeout=CALL_SECONDS)
                            self.bit["transfers"] = self.bit.get("transfers", 0) + 1
                    await asyncio.sleep(self.parameters["every_seconds"])

    async def stop(self) -> None:
        """Hand nothing over any more."""
        task, self._task = self._task, None
        await end_task(task)

"""How a workload runs as a process: what it is told on the command line, and how it ends when it is told to."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quorumlog.chaos.workloads.wire import Wire
from quorumlog.clock import monotonic

OPERATION_SECONDS = 8.0
"""For how long one operation is tried."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a workload is told.

    `rate` is operations per second of all its processes together; `padding` the bytes that each value gets besides.
    """

    directory: Path
    bootstrap: tuple[str, ...]
    topic: str
    partitions: int
    rate: float
    padding: int
    seed: int


@dataclass(frozen=True, slots=True)
class Place:
    """A topic in one of its lives. Without `topic_id` whoever has the name now is meant."""

    topic: str
    partitions: int
    topic_id: bytes = b""
    life: int = 1

    @property
    def label(self) -> str:
        """What histories call the topic."""
        return self.topic if self.life == 1 else f"{self.topic}@{self.life}"

    def tp(self, partition: int) -> str:
        """What histories call one of its partitions."""
        return f"{self.label}/{partition}"


def note_living(directory: Path, place: Place) -> None:
    """Note a topic that a workload has made and that may be there at the end, so that it is read as well."""
    path = directory / "living" / f"{place.label}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([place.topic, place.partitions, place.topic_id.hex(), place.life]))


def living(directory: Path) -> list[Place]:
    """Every topic that was noted."""
    noted = [json.loads(path.read_text()) for path in sorted((directory / "living").glob("*.json"))]
    return [Place(topic, partitions, bytes.fromhex(topic_id), life) for topic, partitions, topic_id, life in noted]


class Stage:
    """What the processes of a workload share.

    Args:
        orders: what it is told.
    """

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.stopping = asyncio.Event()
        self.place = Place(orders.topic, orders.partitions)

    def wire(self, name: str) -> Wire:
        """Connections of one process; closed by whoever asks for them."""
        return Wire(self.orders.bootstrap, self.rng(name))

    def rng(self, name: str) -> random.Random:
        """The randomness of one process."""
        return random.Random(f"{self.orders.seed}/{name}")

    async def pause(self, seconds: float) -> bool:
        """Wait; False when it is time to end."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self.stopping.wait()
        except TimeoutError:
            return True
        return False

    async def at_rate(self, per_second: float, step: Callable[[], Awaitable[None]]) -> None:
        """Take steps, so many per second on average as long as they are quick enough, until it is time to end."""
        due = monotonic()
        while await self.pause(due - monotonic()):
            await step()
            due = max(due + 1 / per_second, monotonic() - 1.0)


def run(what: str, play: Callable[[Stage], Coroutine[Any, Any, None]]) -> int:
    """Read the command line and play until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--directory", type=Path, required=True, help="folder of the run")
    parser.add_argument("--bootstrap", required=True, help="client addresses of all nodes, from number 1 on")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="operations per second")
    parser.add_argument("--padding", type=int, default=0, help="bytes that every value gets besides")
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    addresses = tuple(given.bootstrap.split(","))
    asyncio.run(
        _play(
            Orders(given.directory, addresses, given.topic, given.partitions, given.rate, given.padding, given.seed),
            play,
        )
    )
    return 0


async def _play(orders: Orders, play: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    stage = Stage(orders)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stage.stopping.set)
    await play(stage)

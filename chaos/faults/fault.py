"""What every fault has: exact parameters, a start and an end, and what shows that it bit."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quorumlog.chaos.faults.proxy import Proxy
from quorumlog.chaos.nodes import Supervisor
from quorumlog.chaos.sight import Sight

Parameters = Mapping[str, Any]
"""What JSON can hold, so that a schedule can be saved and replayed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a schedule is drawn for: the number of nodes, those whose disks may lose something, and the partitions of
    the topic that faults are aimed at."""

    nodes: int
    victims: tuple[int, ...]
    topic: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Scene:
    """What faults have their hands on."""

    supervisor: Supervisor
    proxy: Proxy
    sight: Sight
    rng: random.Random

    @property
    def numbers(self) -> tuple[int, ...]:
        """All node ids."""
        return tuple(node.number for node in self.supervisor.nodes)


class Fault(ABC):
    """One fault, once.

    `start` returns when it is in force, `stop` when it is over as far as it can be undone; stopping twice, or before
    the start has succeeded, does no harm. `bit` has what was seen of its effect, and is empty as long as that is
    nothing.

    Args:
        scene: what it works on.
        parameters: as `draw` gives them, or as a schedule file has them.
    """

    kind: ClassVar[str]
    spares_disks: ClassVar[bool] = True
    """False: something may be lost from the disk of the node it is aimed at."""
    patience_seconds: ClassVar[float] = 0.0
    """How much longer than planned it goes on where it has not bitten, because other faults stood in its way."""

    def __init__(self, scene: Scene, parameters: Parameters) -> None:
        self.scene = scene
        self.parameters = parameters
        self.targets: list[str] = []
        self.bit: dict[str, Any] = {}

    @classmethod
    @abstractmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw parameters."""

    @abstractmethod
    async def start(self) -> None:
        """Begin."""

    @abstractmethod
    async def stop(self) -> None:
        """End it."""


async def end_task(task: asyncio.Task[None] | None) -> None:
    """End what a fault does in the background; what it failed with is raised."""
    if task is None:
        return
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended

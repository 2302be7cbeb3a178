"""Where faults strike: the world, what they may do to it, and what they need to know of the run."""

from __future__ import annotations

import random
from collections.abc import Callable

from quorumlog.chaos.sim.atlas import Atlas
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World


class Field:
    """What a stroke is given besides its own randomness.

    Args:
        topics: with the number of their partitions, for faults that choose a partition.
        brief: the topic that may be deleted.
        replace_member: ends a member of a group and lets another one join.
    """

    def __init__(
        self,
        world: World,
        *,
        topics: dict[str, int],
        brief: str,
        replicas: int,
        replace_member: Callable[[random.Random], None],
    ) -> None:
        self.world = world
        self.atlas = Atlas(world)
        self.topics = topics
        self.brief = brief
        self.replicas = replicas
        self.replace_member = replace_member
        self.over = False
        self.leaving: set[int] = set()
        """Nodes that are being taken out for good."""

    def nodes(self) -> list[SimNode]:
        """All nodes, by number."""
        return list(self.world.nodes.values())

    def any_node(self, rng: random.Random) -> SimNode:
        """One of all nodes, up or down."""
        return rng.choice(self.nodes())

    def running(self, rng: random.Random) -> SimNode | None:
        """One that runs, None when none does."""
        nodes = [node for node in self.nodes() if node.running and not node.paused]
        return rng.choice(nodes) if nodes else None

    def leader(self, rng: random.Random) -> SimNode | None:
        """A node that leads a partition, the more likely the more it leads; None when none does."""
        leaders = [
            node
            for node in self.nodes()
            if node.broker is not None and not node.paused
            for replica in node.broker.multi.replicas.values()
            if replica.partition is not None and replica.leads
        ]
        return rng.choice(leaders) if leaders else None

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something in a while, unless the faults are over by then: healing has done it already."""

        def act() -> None:
            if not self.over:
                action()

        self.world.after(seconds, act)

    def tell(self, text: str) -> None:
        """Add to the story."""
        self.world.tell(text)

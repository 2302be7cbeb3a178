"""What a seed draws before anything happens: the shape of the cluster, what is wrong with its network and disks all the
time, and which kinds of faults it knows. Most seeds have only some of each (swarm testing, Groce et al. 2012).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from quorumlog.chaos.sim.world import Faults, Pace

NODES: Final = (3, 3, 3, 3, 3, 4, 5, 5, 6, 7)
PARTITIONS: Final = {"orders": 5, "audit": 4, "ledger": 3}
"""Twelve groups of records."""

SCRUB_PERIOD_SECONDS: Final = 5.0
"""Between the passes of a node over its logs. A seed ends with a whole one, so it is short."""

BRIEF: Final = "brief"
"""A topic of one partition more, deleted and made again all the time."""


@dataclass(slots=True)
class Swarm:
    """The options of one seed.

    Args:
        seed: everything is drawn from it.
        nodes: so many instead of what the seed draws.
        seconds: of the phase with faults.
    """

    seed: int
    nodes: int = 0
    seconds: float = 120.0
    asked_nodes: int = field(init=False)
    faults: Faults = field(init=False)
    pace: Pace = field(init=False)
    replicas: int = field(init=False)
    retention_bytes: int = field(init=False)
    handler_seconds: float = field(init=False)
    producers: int = field(init=False)
    lying_plane: bool = field(init=False)
    fold_seconds: float = field(init=False)
    """Between two folds of all groups of a node, on average; 0 where only what was written decides."""
    kinds_share: float = field(init=False)
    """Of the kinds of faults there are, so many take part."""
    rng: random.Random = field(init=False)
    """For everything that is drawn later, and not by the world."""

    def __post_init__(self) -> None:
        rng = self.rng = random.Random(self.seed * 7919 + 1)
        drawn = rng.choice(NODES)
        self.asked_nodes = self.nodes
        self.nodes = self.nodes or drawn
        self.replicas = min(rng.choice([3, 3, 3, 5]), self.nodes)
        self.faults = Faults(
            loss=rng.choice([0.0, 0.0, 0.01, 0.05, 0.3 * rng.random()]),
            duplication=rng.choice([0.0, 0.0, 0.05, 0.5 * rng.random()]),
            held_back=rng.choice([0.0, 0.0, 0.02, 0.2]),
            held_back_seconds=rng.choice([0.05, 0.5, 2.0]),
            silent_deaths=rng.choice([0.0, 0.3, 1.0]),
            client_loss=rng.choice([0.0, 0.0, 0.01, 0.05]),
            late=rng.choice([0.0, 0.0, 0.02]),
            delay_max=rng.choice([0.001, 0.005, 0.02, 0.1]),
            sync_max=rng.choice([0.002, 0.01, 0.05, 0.2]),
        )
        self.pace = Pace(
            tick_seconds=rng.choice([0.1, 0.1, 0.1, 0.05]),
            heartbeat_ticks=rng.choice([2, 3, 5]),
            retention_check_seconds=rng.choice([1.0, 5.0]),
            produce_timeout_seconds=rng.choice([3.0, 10.0]),
            scrub_period_seconds=SCRUB_PERIOD_SECONDS,
        )
        self.retention_bytes = rng.choice([-1, -1, 5_000, 40_000])
        self.handler_seconds = rng.choice([0.0, 0.0, 0.05])
        self.producers = rng.choice([1, 2, 3])
        self.lying_plane = rng.random() < 0.2
        self.kinds_share = rng.choice([0.3, 0.6, 1.0])
        self.fold_seconds = rng.choice([0.0, 1.0, 4.0])

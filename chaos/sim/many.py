"""Very many groups that have nothing to do: what they cost is what their nodes cost, however many they are.

An idle group sleeps. What is left between two nodes is a sign of life per tick, for all groups they share together, so
doubling the groups must change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from quorumlog.chaos.sim.failures import NotConverged, Violation
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import Pace, World
from quorumlog.node.broker.leadership import BALANCE_SECONDS
from quorumlog.node.broker.outbox import Packet

PARTITIONS_PER_TOPIC: Final = 1000
FALLING_ASLEEP_SECONDS: Final = 300.0
QUIET_SECONDS: Final = 1.5 * BALANCE_SECONDS
"""Longer than the time between two looks at who should lead what."""

IDLE_SECONDS: Final = 2.0
DIFFERENCE_MAX: Final = 0.02
"""Of the messages of a tenth of the groups."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What passes between each two nodes, each way and second, while nothing happens."""

    nodes: int
    groups: int
    packets: float
    messages: float

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes, {self.groups} groups that sleep: {self.packets:.2f} packets with "
            f"{self.messages:.2f} messages of groups from each node to each other one per second"
        )


class CountingWorld(World):
    """A world that counts what is sent."""

    def __init__(self, nodes: int) -> None:
        self.packets_sent = 0
        self.messages_sent = 0
        super().__init__(1, nodes, pace=Pace())

    def send(self, sender: SimNode, peer: int, packet: Packet) -> None:
        """See World."""
        self.packets_sent += 1
        self.messages_sent += len(packet.raft)
        super().send(sender, peer, packet)


def idle(nodes: int, groups: int) -> Idle:
    """Found a cluster, make so many groups, let them fall asleep, and count."""
    world = CountingWorld(nodes)
    world.found(120.0)
    left = groups
    while left > 0:
        count = min(left, PARTITIONS_PER_TOPIC)
        create_topic(world, f"topic{left}", count)
        left -= count
    _fall_asleep(world)
    packets, messages = world.packets_sent, world.messages_sent
    world.run(IDLE_SECONDS)
    each = nodes * (nodes - 1) * IDLE_SECONDS
    return Idle(nodes, groups, (world.packets_sent - packets) / each, (world.messages_sent - messages) / each)


def compare(nodes: int, groups: int) -> tuple[Idle, Idle]:
    """A tenth of the groups, and all of them. Raises Violation when all of them cost more."""
    few, all_ = idle(nodes, max(groups // 10, 1)), idle(nodes, groups)
    for less, more in ((few.packets, all_.packets), (few.messages, all_.messages)):
        if more > less * (1 + DIFFERENCE_MAX) + DIFFERENCE_MAX:
            raise Violation(f"{all_}; but {few}")
    return few, all_


def _fall_asleep(world: CountingWorld) -> None:
    """Wait until all groups sleep and leaders have found their places: until no group has said anything for a while."""
    until = world.clock.now() + FALLING_ASLEEP_SECONDS
    while world.clock.now() < until:
        messages = world.messages_sent
        world.run(QUIET_SECONDS)
        if world.messages_sent == messages:
            return
    raise NotConverged(f"the groups still talk after {FALLING_ASLEEP_SECONDS:.0f} s")

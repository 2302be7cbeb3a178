"""A coordination plane that answers nonsense changes nothing that matters: producing and consuming go on."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from quorumlog.chaos.sim.members import Delivery, SimMember
from quorumlog.chaos.sim.producers import SimProducer
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.coordination.view import CoordinationView, LeaderHint, NoCoordination, NodeFigures
from quorumlog.raft import NodeId, Term
from tests.simulation.scenes import founded, leader, values_on


class LyingCoordination:
    """Answers at random: any node may be up, lead or hold a lock; some nodes do not exist and some terms are absurd."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Return either."""
        return self._rng.random() < 0.5

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return any node under any term, or None."""
        if self._rng.random() < 0.3:
            return None
        return LeaderHint(NodeId(self._rng.randint(1, 4)), Term(self._rng.choice([0, 1, 2, 3, 1 << 60])))

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return invented figures."""
        return {
            NodeId(node_id): NodeFigures(NodeId(node_id), self._rng.randbytes(16), 1, -1, -1e9, 1e9)
            for node_id in range(1, 5)
            if self._rng.random() < 0.5
        }

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Return either."""
        return self._rng.random() < 0.5

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Return any node or None."""
        return self._rng.choice([None, NodeId(1), NodeId(4)])


class LyingWorld(World):
    """A world whose every node asks a liar."""

    def coordination(self, node_id: int) -> CoordinationView:
        return LyingCoordination(random.Random(self.rng.getrandbits(64)))


class StoppablePlane(NoCoordination):
    """Answers truthfully who leads, until it is stopped; then it is as good as none."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.stopped = False

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return who leads, as long as the plane runs."""
        if self.stopped:
            return None
        for node_id, broker in self._world.brokers().items():
            replica = broker.multi.replicas.get(group_id)
            if replica is not None and replica.leads:
                return LeaderHint(NodeId(node_id), replica.raft.term)
        return None


class StoppableWorld(World):
    """A world whose nodes share one plane that can be stopped."""

    def coordination(self, node_id: int) -> CoordinationView:
        plane: StoppablePlane | None = getattr(self, "plane", None)
        if plane is None:
            plane = self.plane = StoppablePlane(self)
        return plane


def test_producing_and_consuming_go_on_when_the_coordination_plane_is_stopped() -> None:
    world = founded(3, make=StoppableWorld)
    assert isinstance(world, StoppableWorld)
    create_topic(world, "t", 2)
    producer = SimProducer(world)
    deliveries: list[Delivery] = []
    SimMember(world, 0, "g", ["t"], deliveries)
    wanted = {b"%d" % number for number in range(60)}
    for number in range(60):
        if number == 20:
            assert {one.value for one in deliveries}, "it is under way"
            world.plane.stopped = True
        producer.send("t", number % 2, b"%d" % number)
        world.run(0.1 if number < 20 else 0.02)
        if number == 40:
            leader(world).crash()
    world.start_all()
    world.run_until(lambda: producer.settled, 60.0, "the records are not acknowledged")
    world.run_until(lambda: {one.value for one in deliveries} >= wanted, 60.0, "the records are not consumed")
    assert all(one.acked for one in producer.sent)


@pytest.mark.parametrize("seed", range(5))
def test_producing_and_consuming_go_on_while_the_coordination_plane_lies(seed: int) -> None:
    world = founded(seed, make=LyingWorld)
    create_topic(world, "t", 2)
    producer = SimProducer(world)
    deliveries: list[Delivery] = []
    members = [SimMember(world, number, "g", ["t"], deliveries) for number in range(2)]
    wanted = set()
    for number in range(60):
        value = b"%d" % number
        wanted.add(value)
        producer.send("t", number % 2, value)
        world.run(0.02)
        if number == 30:
            leader(world).crash()
    world.start_all()
    world.run_until(lambda: producer.settled, 60.0, "the records are not acknowledged")
    world.run_until(lambda: {one.value for one in deliveries} >= wanted, 60.0, "the records are not consumed")
    assert all(one.acked for one in producer.sent)
    stored = [value for partition in range(2) for value in values_on(world, leader(world, partition), partition)]
    assert sorted(stored) == sorted(wanted)
    assert not [error for member in members for error in member.errors]

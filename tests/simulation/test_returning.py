"""Nodes that have not heard of the latest wish: one that a group takes back keeps what it has, one that leads a group
moves it nowhere.
"""

from __future__ import annotations

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.raft import NodeId
from tests.simulation.scenes import acked, batch, leader, produce, replica_of
from tests.simulation.test_moving import decider, group_of, reassign, settled, world_of


def taken_back() -> tuple[World, SimNode, SimNode, SimNode]:
    """The leader of a group of three, and two others, the second of which has not heard that it was out of the group
    and is in it again: it does not hear the leader of the metadata group.
    """
    world = world_of(5)
    settled(world)
    deciding = decider(world)
    first, *rest = [node_id for node_id in world.nodes if node_id != deciding.node_id]
    reassign(world, [first, *rest[:2]])
    settled(world)
    world.run(6.0)  # the preferred leader leads
    leading = leader(world)
    other, returning = (world.nodes[one] for one in rest[:2])
    assert leading is world.nodes[first]
    world.cut |= {(deciding.node_id, returning.node_id), (returning.node_id, deciding.node_id)}
    reassign(world, [first, other.node_id, rest[2]])
    settled(world)
    reassign(world, [first, other.node_id, returning.node_id])
    settled(world)
    return world, leading, other, returning


def test_it_keeps_what_the_group_counts_on() -> None:
    world, leading, other, returning = taken_back()
    group_id = group_of(world).group_id
    assert returning.broker is not None
    replica = returning.broker.multi.replicas[group_id]
    other.crash()
    acked(world, produce(leading, batch([b"kept by two"])))
    world.cut.clear()
    world.run(3.0)
    assert returning.broker.cluster.applied >= group_of(world).placed[-1].placed_at_index
    assert returning.broker.multi.replicas[group_id] is replica
    assert replica.counting
    acked(world, produce(leading, batch([b"one node is down, and no more"])))

    # Nor does it go when all that is applied again.
    returning.crash()
    returning.start()
    world.run(3.0)
    assert replica_of(returning).counting
    assert replica_of(returning).raft.last_index == replica_of(leading).raft.last_index
    acked(world, produce(leader(world), batch([b"more"])))


def test_it_goes_when_it_is_sent_away_for_good() -> None:
    world, leading, other, returning = taken_back()
    group_id = group_of(world).group_id
    (spare,) = set(world.nodes) - {decider(world).node_id, leading.node_id, other.node_id, returning.node_id}
    reassign(world, [leading.node_id, other.node_id, spare])
    settled(world)
    world.cut.clear()
    world.run(3.0)
    assert returning.broker is not None
    assert group_id not in returning.broker.multi.replicas


def test_a_leader_that_has_not_heard_of_the_wish_does_not_move_its_group_back() -> None:
    world = world_of(5)
    settled(world)
    deciding = decider(world)
    first, second, third, spare = [node_id for node_id in world.nodes if node_id != deciding.node_id]
    reassign(world, [first, second, third])
    settled(world)
    world.run(6.0)
    late = world.nodes[second]
    world.cut |= {(deciding.node_id, second), (second, deciding.node_id)}
    reassign(world, [first, second, spare])
    settled(world)
    leading = world.nodes[first]
    assert leading.broker is not None
    replica_of(leading).raft.transfer_leadership(NodeId(second))
    leading.broker.multi.touch(replica_of(leading))
    leading.pump()
    world.run_until(lambda: replica_of(late).leads, 2.0, "leadership is not handed over")
    world.run(0.5)
    assert replica_of(late).leads
    assert set(replica_of(late).members) == {first, second, spare}
    world.cut.clear()
    world.run(2.0)
    reassign(world, [first, second, third])
    settled(world)

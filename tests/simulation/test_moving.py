"""Replicas move while records are written: nothing is lost, and nobody is left behind."""

from __future__ import annotations

from collections.abc import Iterable

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.metadata.topics import HostedGroup
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import FAST, acked, answer, batch, leader, produce, replica_of, values_on


def world_of(nodes: int) -> World:
    """A founded cluster with a topic `t` of one partition and three replicas."""
    world = World(1, nodes=nodes, pace=FAST)
    world.found()
    create_topic(world, "t", 1)
    leader(world)
    return world


def group_of(world: World) -> HostedGroup:
    """The topic's only group, as the leader of the metadata group knows it."""
    broker = decider(world).broker
    assert broker is not None
    topic = broker.catalogue.topic("t")
    assert topic is not None
    group = broker.catalogue.group(topic.partitions[0].group_id)
    assert group is not None
    return group


def decider(world: World) -> SimNode:
    """The node that leads the metadata group."""
    deciders = [node for node in world.nodes.values() if node.broker is not None and node.broker.cluster.takes_requests]
    return deciders[0]


def reassign(world: World, replicas: Iterable[int]) -> None:
    """Wish the topic's replicas to be on these nodes."""
    node = decider(world)
    assert node.broker is not None
    answers: list[pb.ReassignResponse] = []
    request = pb.ReassignRequest()
    request.placements.add(topic="t", partition=0, replicas=replicas)
    node.broker.members.reassign(request, answers.append)
    node.pump()
    response: pb.ReassignResponse = answer(world, answers)
    assert not response.HasField("error"), response.error


def settled(world: World, seconds: float = 20.0) -> None:
    world.run_until(lambda: group_of(world).settled, seconds, "the group does not settle")
    world.run(0.5)


def hosts(world: World) -> list[int]:
    """Nodes that have a replica of the topic's group."""
    group_id = group_of(world).group_id
    return [node_id for node_id, broker in world.brokers().items() if group_id in broker.multi.replicas]


def written(world: World, first: int, count: int = 5) -> list[bytes]:
    """Records that were acknowledged one by one."""
    values = [b"%d" % number for number in range(first, first + count)]
    for value in values:
        acked(world, produce(leader(world), batch([value])))
    return values


def test_a_replica_moves_to_a_node_that_had_none() -> None:
    world = world_of(4)
    settled(world)
    values = written(world, 0)
    before = group_of(world).replicas
    (new,) = set(world.nodes) - set(before)
    reassign(world, [*before[:2], new])
    settled(world)
    assert sorted(hosts(world)) == sorted([*before[:2], new])
    values += written(world, 5)
    world.run(0.5)
    replica = replica_of(world.nodes[new])
    assert replica.counting
    assert set(replica.voters) == {*before[:2], new}
    assert values_on(world, world.nodes[new]) == values
    # It votes: with one of the others away everything goes on.
    world.nodes[before[0]].crash()
    written(world, 10)


def test_all_replicas_move_at_once_while_their_leader_goes_with_them() -> None:
    world = world_of(6)
    settled(world)
    values = written(world, 0)
    before = set(group_of(world).replicas)
    after = sorted(set(world.nodes) - before)
    reassign(world, after)
    settled(world)
    assert sorted(hosts(world)) == after
    values += written(world, 5)
    world.run(0.5)
    for node_id in after:
        assert values_on(world, world.nodes[node_id]) == values


def test_a_move_to_a_dead_node_waits_and_can_be_taken_back() -> None:
    world = world_of(4)
    settled(world)
    values = written(world, 0)
    before = group_of(world).replicas
    (new,) = set(world.nodes) - set(before)
    world.nodes[new].crash()
    reassign(world, [*before[:2], new])
    world.run(3.0)
    assert not group_of(world).settled
    values += written(world, 5)
    reassign(world, before)
    settled(world)
    world.nodes[new].start()
    world.run(2.0)
    assert sorted(hosts(world)) == sorted(before)
    assert values_on(world, world.nodes[before[2]]) == values


def test_a_replica_that_comes_back_to_a_node_is_filled_anew() -> None:
    world = world_of(4)
    settled(world)
    values = written(world, 0)
    before = group_of(world).replicas
    (new,) = set(world.nodes) - set(before)
    for replicas in ([*before[:2], new], before):
        reassign(world, replicas)
        settled(world)
        values += written(world, len(values))
    world.run(0.5)
    assert sorted(hosts(world)) == sorted(before)
    assert values_on(world, world.nodes[before[2]]) == values
    assert replica_of(world.nodes[before[2]]).counting


def test_one_replica_becomes_three_and_one_again() -> None:
    world = world_of(3)
    settled(world)
    values = written(world, 0)
    for replicas in ([1], [3, 2, 1], [2]):
        reassign(world, replicas)
        settled(world)
        values += written(world, len(values))
        world.run(0.5)
        assert sorted(hosts(world)) == sorted(replicas)
        for node_id in replicas:
            assert values_on(world, world.nodes[node_id]) == values


def test_a_replica_that_left_and_came_back_while_its_node_was_down_begins_anew() -> None:
    """Its node hears of both in one turn: what is deleted must not be taken for what is there."""
    world = world_of(4)
    settled(world)
    values = written(world, 0)
    before = group_of(world).replicas
    (new,) = set(world.nodes) - set(before)
    away = world.nodes[next(one for one in before if world.nodes[one] not in (leader(world), decider(world)))]
    away.crash()
    stayed = [one for one in before if one != away.node_id]
    reassign(world, [*stayed, new])
    settled(world)
    values += written(world, len(values))
    reassign(world, before)
    world.run(1.0)
    away.start()
    settled(world)
    values += written(world, len(values))
    world.run(0.5)
    assert values_on(world, away) == values
    replica, storage = replica_of(away), away.database.storage
    assert storage is not None
    stored = GroupLog(storage, replica.group_id)
    assert (stored.first_index(), stored.last_index()) == (replica.log.first_index(), replica.log.last_index())
    assert stored.damaged == frozenset(), "what is in memory is on the disk"
    assert replica.counting

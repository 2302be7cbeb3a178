"""Partitions of `__groups` move like all others, and their coordinators with them."""

from __future__ import annotations

from quorumlog.chaos.sim.logs import committed_offsets
from quorumlog.chaos.sim.members import Delivery, SimMember
from quorumlog.chaos.sim.producers import SimProducer
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.metadata.topics import GROUPS_TOPIC
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import FAST, answer, leader


def move(world: World, replicas: list[int]) -> None:
    """Have the only partition of `__groups` on these nodes, the first one leading it."""
    world.run(8.0)  # until it is known where the groups are
    node = next(node for node in world.nodes.values() if node.broker is not None and node.broker.cluster.takes_requests)
    assert node.broker is not None
    answers: list[pb.ReassignResponse] = []
    request = pb.ReassignRequest()
    request.placements.add(topic=GROUPS_TOPIC, partition=0, replicas=replicas)
    node.broker.members.reassign(request, answers.append)
    node.pump()
    response: pb.ReassignResponse = answer(world, answers)
    assert not response.HasField("error"), response.error
    first = world.nodes[replicas[0]]
    world.run_until(lambda: leader(world, 0, GROUPS_TOPIC) is first, 40.0, f"node {replicas[0]} does not lead")


def test_a_node_that_has_a_partition_again_coordinates_from_what_it_holds_now() -> None:
    world = World(1, nodes=4, pace=FAST, groups_partitions=1)
    world.found()
    create_topic(world, "t", 1)
    move(world, [1, 2, 3])
    deliveries: list[Delivery] = []
    member = SimMember(world, 1, "g", ["t"], deliveries)
    producer = SimProducer(world)
    for number, replicas in enumerate(([4, 2, 3], [1, 2, 3])):
        producer.send("t", 0, b"%d" % number)
        world.run_until(lambda: number in {one.offset for one in deliveries}, 20.0, "the record is not consumed")  # noqa: B023 # called in this round
        move(world, replicas)
    producer.send("t", 0, b"2")
    world.run_until(lambda: 2 in {one.offset for one in deliveries}, 20.0, "the last record is not consumed")
    world.run_until(lambda: 3 in committed_offsets(world, "g").values(), 20.0, "its offset is not committed")
    assert not member.errors

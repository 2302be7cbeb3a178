"""A node that has lost its whole database votes nowhere, and is given nothing that others can take."""

from __future__ import annotations

from quorumlog.chaos.sim.world import SimNode
from quorumlog.node.broker.leadership import BALANCE_SECONDS
from quorumlog.node.storage.interface import RecoveryMode
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import (
    acked,
    answer,
    batch,
    leader,
    others,
    produce,
    replica_of,
    values_on,
    with_topic,
)


def lose_database(node: SimNode) -> None:
    """Crash a node and leave of its data folder the small files only: identity, votes, watermark."""
    node.crash()
    node.database.refusing = frozenset(RecoveryMode)
    node.start()


def test_no_replica_of_a_node_that_lost_its_database_counts_again() -> None:
    world, _ = with_topic(partitions=2)
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    lossy, third = others(world, node)
    lose_database(lossy)
    world.run(3.0)
    for _ in range(2):
        assert lossy.broker is not None
        assert third.broker is not None
        assert sorted(lossy.broker.multi.replicas) == sorted(third.broker.multi.replicas)
        counting = [group_id for group_id, replica in lossy.broker.multi.replicas.items() if replica.counting]
        assert counting == [], "it has forgotten what it held of these groups, so its word must not make a majority"
        assert values_on(world, lossy) == [b"a"]
        lossy.crash()
        lossy.start()
        world.run(1.0)


def test_it_tells_operators_in_a_word_for_all_its_replicas() -> None:
    world, _ = with_topic(partitions=2)
    lossy = others(world, leader(world))[0]
    lose_database(lossy)
    world.run(3.0)
    assert lossy.broker is not None
    total = len(lossy.broker.multi.replicas)
    why, what = lossy.broker.findings.look()
    assert "this node entered REPAIR" in why.message
    assert f"{total} of its {total} replicas are in repair" in what.message
    assert what.message.endswith(f": t partition 0, t partition 1, __cluster partition 0 and {total - 3} more")
    assert (what.subject, what.fix) == (why.subject, why.fix), "so that doctor lays them together"
    assert "keep the other nodes running" in what.fix


def test_a_topic_that_is_made_meanwhile_does_without_it_where_others_have_room() -> None:
    world, _ = with_topic()
    lossy = others(world, leader(world))[0]
    lose_database(lossy)
    world.run(3.0)

    def create(name: str, replicas: int) -> list[tuple[int, ...]]:
        answers: list[pb.CreateTopicResponse] = []
        decider = next(one for one in world.nodes.values() if one.broker is not None and one.broker.cluster.decides)
        assert decider.broker is not None
        request = pb.CreateTopicRequest(name=name, partitions=4, replicas=replicas)
        decider.broker.admin.create_topic(request, answers.append)
        decider.pump()
        created: pb.CreateTopicResponse = answer(world, answers)
        assert not created.HasField("error"), created.error
        return [tuple(partition.replicas) for partition in created.topic.partitions]

    assert all(lossy.node_id not in replicas for replicas in create("pairs", 2))
    everywhere = create("everywhere", 3)
    assert all(len(replicas) == 3 and replicas[0] != lossy.node_id for replicas in everywhere)
    world.run(1.0)
    acked(world, produce(leader(world, topic="everywhere"), batch([b"b"]), topic="everywhere"))
    world.run(0.2)
    assert not replica_of(lossy, topic="everywhere").counting, "a birth in repair is one"
    assert values_on(world, lossy, topic="everywhere") == [b"b"]


def test_leadership_is_not_offered_to_it() -> None:
    """An offer stops the writes of a group for an election timeout, and a replica in repair never takes it."""
    world, _ = with_topic()
    first = leader(world)
    assert first.broker is not None
    group_id = replica_of(first).group_id
    preferred = world.nodes[first.broker.catalogue.group(group_id).replicas[0]]  # type: ignore[union-attr]
    lose_database(preferred)
    world.run(2.0)
    node = leader(world)
    assert node is not preferred
    assert node.broker is not None
    until = world.clock.now() + 3 * BALANCE_SECONDS
    while world.clock.now() < until:
        world.run(0.05)
        assert replica_of(node).raft.transferring_to is None

    answers: list[pb.TransferLeadershipResponse] = []
    request = pb.TransferLeadershipRequest(topic="t", partition=0, to_node_id=preferred.node_id)
    node.broker.transfers.transfer(request, answers.append)
    assert "its replica is in repair" in answers[0].error.message

    node.broker.begin_stop()
    node.pump()
    world.run_until(lambda: not (node.broker and node.broker.leads_with_peers), 1.0, "leadership is not handed over")
    assert leader(world) not in (node, preferred)

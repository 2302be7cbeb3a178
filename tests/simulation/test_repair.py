"""A node that has lost its database votes nowhere and is given nothing that others can take, until it has all again."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.node.broker.leadership import BALANCE_SECONDS
from quorumlog.node.storage.interface import RecoveryMode
from quorumlog.proto import client_pb2 as pb
from quorumlog.raft import following
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


def lose_database(node: SimNode, *, disk_hangs: bool = False) -> None:
    """Crash a node and leave of its data folder the small files only: identity, votes, watermark.

    While its disk hangs, nothing that it takes becomes durable, and its repair does not end.
    """
    node.crash()
    node.database.refusing = frozenset(RecoveryMode)
    if disk_hangs:
        node.hold_syncs()
    node.start()


def in_repair(node: SimNode) -> list[int]:
    """The groups whose replicas on a node do not count."""
    assert node.broker is not None
    return sorted(group_id for group_id, replica in node.broker.multi.replicas.items() if not replica.counting)


def test_a_node_that_lost_its_database_is_whole_again_without_a_hand() -> None:
    world, _ = with_topic(partitions=2)
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    lossy, third = others(world, node)
    lose_database(lossy)
    world.run(3.0)
    assert lossy.broker is not None
    assert third.broker is not None
    assert sorted(lossy.broker.multi.replicas) == sorted(third.broker.multi.replicas)
    assert in_repair(lossy) == []
    assert [one for one in lossy.broker.findings.look() if one.severity == pb.PROBLEM] == []
    lossy.crash()
    lossy.start()
    world.run(1.0)
    assert in_repair(lossy) == [], "that it is whole was written down"
    third.crash()
    acked(world, produce(leader(world), batch([b"b"])))
    assert values_on(world, lossy)[:1] == [b"a"]


def test_what_it_takes_before_that_is_durable_makes_no_majority() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    lossy, third = others(world, node)
    lose_database(lossy, disk_hangs=True)
    world.run(1.0)
    third.crash()
    results = produce(node, batch([b"b"]))
    world.run(3.0)
    assert not results or results[0].HasField("error")
    assert in_repair(lossy) == sorted(lossy.broker.multi.replicas)  # type: ignore[union-attr]


def test_a_restart_in_the_middle_begins_with_a_nonce_of_its_own() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    lossy, _ = others(world, node)
    lose_database(lossy, disk_hangs=True)
    world.run(1.0)
    lossy.crash()
    lossy.start()
    world.run(1.0)
    assert in_repair(lossy), "what was forgotten does not come back with a restart"
    lossy.release_syncs()
    world.run(2.0)
    assert in_repair(lossy) == []


def test_without_a_majority_of_whole_voters_a_replica_stays_in_repair() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    lossy, third = others(world, node)
    third.crash()
    lose_database(lossy)
    world.run(5.0)
    assert in_repair(lossy) == sorted(lossy.broker.multi.replicas)  # type: ignore[union-attr]
    third.start()
    world.run(3.0)
    assert in_repair(lossy) == []
    assert values_on(world, lossy) == [b"a"]


def test_it_tells_operators_in_a_word_for_all_its_replicas() -> None:
    world, _ = with_topic(partitions=2)
    lossy = others(world, leader(world))[0]
    lose_database(lossy, disk_hangs=True)
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
    lose_database(lossy, disk_hangs=True)
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
    lossy.release_syncs()
    world.run(2.0)
    assert replica_of(lossy, topic="everywhere").counting
    assert values_on(world, lossy, topic="everywhere") == [b"b"]


def test_leadership_is_not_offered_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offer stops the writes of a group for an election timeout, and a replica in repair never takes it."""
    world, _ = with_topic()
    first = leader(world)
    assert first.broker is not None
    group_id = replica_of(first).group_id
    preferred = world.nodes[first.broker.catalogue.group(group_id).replicas[0]]  # type: ignore[union-attr]
    monkeypatch.setattr(following, "leave_repair", lambda core: None)
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

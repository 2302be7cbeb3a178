"""TransferLeadership answers when it is known who leads, and says who does when that is not the node asked for."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import FAST, acked, answer, batch, isolate, leader, others, produce, replica_of, with_topic

ELECTION_SECONDS = 10 * FAST.tick_seconds


def transfer(node: SimNode, target: int) -> list[pb.TransferLeadershipResponse]:
    """Ask a node for it; its answer will be appended to the list returned."""
    assert node.broker is not None
    answers: list[pb.TransferLeadershipResponse] = []
    request = pb.TransferLeadershipRequest(topic="t", partition=0, to_node_id=target)
    node.broker.transfers.transfer(request, answers.append)
    node.pump()
    return answers


def refused(world: World, answers: list[pb.TransferLeadershipResponse]) -> pb.Error:
    response = answer(world, answers)
    assert isinstance(response, pb.TransferLeadershipResponse)
    assert response.HasField("error")
    return response.error


@pytest.mark.parametrize("seed", range(5))
def test_it_answers_once_the_other_node_leads(seed: int) -> None:
    world, _ = with_topic(seed)
    old = leader(world)
    world.run(1.0)
    target = others(world, old)[seed % 2]
    answers = transfer(old, target.node_id)
    assert not answers, "it has only begun"
    assert not answer(world, answers, ELECTION_SECONDS).HasField("error")
    assert replica_of(target).raft.is_leader
    assert replica_of(old).raft.leader_id == target.node_id
    acked(world, produce(leader(world), batch([b"a"])))


def test_who_leads_already_answers_at_once_and_who_follows_names_the_leader() -> None:
    world, _ = with_topic()
    node = leader(world)
    assert transfer(node, node.node_id) == [pb.TransferLeadershipResponse()]
    (told,) = transfer(others(world, node)[0], node.node_id)
    assert (told.error.code, told.error.leader.node_id) == (pb.NOT_LEADER, node.node_id)


def test_a_node_that_is_down_is_refused_without_stopping_the_partition() -> None:
    world, _ = with_topic()
    node = leader(world)
    target = others(world, node)[0]
    target.crash()
    (told,) = transfer(node, target.node_id)
    assert (told.error.code, told.error.retriable) == (pb.NOT_YET_AVAILABLE, True)
    assert told.error.message == (
        f"node {target.node_id} does not lead topic 't' partition 0: node {node.node_id} does not hear of it; "
        f"node {node.node_id} leads it still"
    )
    assert f"whether node {target.node_id} is up" in told.error.hint
    acked(world, produce(node, batch([b"a"])), ELECTION_SECONDS)


def test_a_node_that_does_not_take_over_is_given_up_after_an_election_timeout() -> None:
    world, _ = with_topic()
    node = leader(world)
    target, third = others(world, node)
    world.run(1.0)
    world.cut.add((node.node_id, target.node_id))  # it is heard, and hears nothing
    answers = transfer(node, target.node_id)
    world.run(ELECTION_SECONDS / 2)
    assert not answers
    told = refused(world, answers)
    assert (told.code, told.retriable) == (pb.NOT_YET_AVAILABLE, True)
    assert "it did not take over within an election timeout" in told.message
    assert f"node {node.node_id} leads it still" in told.message
    assert told.leader.node_id == node.node_id
    assert not replica_of(third).raft.is_leader


def test_a_leader_that_loses_everybody_meanwhile_answers_too() -> None:
    world, _ = with_topic()
    node = leader(world)
    answers = transfer(node, others(world, node)[0].node_id)
    isolate(world, node)
    told = refused(world, answers)
    assert told.retriable
    assert "leads it still" in told.message or "no leader is known here" in told.message


def test_a_deleted_topic_ends_it() -> None:
    world, _ = with_topic()
    node = leader(world)
    target = others(world, node)[0]
    world.run(1.0)
    target.hold_syncs()  # it takes over late
    decider = next(one for one in world.nodes.values() if one.broker is not None and one.broker.cluster.decides)
    assert decider.broker is not None
    acked(world, produce(node, batch([b"a"])))
    answers = transfer(node, target.node_id)
    decider.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), lambda response: None)
    decider.pump()
    told = refused(world, answers)
    assert told.code == pb.UNKNOWN_TOPIC

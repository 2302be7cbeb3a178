"""Topics that come and go, and replicas that a database has lost."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import group_range
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import (
    acked,
    answer,
    batch,
    fetch,
    fetched,
    founded,
    isolate,
    leader,
    leaders,
    others,
    produce,
    replica_of,
    values_on,
    with_topic,
)


def delete_topic(world: World, name: str = "t") -> None:
    """Delete a topic, and wait until every running node has heard."""
    for node in world.nodes.values():
        if node.broker is not None and node.broker.cluster.decides:
            answers: list[pb.DeleteTopicResponse] = []
            node.broker.admin.delete_topic(pb.DeleteTopicRequest(name=name), answers.append)
            node.pump()
            assert not answer(world, answers).HasField("error")
    world.run_until(
        lambda: all(broker.catalogue.topic(name) is None for broker in world.brokers().values()), 10.0, "still there"
    )


def rows_of(node: SimNode, group_id: int) -> int:
    """How many rows a node's database has of a group."""
    storage = node.database.storage
    assert storage is not None
    return sum(len(storage.scan(family, *group_range(group_id))) for family in Family)


def test_the_space_of_a_deleted_topic_returns_on_every_node() -> None:
    world, _ = with_topic()
    node = leader(world)
    group_id = replica_of(node).group_id
    for number in range(20):
        acked(world, produce(node, batch([b"%d" % number], producer_id=7, sequence=number)))
    assert all(rows_of(one, group_id) for one in world.nodes.values())
    delete_topic(world)
    world.run(0.5)
    assert [rows_of(one, group_id) for one in world.nodes.values()] == [0, 0, 0]
    for one in world.nodes.values():
        one.crash()
    world.start_all()
    world.run(2.0)
    assert [rows_of(one, group_id) for one in world.nodes.values()] == [0, 0, 0]


def test_a_node_that_slept_through_a_deletion_deletes_when_it_hears_of_it() -> None:
    world, _ = with_topic()
    node = leader(world)
    group_id = replica_of(node).group_id
    acked(world, produce(node, batch([b"a"])))
    sleeper = others(world, node)[0]
    sleeper.crash()
    delete_topic(world)
    sleeper.start()
    world.run(2.0)
    assert rows_of(sleeper, group_id) == 0


def test_a_topic_made_again_under_its_name_is_another_one() -> None:
    world, first = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"old"], producer_id=7)))
    delete_topic(world)
    second = create_topic(world, "t", 1)
    assert second != first
    node = leader(world)
    acked(world, produce(node, batch([b"new"], producer_id=7)))
    assert values_on(world, node) == [b"new"]
    assert node.broker is not None
    request = pb.FetchRequest()
    request.partitions.add(topic_id=first, topic="t", partition=0, offset=0)
    responses: list[pb.FetchResponse] = []
    node.broker.fetching.fetch(request, responses.append)
    assert fetched(world, responses).error.code == pb.UNKNOWN_TOPIC


def test_a_node_that_is_cut_off_does_not_deny_a_topic_that_it_has_not_heard_of() -> None:
    world = founded()
    cut_off = next(one for one in world.nodes.values() if one.broker is not None and not one.broker.cluster.decides)
    cut_off.crash()
    create_topic(world, "late", 1)
    cut_off.start()
    isolate(world, cut_off)
    assert said_of(world, cut_off, "late") == {pb.NOT_YET_AVAILABLE}
    world.cut.clear()
    world.run_until(lambda: said_of(world, cut_off, "late") == {pb.OK}, 10.0, "it does not hear of the topic")
    assert said_of(world, cut_off, "never") == {pb.UNKNOWN_TOPIC}


def said_of(world: World, node: SimNode, name: str) -> set[pb.ErrorCode.ValueType]:
    """The errors with which a node answers two questions about a topic; OK where there is none."""
    assert node.broker is not None
    listed: list[pb.MetadataResponse] = []
    described: list[pb.DescribeTopicResponse] = []
    node.broker.admin.metadata(pb.MetadataRequest(topics=[name]), listed.append)
    node.broker.admin.describe_topic(pb.DescribeTopicRequest(name=name), described.append)
    node.pump()
    return {answer(world, listed).topics[0].error.code, answer(world, described).error.code}


@pytest.mark.parametrize("seed", range(5))
def test_whoever_waits_at_a_topic_that_is_deleted_is_answered(seed: int) -> None:
    world, topic_id = with_topic(seed)
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    polls = fetch(node, 1, max_wait_ms=60_000)
    listed: list[pb.ListOffsetsResponse] = []
    assert node.broker is not None
    waiting = []
    deleter = next(one for one in world.nodes.values() if one.broker is not None and one.broker.cluster.decides)
    assert deleter.broker is not None
    deleter.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), lambda response: None)
    deleter.pump()
    asked = 0
    while node.broker.catalogue.topic("t") is not None:
        request = pb.ListOffsetsRequest()
        request.partitions.add(topic_id=topic_id, partition=0, latest=True)
        if asked < 50:
            node.broker.offsets.list_offsets(request, listed.append)
            asked += 1
            waiting.append(produce(node, batch([b"b"])))
        assert world.step()
    world.run(2.0)
    assert all(waiting), "a batch is never answered"
    assert len(listed) == asked, "a question for an offset is never answered"
    assert polls, "a long poll is never answered"


def lose(node: SimNode, group_id: int) -> None:
    """Remove everything of a group from the database of a node that is down, as a failing disk does."""
    storage = node.database.storage
    assert storage is not None
    for family in Family:
        for key, _ in storage.scan(family, *group_range(group_id)):
            storage.damage(family, key, None)


@pytest.mark.parametrize("folded", [False, True], ids=["replayed", "folded"])
def test_a_replica_that_the_database_has_lost_counts_only_when_it_has_all_again(folded: bool) -> None:
    world, _ = with_topic()
    node = leader(world)
    group_id = replica_of(node).group_id
    acked(world, produce(node, batch([b"a"])))
    lossy, third = others(world, node)
    if folded:
        lossy.stop()
        lossy.start()
    lossy.crash()
    lose(lossy, group_id)
    third.crash()
    lossy.start()
    world.run(2.0)
    assert not replica_of(lossy).counting
    assert lossy.broker is not None
    findings = [one for one in lossy.broker.findings.look() if one.subject == f"node {lossy.node_id}"]
    assert any("1 replica was here and gone from the database: t partition 0" in one.message for one in findings)

    # Its word makes no majority: with the third node away nothing is acknowledged.
    results = produce(node, batch([b"b"]))
    world.run(3.0)
    assert not results or results[0].HasField("error")
    assert not replica_of(lossy).counting
    third.start()
    node = leader(world)
    acked(world, produce(node, batch([b"c"])))
    world.run(2.0)
    assert replica_of(lossy).counting
    assert list(lossy.broker.findings.look()) == []
    assert values_on(world, lossy)[0] == b"a"


def test_a_lost_replica_of_the_metadata_group_does_not_vote_anew() -> None:
    world = founded()
    create_topic(world, "t", 1)
    node, second, third = world.nodes.values()
    for one in (node, second, third):
        one.crash()
    lose(node, 1)
    node.start()
    second.start()
    world.run(3.0)
    assert node.broker is not None
    replicas = node.broker.multi.replicas
    assert [replicas[1].counting] == [False]
    assert not any(broker.cluster.decides for broker in world.brokers().values())
    third.start()
    world.run(3.0)
    assert [replicas[1].counting] == [True]
    assert node.broker.catalogue.topic("t") is not None


def test_a_replica_born_while_a_node_was_down_is_a_voter_when_it_comes_back() -> None:
    world = founded()
    sleeper = world.nodes[3]
    sleeper.crash()
    create_topic(world, "t", 1)
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    sleeper.start()
    world.run(2.0)
    assert replica_of(sleeper).counting
    other = next(one for one in world.nodes.values() if one not in (node, sleeper))
    other.crash()
    acked(world, produce(leader(world), batch([b"b"])))


def test_leadership_goes_back_to_the_preferred_replica() -> None:
    world, _ = with_topic(partitions=3)
    catalogue = world.brokers()[1].catalogue
    topic = catalogue.topic("t")
    assert topic is not None
    preferred = {partition.partition: partition.replicas[0] for partition in topic.partitions}
    assert 1 in preferred.values()
    world.nodes[1].crash()
    world.run(2.0)
    world.nodes[1].start()
    world.run(15.0)
    assert {partition: leader(world, partition).node_id for partition in range(3)} == preferred


def test_a_leader_cut_off_from_its_followers_steps_down() -> None:
    world, _ = with_topic()
    node = leader(world)
    isolate(world, node)
    world.run(3.0)
    assert node not in leaders(world)


def test_a_replica_removed_in_the_turn_in_which_its_read_is_confirmed_is_let_go_in_peace() -> None:
    world, topic_id = with_topic()
    node = leader(world)
    broker = node.broker
    assert broker is not None
    cluster, replica = broker.multi.replicas[1], replica_of(node)
    before = cluster.raft.commit_index
    deleter = next(one for one in world.nodes.values() if one.broker is not None and one.broker.cluster.decides)
    assert deleter.broker is not None
    deleter.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), lambda response: None)
    deleter.pump()
    request = pb.ListOffsetsRequest()
    request.partitions.add(topic_id=topic_id, partition=0, latest=True)
    listed: list[pb.ListOffsetsResponse] = []
    broker.offsets.list_offsets(request, listed.append)
    node.pump()

    # Both pieces of news wait for one turn of the node, the removal in front.
    node.pump = lambda: None  # type: ignore[method-assign]
    world.run_until(
        lambda: cluster.raft.commit_index > before and bool(replica.raft._core.read_states), 5.0, "the news do not come"
    )
    del node.pump
    broker.multi._dirty.pop(replica.group_id)
    broker.multi.touch(replica)
    node.pump()
    world.run(1.0)
    assert listed[0].offsets[0].error.code in (pb.NOT_LEADER, pb.UNKNOWN_TOPIC)
    assert rows_of(node, replica.group_id) == 0

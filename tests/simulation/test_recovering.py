"""When a majority is gone for good, an operator lets a group go on from what one replica has."""

from __future__ import annotations

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker.recovery import IDS_SKIPPED
from quorumlog.node.storage.entry import payload_of
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.raft import EntryKind, LogIndex
from tests.simulation.scenes import (
    acked,
    answer,
    batch,
    leader,
    leaders,
    others,
    produce,
    replica_of,
    values_on,
    with_topic,
)


def recover(node: SimNode, topic: str, *, accept_loss: bool, partition: int = 0) -> list[pb.RecoverResponse]:
    """Ask a node; its answer will be appended to the list returned."""
    assert node.broker is not None
    answers: list[pb.RecoverResponse] = []
    request = pb.RecoverRequest(topic=topic, partition=partition, accept_loss=accept_loss)
    node.broker.recovery.recover(request, answers.append)
    node.pump()
    return answers


def left_alone(producer_ids: int = 0) -> tuple[World, SimNode]:
    """A topic with a record, ids handed out to producers, and the one node of three that is left."""
    world, _ = with_topic()
    node = leader(world)
    if producer_ids:
        allocate(world, node, producer_ids)
    acked(world, produce(node, batch([b"a", b"b"])))
    world.run(0.5)
    survivor = others(world, node)[0]
    for one in others(world, survivor):
        one.crash()
    world.run(3.0)
    return world, survivor


def allocate(world: World, node: SimNode, count: int) -> None:
    """Take ids for producers, as a node does that has none left."""
    assert node.broker is not None
    incarnation = node.broker.catalogue.nodes[node.node_id].incarnation
    ids = internal_pb2.AllocateProducerIds(node_id=node.node_id, incarnation=incarnation, count=count)
    outcomes: list[object] = []
    node.broker.cluster.submit(internal_pb2.ClusterCommand(allocate_producer_ids=ids), 5.0, outcomes.append)
    node.pump()
    answer(world, outcomes)


def recovered(world: World, node: SimNode, topic: str, partition: int = 0) -> pb.RecoverResponse:
    """The answer to a recovery that must work."""
    response: pb.RecoverResponse = answer(world, recover(node, topic, accept_loss=True, partition=partition))
    assert not response.HasField("error"), response.error
    return response


def test_it_is_told_first_what_may_be_gone() -> None:
    world, survivor = left_alone()
    (told,) = recover(survivor, "t", accept_loss=False)
    assert told.from_node_id == survivor.node_id
    assert told.first_offset_in_doubt == 2
    world.run(3.0)
    assert not leaders(world), "nothing was done"


def test_a_group_goes_on_from_one_replica_and_spreads_again() -> None:
    world, survivor = left_alone()
    recovered(world, survivor, "__cluster")
    for partition in range(16):
        recovered(world, survivor, "__groups", partition)
    recovered(world, survivor, "t")
    assert leader(world) is survivor
    result = acked(world, produce(survivor, batch([b"c"])))
    assert result.base_offset == 2
    control = [entry for entry in entries(survivor) if b"recovered" in entry]
    assert len(control) == 1, "the log itself says what has happened"

    # The others come back: they had voted for a configuration of three, and take over what is there now.
    for one in others(world, survivor):
        one.start()
    world.run(10.0)
    for one in world.nodes.values():
        assert values_on(world, one) == [b"a", b"b", b"c"]
        assert replica_of(one).counting
        assert set(replica_of(one).voters) == {1, 2, 3}
    survivor.crash()
    acked(world, produce(leader(world), batch([b"d"])))


def entries(node: SimNode) -> list[bytes]:
    """The control entries of the topic's log, each named by what it holds."""
    log = replica_of(node).log
    found = []
    for index in range(log.first_index(), log.last_index() + 1):
        (entry,) = log.entries(LogIndex(index), LogIndex(index), 1)
        if entry.kind is EntryKind.CONTROL:
            control = internal_pb2.ControlRecord.FromString(payload_of(entry.data))
            found.append((control.WhichOneof("control") or "").encode())
    return found


def test_a_recovered_metadata_group_gives_out_no_id_again() -> None:
    world, survivor = left_alone()
    assert survivor.broker is not None
    before = survivor.broker.catalogue.next_group_id
    recovered(world, survivor, "__cluster")
    assert survivor.broker.catalogue.next_group_id == before + IDS_SKIPPED
    for one in others(world, survivor):
        one.start()
    world.run(5.0)
    create_topic(world, "later", 1)


def test_a_recovered_metadata_group_is_the_same_everywhere() -> None:
    world, survivor = left_alone(producer_ids=1000)
    recovered(world, survivor, "__cluster")
    for one in others(world, survivor):
        one.start()
    world.run(10.0)
    catalogues = [broker.catalogue for broker in world.brokers().values()]
    assert [one.next_producer_id for one in catalogues] == [1 + 1000 + IDS_SKIPPED] * 3
    assert len({one.digest() for one in catalogues}) == 1


def test_a_group_that_has_a_leader_is_left_alone() -> None:
    world, _ = with_topic()
    node = leader(world)
    (told,) = recover(others(world, node)[0], "t", accept_loss=True)
    assert told.error.code == pb.INVALID_REQUEST
    assert f"is led by node {node.node_id}" in told.error.message
    (told,) = recover(node, "nowhere", accept_loss=True)
    assert "has no replica of topic 'nowhere' partition 0" in told.error.message

"""A clean stop hands leadership over before it ends, and leaves nothing to be replayed or repaired."""

from __future__ import annotations

from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import (
    acked,
    answer,
    batch,
    leader,
    leaders,
    produce,
    replica_of,
    values_on,
    with_topic,
)


def test_a_stopping_node_hands_its_leadership_over_within_moments_and_without_an_election_timeout() -> None:
    world, _ = with_topic(partitions=3)
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    world.run(0.2)
    assert node.broker is not None
    node.broker.begin_stop()
    node.pump()
    # An election timeout is 10 ticks of 0.02 s at least.
    world.run_until(lambda: not (node.broker and node.broker.leads_with_peers), 0.15, "leadership is not handed over")
    world.run_until(
        lambda: all(leaders(world, partition) for partition in range(3)), 0.05, "the partitions are not led again"
    )
    assert all(node not in leaders(world, partition) for partition in range(3))
    new = leader(world)
    assert values_on(world, new) == [b"a"]
    acked(world, produce(new, batch([b"b"])))


def test_a_stopping_node_goes_on_to_the_next_replica_when_one_does_not_take_over() -> None:
    world, _ = with_topic()
    node = leader(world)
    world.run(0.2)
    assert node.broker is not None
    node.broker.begin_stop()
    first = replica_of(node).raft.transferring_to
    assert first is not None
    world.nodes[first].hold_syncs()
    for _ in range(10):
        node.broker.begin_stop()
        node.pump()
        world.run(0.1)
    assert replica_of(node).raft.leader_id not in (node.node_id, first)
    assert not node.broker.leads_with_peers


def test_a_stopping_node_takes_no_records_and_says_that_it_did_not() -> None:
    world, _ = with_topic()
    node = leader(world)
    assert node.broker is not None
    node.broker.begin_stop()
    result = answer(world, produce(node, batch([b"a"])))
    assert (result.error.code, result.error.outcome, result.error.retriable) == (
        pb.SHUTTING_DOWN,
        pb.NOT_APPENDED,
        True,
    )


def test_a_batch_in_flight_when_the_stop_begins_is_acknowledged() -> None:
    world, _ = with_topic()
    node = leader(world)
    results = produce(node, batch([b"a"]))
    assert node.broker is not None
    node.broker.begin_stop()
    node.pump()
    assert acked(world, results).base_offset == 0


def test_what_was_acknowledged_before_a_clean_stop_of_all_nodes_is_there_after_their_start() -> None:
    world, _ = with_topic()
    node = leader(world)
    for number in range(10):
        acked(world, produce(node, batch([b"%d" % number], producer_id=7, sequence=number)))
    for one in world.nodes.values():
        one.stop()
    world.start_all()
    node = leader(world)
    assert all(replica_of(one).counting for one in world.nodes.values())
    assert values_on(world, node) == [b"%d" % number for number in range(10)]
    again = acked(world, produce(node, batch([b"9"], producer_id=7, sequence=9), attempt=1))
    assert (again.base_offset, again.duplicate) == (9, True)

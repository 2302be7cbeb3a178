"""What readers are told: never that logs part where one is only behind, never the end of a log by who does not lead."""

from __future__ import annotations

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import (
    acked,
    batch,
    fetch,
    fetched,
    isolate,
    leader,
    leaders,
    others,
    produce,
    replica_of,
    with_topic,
)


def deposed_leader(world: World, tail: list[bytes]) -> tuple[SimNode, SimNode]:
    """(a leader that has been cut off and does not know of its successor, the successor). `tail` is what the former
    has appended alone.
    """
    old = leader(world)
    acked(world, produce(old, batch([b"a"])))
    world.run(0.1)
    isolate(world, old)
    for value in tail:
        produce(old, batch([value]))
    rest = others(world, old)
    for node in rest:
        replica = replica_of(node)
        replica.raft.report_unreachable(replica.raft.leader_id)
    world.run_until(lambda: any(node in rest for node in leaders(world)), 20.0, "the majority does not elect a leader")
    new = leaders(world)[0]
    assert replica_of(old).leads, "the scene needs a leader that does not know better"
    return old, new


def test_a_deposed_leader_that_is_merely_behind_does_not_say_diverged() -> None:
    world, _ = with_topic()
    old, new = deposed_leader(world, [])
    result = acked(world, produce(new, batch([b"b", b"c"])))
    part = fetched(world, fetch(old, 3, epoch=result.leader_epoch))
    assert part.error.code == pb.NOT_LEADER


def test_a_deposed_leader_does_not_judge_by_a_tail_that_nobody_else_has() -> None:
    world, _ = with_topic()
    old, new = deposed_leader(world, [b"x", b"y"])
    result = acked(world, produce(new, batch([b"b"])))
    part = fetched(world, fetch(old, 2, epoch=result.leader_epoch))
    assert part.error.code == pb.NOT_LEADER
    world.cut.clear()
    world.run(1.0)
    part = fetched(world, fetch(new, 2, epoch=result.leader_epoch))
    assert not part.HasField("error")


def test_a_follower_does_not_judge_by_a_tail_that_will_be_replaced() -> None:
    world, _ = with_topic()
    first = leader(world)
    acked(world, produce(first, batch([b"a"])))
    world.run(0.1)
    # Records that reach one follower, and a term of the other that does not have them.
    with_tail, without = others(world, first)
    world.cut |= {(first.node_id, without.node_id), (with_tail.node_id, first.node_id)}
    produce(first, batch([b"b"]))
    world.run(0.05)
    assert replica_of(with_tail).log.log_end_offset == 2
    part = fetched(world, fetch(with_tail, 3, epoch=replica_of(first).raft.term, any_replica=True))
    assert part.error.code == pb.NOT_YET_AVAILABLE


def test_diverged_is_said_where_the_log_contradicts_what_was_read() -> None:
    world, _ = with_topic()
    old = leader(world)
    acked(world, produce(old, batch([b"a"])))
    epoch = replica_of(old).raft.term
    old.crash()
    new = leader(world)
    old.start()
    acked(world, produce(new, batch([b"b", b"c"])))
    for node in (new, others(world, new)[0]):
        world.run(0.5)
        part = fetched(world, fetch(node, 2, epoch=epoch, any_replica=True))
        assert (part.error.code, part.error.end_offset, part.error.leader_epoch) == (pb.DIVERGED, 1, epoch)


def test_a_position_beyond_the_end_of_its_own_epoch_has_diverged() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    part = fetched(world, fetch(node, 9, epoch=replica_of(node).raft.term))
    assert (part.error.code, part.error.end_offset) == (pb.DIVERGED, 1)


def test_out_of_range_is_said_only_after_the_leader_has_proved_to_be_one() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"])))
    part = fetched(world, fetch(node, 5))
    assert (part.error.code, part.error.log_start_offset, part.error.log_end_offset) == (pb.OUT_OF_RANGE, 0, 1)
    isolate(world, node)
    responses = fetch(node, 5)
    assert not responses
    assert fetched(world, responses).error.code == pb.NOT_LEADER


def test_a_replica_that_is_behind_says_not_yet_available() -> None:
    world, _ = with_topic()
    node = leader(world)
    follower = others(world, node)[0]
    isolate(world, follower)
    acked(world, produce(node, batch([b"a", b"b"])))
    part = fetched(world, fetch(follower, 2, any_replica=True))
    assert part.error.code == pb.NOT_YET_AVAILABLE


def test_nothing_above_the_high_watermark_is_read() -> None:
    world, _ = with_topic()
    node = leader(world)
    for other in others(world, node):
        other.hold_syncs()
    results = produce(node, batch([b"a"]))
    world.run(0.5)
    part = fetched(world, fetch(node, 0))
    assert not part.HasField("error")
    assert not part.rows.records
    responses = fetch(node, 0, max_wait_ms=5000)
    for other in others(world, node):
        other.release_syncs()
    acked(world, results)
    assert [record.value for record in fetched(world, responses).rows.records] == [b"a"]


def test_a_subscription_whose_position_comes_into_range_during_the_proof_goes_on() -> None:
    world, _ = with_topic()
    node = leader(world)
    got: list[pb.FetchResponse] = []
    for other in others(world, node):
        other.hold_syncs()
    results = produce(node, batch([b"a", b"b"]))
    assert node.broker is not None
    opened = pb.SubscribeRequest()
    opened.open.credit_bytes = 1 << 20
    opened.open.format = pb.ROWS
    opened.open.partitions.add(topic="t", partition=0, offset=1)
    # Offset 1 is not committed yet, so the leader has to prove itself; meanwhile it is committed.
    for other in others(world, node):
        world.cut |= {(other.node_id, node.node_id)}
    assert node.broker.subscribing.open(opened, got.append) is not None
    node.pump()
    for other in others(world, node):
        other.release_syncs()
    world.cut.clear()
    acked(world, results)
    world.run(1.0)
    offsets = [record.offset for part in got for record in part.partitions[0].rows.records]
    assert offsets[-1:] == [1], "the batch comes whole, and with it the record that was asked for"
    assert not any(part.partitions[0].HasField("error") for part in got)

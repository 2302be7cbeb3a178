"""Retries never duplicate, and outcomes are true: duplicates, failover, producers that are not known any more."""

from __future__ import annotations

import math
import random

from quorumlog.chaos.sim.world import World
from quorumlog.errors import Fatal, Outcome, Retriable
from quorumlog.node.replica.producers import PRODUCER_TTL_MS, TIME_STEP_MS_MAX
from quorumlog.partition_sender import PartitionSender
from quorumlog.pending import PendingBatch
from quorumlog.proto import client_pb2 as pb
from tests.simulation.scenes import (
    acked,
    answer,
    batch,
    isolate,
    leader,
    others,
    produce,
    replica_of,
    values_on,
    with_topic,
)


def test_a_retry_of_a_committed_batch_gets_its_offset_and_is_not_appended_again() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"x"])))
    first = acked(world, produce(node, batch([b"a", b"b"], producer_id=7)))
    again = acked(world, produce(node, batch([b"a", b"b"], producer_id=7), attempt=1))
    assert (first.base_offset, first.duplicate) == (1, False)
    assert (again.base_offset, again.duplicate, again.leader_epoch) == (1, True, first.leader_epoch)
    assert values_on(world, node) == [b"x", b"a", b"b"]


def test_a_retry_of_a_batch_that_is_not_committed_yet_is_answered_when_it_is() -> None:
    world, _ = with_topic()
    node = leader(world)
    for other in others(world, node):
        other.hold_syncs()
    first = produce(node, batch([b"a"], producer_id=7))
    again = produce(node, batch([b"a"], producer_id=7), attempt=1)
    world.run(1.0)
    assert not first
    assert not again
    for other in others(world, node):
        other.release_syncs()
    assert acked(world, first).base_offset == 0
    assert acked(world, again).duplicate
    assert values_on(world, node) == [b"a"]


def test_a_retry_whose_first_attempt_is_lost_with_the_leadership_is_told_that_the_outcome_is_unknown() -> None:
    world, _ = with_topic()
    old = leader(world)
    isolate(world, old)
    first = produce(old, batch([b"a"], producer_id=7))
    again = produce(old, batch([b"a"], producer_id=7), attempt=1)
    world.run_until(lambda: bool(first and again), 20.0, "the isolated leader does not step down")
    assert [one[0].error.outcome for one in (first, again)] == [pb.OUTCOME_UNKNOWN] * 2


def test_a_new_leader_knows_the_batches_in_its_uncommitted_tail() -> None:
    world, _ = with_topic()
    old = leader(world)
    acked(world, produce(old, batch([b"a"], producer_id=7)))
    isolate_answers(world, old.node_id)
    lost = produce(old, batch([b"b"], producer_id=7, sequence=1))
    world.run(0.1)
    old.crash()
    assert not lost
    world.cut.clear()
    new = leader(world)
    assert new is not old
    result = acked(world, produce(new, batch([b"b"], producer_id=7, sequence=1), attempt=1))
    assert result.base_offset == 1
    assert result.duplicate
    assert values_on(world, new) == [b"a", b"b"]


def test_a_new_leader_answers_a_retry_before_its_first_entry_is_committed_only_with_that_entry() -> None:
    world, _ = with_topic()
    old = leader(world)
    isolate_answers(world, old.node_id)
    produce(old, batch([b"a"], producer_id=7))
    world.run(0.1)
    old.crash()
    world.cut.clear()
    waiting = [other for other in others(world, old) if other.broker is not None]
    world.run_until(lambda: any(replica_of(node).leads for node in waiting), 20.0, "nobody leads")
    new = next(node for node in waiting if replica_of(node).leads)
    for other in waiting:
        if other is not new:
            other.hold_syncs()
    again = produce(new, batch([b"a"], producer_id=7), attempt=1)
    committed = replica_of(new).ready_to_decide
    world.run(0.2)
    assert bool(again) is committed
    for other in waiting:
        other.release_syncs()
    assert acked(world, again).base_offset == 0
    assert values_on(world, new) == [b"a"]


def isolate_answers(world: World, node_id: int) -> None:
    """Let a node speak and not hear."""
    world.cut |= {(other, node_id) for other in world.nodes if other != node_id}


def test_an_unknown_producer_is_not_appended_on_a_first_attempt_and_unknown_on_a_retry() -> None:
    world, _ = with_topic()
    node = leader(world)
    first = answer(world, produce(node, batch([b"a"], producer_id=9, sequence=4)))
    retry = answer(world, produce(node, batch([b"a"], producer_id=9, sequence=4), attempt=1))
    assert (first.error.code, first.error.outcome) == (pb.UNKNOWN_PRODUCER, pb.NOT_APPENDED)
    assert (retry.error.code, retry.error.outcome) == (pb.UNKNOWN_PRODUCER, pb.OUTCOME_UNKNOWN)
    assert values_on(world, node) == []


def test_a_gap_is_refused_and_may_be_sent_again_once_it_is_filled() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"], producer_id=7)))
    gap = answer(world, produce(node, batch([b"c"], producer_id=7, sequence=2)))
    assert (gap.error.code, gap.error.outcome, gap.error.retriable) == (pb.OUT_OF_ORDER_SEQUENCE, pb.NOT_APPENDED, True)
    acked(world, produce(node, batch([b"b"], producer_id=7, sequence=1)))
    acked(world, produce(node, batch([b"c"], producer_id=7, sequence=2), attempt=1))
    assert values_on(world, node) == [b"a", b"b", b"c"]


def test_an_older_epoch_is_fenced_once_a_newer_one_has_written() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"], producer_id=7)))
    acked(world, produce(node, batch([b"b"], producer_id=7, epoch=1)))
    fenced = answer(world, produce(node, batch([b"c"], producer_id=7, sequence=1)))
    assert (fenced.error.code, fenced.error.outcome) == (pb.PRODUCER_FENCED, pb.NOT_APPENDED)


def test_a_batch_older_than_the_last_five_is_known_to_be_there_at_an_offset_no_longer_known() -> None:
    world, _ = with_topic()
    node = leader(world)
    for sequence in range(7):
        acked(world, produce(node, batch([b"%d" % sequence], producer_id=7, sequence=sequence)))
    forgotten = answer(world, produce(node, batch([b"1"], producer_id=7, sequence=1), attempt=1))
    remembered = acked(world, produce(node, batch([b"2"], producer_id=7, sequence=2), attempt=1))
    assert forgotten.error.code == pb.DUPLICATE_SEQUENCE
    assert remembered.base_offset == 2


def test_a_producer_that_has_been_silent_for_its_time_is_forgotten_by_every_replica_at_the_same_entry() -> None:
    world, _ = with_topic()
    node = leader(world)
    acked(world, produce(node, batch([b"a"], producer_id=7)))
    world.clock.set_wall_ms(world.clock.wall_ms() + PRODUCER_TTL_MS + TIME_STEP_MS_MAX)
    acked(world, produce(node, batch([b"b"])))
    still = acked(world, produce(node, batch([b"a"], producer_id=7), attempt=1))
    assert still.duplicate, "one entry does not tell whether the time has passed or a clock is wrong"
    for _ in range(PRODUCER_TTL_MS // TIME_STEP_MS_MAX):
        world.clock.set_wall_ms(world.clock.wall_ms() + TIME_STEP_MS_MAX)
        acked(world, produce(node, batch([b"b"])))
    forgotten = answer(world, produce(node, batch([b"c"], producer_id=7, sequence=1)))
    assert forgotten.error.code == pb.UNKNOWN_PRODUCER
    world.run(1.0)
    snapshots = {replica_of(other).machine.snapshot() for other in world.nodes.values()}
    assert len(snapshots) == 1


def test_a_leader_that_hands_over_does_not_blame_a_batch_for_what_it_turned_away_before_it() -> None:
    world, _ = with_topic()
    node = leader(world)
    target = others(world, node)[0]
    world.cut |= {(node.node_id, target.node_id)}
    acked(world, produce(node, batch([b"x"])))
    assert node.broker is not None
    request = pb.TransferLeadershipRequest(topic="t", partition=0, to_node_id=target.node_id)
    node.broker.transfers.transfer(request, lambda response: None)
    assert replica_of(node).raft.transferring_to == target.node_id
    first = answer(world, produce(node, batch([b"a"], producer_id=7), attempt=1))
    second = answer(world, produce(node, batch([b"b"], producer_id=7, sequence=1), attempt=1))
    for result in (first, second):
        assert (result.error.code, result.error.outcome, result.error.retriable) == (
            pb.NOT_LEADER,
            pb.NOT_APPENDED,
            True,
        )


def test_a_producer_sends_again_in_order_when_the_leader_knows_it_not_because_its_first_batch_was_turned_away() -> None:
    sender = PartitionSender("t", b"i" * 16, 0, 7, 0, random.Random(1))
    for value in (b"a", b"b"):
        sender.open = PendingBatch("t", 0, 0.0, math.inf)
        sender.open.add(value, None, (), 0, 20)
        sender.seal()
    for answered in ("lost", "refused"):
        now = sender.retry_at + 1.0
        attempts = [sender.next_attempt(now, linger=0.0, batch_size=1, idle=True) for _ in range(2)]
        first, second = attempts
        assert first is not None
        assert second is not None
        if answered == "lost":
            for attempt in (first, second):
                sender.refused(attempt, Retriable("lost", outcome=Outcome.UNKNOWN), now)
        else:
            unknown = Fatal("who?", code="UNKNOWN_PRODUCER", outcome=Outcome.UNKNOWN)
            sender.refused(second, unknown, now)
            sender.refused(first, Retriable("not now", outcome=Outcome.NOT_APPENDED), now)
    assert not sender.failed
    now = sender.retry_at + 1.0
    again = [sender.next_attempt(now, linger=0.0, batch_size=1, idle=True) for _ in range(2)]
    assert [(attempt.batch.base_sequence, attempt.batch.epoch) for attempt in again if attempt] == [(0, 0), (1, 0)]

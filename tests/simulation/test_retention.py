"""Retention: what readers may no longer read, what is dropped, and for whose sake something is kept."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.node.replica import folds as folds_module
from quorumlog.node.storage import group_log
from quorumlog.proto import client_pb2 as pb
from quorumlog.raft import NodeId
from tests.simulation.scenes import acked, batch, fetch, fetched, leader, others, produce, replica_of, with_topic

CONFIGS = {"retention.bytes": "4000", "max.message.bytes": "3000"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds and milestones every few entries, so that a short log has places at which it may be cut."""
    monkeypatch.setattr(folds_module, "FOLD_SIZE_BYTES_MIN", 500)
    monkeypatch.setattr(folds_module, "FOLD_AMPLIFICATION_MIN", 0)
    monkeypatch.setattr(group_log, "ENTRIES_PER_ROW", 4)


def fill(world: World, node: SimNode, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        record = batch([b"%d" % number + b"x" * 300], producer_id=7, sequence=number)
        acked(world, produce(node, record))


def test_every_replica_drops_the_same_prefix_and_says_where_it_begins(small: None) -> None:
    world, _ = with_topic(configs=CONFIGS)
    node = leader(world)
    fill(world, node, 40)
    world.run(2.0)
    starts = {replica_of(one).partition.log_start_offset for one in world.nodes.values()}  # type: ignore[union-attr]
    assert len(starts) == 1
    (start,) = starts
    assert 0 < start < 40
    for one in world.nodes.values():
        replica = replica_of(one)
        assert replica.raft.first_index > 1
        assert replica.log.size_bytes < 40 * 300
    part = fetched(world, fetch(node, 0))
    assert (part.error.code, part.error.log_start_offset) == (pb.OUT_OF_RANGE, start)


def test_a_trimmed_log_survives_a_restart_with_its_producers(small: None) -> None:
    world, _ = with_topic(configs=CONFIGS)
    fill(world, leader(world), 40)
    world.run(2.0)
    states = {replica_of(one).machine.snapshot() for one in world.nodes.values()}
    assert len(states) == 1
    for one in world.nodes.values():
        one.crash()
    world.start_all()
    node = leader(world)
    again = acked(world, produce(node, batch([b"39" + b"x" * 300], producer_id=7, sequence=39), attempt=1))
    assert (again.base_offset, again.duplicate) == (39, True)
    fill(world, node, 10, first=40)
    world.run(1.0)
    assert len({replica_of(one).machine.snapshot() for one in world.nodes.values()}) == 1


def test_a_dead_replica_holds_nothing_back_and_is_sent_a_snapshot_when_it_returns(small: None) -> None:
    world, _ = with_topic(configs=CONFIGS)
    node = leader(world)
    fill(world, node, 5)
    world.run(0.5)
    dead = others(world, node)[0]
    had = replica_of(dead).raft.last_index
    dead.crash()
    fill(world, node, 40, first=5)
    world.run(2.0)
    assert replica_of(node).raft.first_index > had + 1, "what it lacks is gone"
    dead.start()
    world.run(3.0)
    returned = replica_of(dead)
    assert returned.raft.applied == replica_of(node).raft.applied
    assert returned.raft.first_index == replica_of(node).raft.first_index
    assert returned.machine.snapshot() == replica_of(node).machine.snapshot()
    assert dead.broker is not None
    assert dead.broker.snapshots.installed == 1
    start = returned.partition.log_start_offset  # type: ignore[union-attr]
    part = fetched(world, fetch(dead, start, any_replica=True))
    assert [record.offset for record in part.rows.records][:1] == [start]
    dead.crash()
    dead.start()
    world.run(1.0)
    assert replica_of(dead).machine.snapshot() == replica_of(node).machine.snapshot()


def test_a_living_replica_that_is_behind_is_waited_for(small: None) -> None:
    world, _ = with_topic(configs=CONFIGS)
    node = leader(world)
    fill(world, node, 5)
    slow = others(world, node)[0]
    slow.hold_syncs()
    world.run(0.5)
    had = replica_of(node).raft.progress(NodeId(slow.node_id)).match_index  # type: ignore[union-attr]
    fill(world, node, 40, first=5)
    world.run(2.0)
    assert replica_of(node).raft.first_index <= had + 1
    slow.release_syncs()
    world.run(2.0)
    assert replica_of(node).raft.first_index > had + 1


def test_a_follower_reads_what_it_serves_from_where_its_log_begins(small: None) -> None:
    world, _ = with_topic(configs=CONFIGS)
    node = leader(world)
    fill(world, node, 40)
    world.run(2.0)
    start = replica_of(node).partition.log_start_offset  # type: ignore[union-attr]
    for one in world.nodes.values():
        part = fetched(world, fetch(one, start, any_replica=True))
        assert part.rows.records[-1].offset <= 39
        assert any(record.offset == start for record in part.rows.records)


def test_records_are_dropped_by_the_time_in_the_entries() -> None:
    world, _ = with_topic(configs={"retention.ms": "1000"})
    node = leader(world)
    acked(world, produce(node, batch([b"old"])))
    world.run(3.0)
    result = acked(world, produce(node, batch([b"new"])))
    assert result.base_offset == 1
    starts = [replica_of(one).partition.log_start_offset for one in world.nodes.values()]  # type: ignore[union-attr]
    assert starts == [1, 1, 1]
    part = fetched(world, fetch(node, 1))
    assert [record.value for record in part.rows.records] == [b"new"]

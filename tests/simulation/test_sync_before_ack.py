"""Acknowledged means that a majority has synced: whatever the moment at which the power goes."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from tests.simulation.scenes import FAST, acked, answer, batch, founded, leader, others, produce, values_on, with_topic


def test_nothing_is_acknowledged_while_two_of_three_nodes_hold_their_syncs() -> None:
    world, _ = with_topic()
    node = leader(world)
    for other in others(world, node):
        other.hold_syncs()
    results = produce(node, batch([b"a"]))
    world.run(1.0)
    assert not results
    others(world, node)[0].release_syncs()
    assert acked(world, results).base_offset == 0


def test_the_leader_does_not_count_itself_before_its_own_sync() -> None:
    world, _ = with_topic()
    node = leader(world)
    node.hold_syncs()
    others(world, node)[0].hold_syncs()
    results = produce(node, batch([b"a"]))
    world.run(1.0)
    assert not results
    node.release_syncs()
    assert acked(world, results).base_offset == 0


def test_two_followers_are_a_majority_while_the_leader_holds_its_sync() -> None:
    world, _ = with_topic()
    node = leader(world)
    node.hold_syncs()
    results = produce(node, batch([b"a"]))
    acked(world, results)
    node.crash()
    assert values_on(world, leader(world)) == [b"a"]


def produce_three(seed: int) -> tuple[World, list[list[object]]]:
    world = founded(seed, pace=FAST)
    create_topic(world, "t", 1)
    node = leader(world)
    return world, [produce(node, batch([b"%d" % number])) for number in range(3)]  # type: ignore[misc]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_power_cut_at_any_event_loses_no_acknowledged_record(seed: int) -> None:
    world, results = produce_three(seed)
    before = world.events_run
    for one in results:
        answer(world, one)
    events = world.events_run - before
    assert events > 10
    for crash_after in range(events + 1):
        world, results = produce_three(seed)
        for _ in range(crash_after):
            world.step()
        told = [b"%d" % number for number, one in enumerate(results) if one and not one[0].HasField("error")]  # type: ignore[attr-defined]
        for node in world.nodes.values():
            node.crash()
        world.start_all()
        kept = values_on(world, leader(world))
        assert kept[: len(told)] == told, f"crash after {crash_after} events: {told} were acknowledged, {kept} are left"

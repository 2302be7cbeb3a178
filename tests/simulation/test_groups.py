"""Consumer groups on whole clusters: members that die, sleep, hang, and coordinators that move."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from quorumlog.chaos.sim.logs import committed_offsets
from quorumlog.chaos.sim.members import Delivery, SimMember
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.producers import SimProducer
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import Pace, World
from quorumlog.fetching import FetchSettings
from quorumlog.node.metadata.topics import GROUPS_TOPIC
from tests.simulation.scenes import FAST, founded, leader, leaders

GROUP = "g"
PARTITIONS = 6
RECORDS = 60


def group(world: World, count: int, **options: object) -> tuple[list[SimMember], list[Delivery]]:
    """Members that have settled, each with its share."""
    deliveries: list[Delivery] = []
    members = [SimMember(world, number, GROUP, ["t"], deliveries, **options) for number in range(count)]  # type: ignore[arg-type]
    settle(world, members)
    return members, deliveries


def settle(world: World, members: list[SimMember], seconds: float = 30.0) -> None:
    """Wait until the members own everything, each about the same number."""

    def settled() -> bool:
        owned = [len(member.member.owned) for member in members]
        return sum(owned) == PARTITIONS and max(owned) - min(owned) <= 1

    world.run_until(settled, seconds, "the group does not settle")


def scene(seed: int = 1, pace: Pace = FAST) -> World:
    world = founded(seed, pace=pace)
    create_topic(world, "t", PARTITIONS)
    for partition in range(PARTITIONS):
        leader(world, partition)
    return world


def send(world: World, producer: SimProducer, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        producer.send("t", number % PARTITIONS, b"%d" % number)
    world.run_until(lambda: producer.settled, 20.0, "the records are not acknowledged")


def delivered(deliveries: list[Delivery]) -> Counter[bytes | None]:
    return Counter(one.value for one in deliveries)


def all_delivered(world: World, deliveries: list[Delivery], count: int, seconds: float = 20.0) -> None:
    wanted = {b"%d" % number for number in range(count)}
    world.run_until(
        lambda: {one.value for one in deliveries} >= wanted,
        seconds,
        f"records are skipped: {len(wanted)} wanted",
    )


def coordinator(world: World) -> SimNode:
    """The node that coordinates the group."""
    for partition in range(16):
        for node in leaders(world, partition, GROUPS_TOPIC):
            assert node.broker is not None
            for one in node.broker.groups._coordinators.values():
                if one.is_leading and GROUP in one.state.groups:
                    return node
    raise AssertionError("nobody coordinates the group")


@pytest.mark.parametrize("seed", range(3))
def test_a_group_of_three_over_six_partitions_skips_nothing_when_a_member_dies(seed: int) -> None:
    world = scene(seed)
    members, deliveries = group(world, 3)
    producer = SimProducer(world)
    send(world, producer, RECORDS)
    members[1].die()
    send(world, producer, RECORDS, first=RECORDS)
    settle(world, [members[0], members[2]])
    all_delivered(world, deliveries, 2 * RECORDS)


def test_a_member_that_leaves_hands_over_without_repetition() -> None:
    world = scene()
    members, deliveries = group(world, 3)
    producer = SimProducer(world)
    send(world, producer, RECORDS)
    all_delivered(world, deliveries, RECORDS)
    world.run(2.0)  # everything is committed
    members[1].leave()
    settle(world, [members[0], members[2]])
    send(world, producer, RECORDS, first=RECORDS)
    all_delivered(world, deliveries, 2 * RECORDS)
    assert set(delivered(deliveries).values()) == {1}


def test_partitions_that_stay_with_their_member_never_pause_when_another_one_joins() -> None:
    world = scene()
    members, deliveries = group(world, 2)
    cursors = {member: dict(member.core.cursors) for member in members}
    producer = SimProducer(world)
    sent = [0]

    def stream() -> None:
        for partition in range(PARTITIONS):
            producer.send("t", partition, b"%d" % sent[0])
            sent[0] += 1
        if world.clock.now() < end:
            world.after(0.05, stream)

    began, end = world.clock.now(), world.clock.now() + 6.0
    stream()
    world.run(2.0)
    # The rebalance is drawn out: one member hears for two seconds nothing of what it is to give back.
    joined, members[1].stuck = world.clock.now(), True
    late = SimMember(world, 9, GROUP, ["t"], deliveries)
    world.run(2.0)
    assert len(late.member.owned) < 2, "the rebalance is over already"
    members[1].unstick()
    settle(world, [*members, late])
    settled = world.clock.now()
    all_delivered(world, deliveries, sent[0])

    for member in members:
        kept = member.core.cursors
        assert set(kept) < set(cursors[member]), "a member gives away and gets nothing it did not have"
        for tp, cursor in kept.items():
            assert cursor is cursors[member][tp], f"{tp} began anew"
            times = [one.at for one in deliveries if one.partition == tp.partition]
            steady = _longest_gap([at for at in times if began + 0.5 <= at < joined])
            moving = _longest_gap([at for at in times if joined <= at <= settled + 0.5])
            assert moving < 2 * steady, f"{tp} paused for {moving:.3f} s, otherwise at most {steady:.3f} s"
    assert set(delivered(deliveries).values()) == {1}


def _longest_gap(times: list[float]) -> float:
    return max(later - sooner for sooner, later in pairwise(times))


def test_a_member_whose_handler_sleeps_ten_minutes_keeps_its_partitions() -> None:
    # Slow ticks and long polls: only so that ten minutes are not made of a million events.
    world = scene(pace=Pace(tick_seconds=0.5))
    naps = [600.0]
    settings = FetchSettings(max_wait=20.0)
    members, deliveries = group(
        world, 2, handler_seconds=lambda: naps.pop() if naps else 0.0, session_timeout=30.0, settings=settings
    )
    before = [member.member.owned for member in members]
    producer = SimProducer(world)
    send(world, producer, 6)
    world.run(590.0)
    assert any(member._busy for member in members)
    assert [member.member.owned for member in members] == before
    world.run(20.0)
    all_delivered(world, deliveries, 6)
    assert set(delivered(deliveries).values()) == {1}


def test_a_member_whose_background_loop_is_stuck_loses_its_partitions() -> None:
    world = scene()
    members, deliveries = group(world, 2)
    members[0].stuck = True
    world.run_until(lambda: len(members[1].member.owned) == PARTITIONS, 30.0, "the stuck member keeps its partitions")
    producer = SimProducer(world)
    send(world, producer, RECORDS)
    all_delivered(world, deliveries, RECORDS)
    members[0].unstick()
    settle(world, members)


@pytest.mark.parametrize("seed", range(3))
def test_committed_offsets_and_membership_survive_the_death_of_the_coordinator(seed: int) -> None:
    world = scene(seed)
    members, deliveries = group(world, 2)
    producer = SimProducer(world)
    send(world, producer, RECORDS)
    all_delivered(world, deliveries, RECORDS)
    world.run(2.0)
    ids = [member.member.member_id for member in members]
    committed = committed_offsets(world, GROUP)
    assert sum(committed.values()) == RECORDS
    node = coordinator(world)
    node.crash()
    world.run_until(lambda: all(member.member.joined for member in members), 20.0, "the members do not come back")
    world.run(1.0)
    assert coordinator(world) is not node
    assert [member.member.member_id for member in members] == ids
    assert committed_offsets(world, GROUP) == committed
    send(world, producer, RECORDS, first=RECORDS)
    all_delivered(world, deliveries, 2 * RECORDS)
    assert set(delivered(deliveries).values()) == {1}, "nobody starts again from an older offset"


def test_a_group_goes_on_where_it_was_after_everything_lost_its_power() -> None:
    world = scene()
    _, deliveries = group(world, 2)
    producer = SimProducer(world)
    send(world, producer, RECORDS)
    all_delivered(world, deliveries, RECORDS)
    world.run(2.0)
    for node in world.nodes.values():
        node.crash()
    world.start_all()
    send(world, producer, RECORDS, first=RECORDS)
    all_delivered(world, deliveries, 2 * RECORDS)
    assert set(delivered(deliveries).values()) == {1}

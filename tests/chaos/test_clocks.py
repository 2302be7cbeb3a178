"""A node's clock may be wrong in every way that a machine's can."""

import pytest

from quorumlog.chaos.sim.clocks import NodeClock
from quorumlog.node.clock import ManualClock


def test_a_rate_holds_from_when_it_is_set() -> None:
    world = ManualClock(100.0)
    clock = NodeClock(world)
    world.advance(10.0)
    clock.set_rate(2.0)
    world.advance(10.0)
    assert clock.now() == pytest.approx(130.0)
    clock.set_rate(0.5)
    world.advance(10.0)
    assert clock.now() == pytest.approx(135.0)


def test_a_reading_comes_at_the_time_that_is_foretold() -> None:
    world = ManualClock(100.0)
    clock = NodeClock(world)
    clock.set_rate(0.8)
    clock.leap(3.0)
    when = clock.world_time(111.0)
    world.advance(when - world.now())
    assert clock.now() == pytest.approx(111.0)


def test_wall_and_monotonic_time_are_wrong_apart() -> None:
    world = ManualClock(100.0)
    clock = NodeClock(world)
    clock.set_wall_offset(-60.0)
    assert clock.wall_ms() == world.wall_ms() - 60_000
    assert clock.now() == world.now()
    clock.leap(5.0)
    assert clock.wall_ms() == world.wall_ms() - 60_000

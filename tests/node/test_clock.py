"""The clocks of a node."""

import time

import pytest

from quorumlog.node.clock import MONOTONIC_OFFSET_SECONDS, Clock, ManualClock, SystemClock


def test_the_system_clock_never_goes_back_and_cannot_be_mistaken_for_another() -> None:
    clock: Clock = SystemClock()
    readings = [clock.now() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[0] - time.monotonic() > MONOTONIC_OFFSET_SECONDS / 2


def test_the_system_clock_tells_the_wall_time_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().wall_ms() <= time.time_ns() // 1_000_000


def test_a_manual_clock_moves_both_readings_and_only_when_told() -> None:
    clock = ManualClock(now=5.0, wall_ms=1_000)
    assert (clock.now(), clock.wall_ms()) == (5.0, 1_000)
    clock.advance(600.0)
    assert (clock.now(), clock.wall_ms()) == (605.0, 601_000)


def test_the_wall_time_may_jump_without_the_monotonic_one() -> None:
    clock = ManualClock(now=5.0, wall_ms=1_000)
    clock.advance(1.0)
    clock.set_wall_ms(10)
    assert (clock.now(), clock.wall_ms()) == (6.0, 10)
    clock.advance(0.5)
    assert clock.wall_ms() == 510


def test_monotonic_time_never_goes_back() -> None:
    with pytest.raises(AssertionError, match="cannot go back"):
        ManualClock().advance(-1.0)

"""Deadlines: their order, and that those which are cancelled do not pile up."""

from __future__ import annotations

import pytest

from quorumlog.node.timers import Timer, Timers


def test_deadlines_run_in_their_order_and_equal_ones_as_they_were_set() -> None:
    timers, ran = Timers(), list[str]()
    for due, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "later")):
        timers.at(due, lambda name=name: ran.append(name))  # type: ignore[misc]
    assert timers.next_due() == 1.0
    assert timers.run(2.0) == 3
    assert ran == ["a", "b", "c"]
    assert timers.next_due() == 9.0


def test_a_cancelled_deadline_does_not_run_and_wakes_nobody() -> None:
    timers, ran = Timers(), list[str]()
    timer = timers.at(1.0, lambda: ran.append("x"))
    timer.cancel()
    timer.cancel()
    assert timers.next_due() is None
    assert timers.run(5.0) == 0
    assert not ran


def test_a_deadline_can_cancel_another_one_that_is_due_as_well() -> None:
    timers, ran = Timers(), list[str]()
    second: list[Timer] = []

    def cancel_second() -> None:
        second[0].cancel()

    timers.at(1.0, cancel_second)
    second.append(timers.at(1.0, lambda: ran.append("second")))
    timers.run(1.0)
    assert not ran


def test_what_a_deadline_sets_waits_for_the_next_run() -> None:
    timers, ran = Timers(), list[str]()

    def set_another() -> None:
        timers.at(1.0, lambda: ran.append("again"))

    timers.at(1.0, set_another)
    timers.run(1.0)
    assert not ran
    timers.run(1.0)
    assert ran == ["again"]


def test_cancelled_deadlines_far_away_do_not_pile_up() -> None:
    timers, ran = Timers(), list[int]()
    for number in range(100_000):
        timer = timers.at(1e9 + number, lambda: None)
        if number % 1000:
            timer.cancel()
        else:
            timers.at(float(number), lambda number=number: ran.append(number))  # type: ignore[misc]
    assert len(timers) < 3000
    timers.run(1e8)
    assert ran == list(range(0, 100_000, 1000)), "and those that are left keep their order"


def test_a_deadline_that_is_no_number_is_refused() -> None:
    with pytest.raises(AssertionError, match="no number"):
        Timers().at(float("nan"), lambda: None)

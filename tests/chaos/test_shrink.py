"""Shrinking keeps what a failure needs, and little else."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.chaos.sim.shrink import shrink

NUMBERS = st.integers(0, 60)


@given(st.sets(NUMBERS, max_size=5), st.sets(NUMBERS, max_size=40))
def test_what_is_needed_is_found_among_everything_else(needed: set[int], others: set[int]) -> None:
    def fails(strokes: Sequence[int]) -> bool:
        return needed <= set(strokes)

    assert shrink(sorted(needed | others), fails) == sorted(needed)


def test_one_of_several_causes_is_enough() -> None:
    assert shrink(range(60), lambda strokes: 7 in strokes or 41 in strokes) in ([7], [41])


def test_a_failure_that_needs_no_fault_is_told_by_an_empty_schedule() -> None:
    assert shrink(range(60), lambda strokes: True) == []

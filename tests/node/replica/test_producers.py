"""What a partition remembers of producers, against a dumb second implementation that never wraps and never forgets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.replica.producers import SEQUENCE_MODULUS, ProducedBatch, Producer, Verdict, fold, judge


def produced(base_sequence: int, count: int, index: int = 0) -> ProducedBatch:
    return ProducedBatch(base_sequence, count, 100 + base_sequence, 5, 1, index)


def producer(epoch: int, *batches: tuple[int, int]) -> Producer:
    """A producer that has written batches of (base sequence, count)."""
    known: Producer | None = None
    for base_sequence, count in batches:
        known = fold(known, epoch, produced(base_sequence, count), 5)
    assert known is not None
    return known


SEVEN = producer(3, *((10 * number, 10) for number in range(7)))


@pytest.mark.parametrize(
    ("known", "epoch", "base_sequence", "count", "verdict"),
    [
        (None, 0, 0, 5, Verdict.APPEND),
        (None, 7, 0, 5, Verdict.APPEND),
        (None, 0, 5, 5, Verdict.UNKNOWN_PRODUCER),
        (SEVEN, 3, 70, 1, Verdict.APPEND),
        (SEVEN, 3, 60, 10, Verdict.DUPLICATE),
        (SEVEN, 3, 20, 10, Verdict.DUPLICATE),
        (SEVEN, 3, 20, 9, Verdict.OVERLAP),
        (SEVEN, 3, 25, 5, Verdict.OVERLAP),
        (SEVEN, 3, 10, 10, Verdict.FORGOTTEN_DUPLICATE),
        (SEVEN, 3, 0, 10, Verdict.FORGOTTEN_DUPLICATE),
        (SEVEN, 3, 71, 1, Verdict.OUT_OF_ORDER),
        (SEVEN, 2, 70, 1, Verdict.FENCED),
        (SEVEN, 2, 60, 10, Verdict.FENCED),
        (SEVEN, 4, 0, 1, Verdict.APPEND),
        (SEVEN, 4, 70, 1, Verdict.OUT_OF_ORDER),
    ],
)
def test_each_verdict(known: Producer | None, epoch: int, base_sequence: int, count: int, verdict: Verdict) -> None:
    assert judge(known, epoch, base_sequence, count).verdict is verdict


def test_a_gap_is_answered_with_the_sequence_that_is_missing() -> None:
    assert judge(SEVEN, 3, 90, 1).expected_sequence == 70
    assert judge(SEVEN, 4, 90, 1).expected_sequence == 0


def test_a_duplicate_is_answered_with_the_batch_that_it_repeats() -> None:
    judgement = judge(SEVEN, 3, 40, 10)
    assert judgement.batch is not None
    assert judgement.batch.base_offset == 140


def test_a_new_epoch_begins_with_nothing_remembered() -> None:
    bumped = fold(SEVEN, 4, produced(0, 2), 5)
    assert judge(bumped, 4, 60, 10).verdict is Verdict.OUT_OF_ORDER
    assert judge(bumped, 4, 0, 2).verdict is Verdict.DUPLICATE


class DumbProducer:
    """Every batch ever written, in records since the first one, as numbers that do not wrap."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    @property
    def end(self) -> int:
        return self.batches[-1][0] + self.batches[-1][1]

    def judge(self, start: int, count: int) -> Verdict:
        remembered = self.batches[-5:]
        if start == self.end:
            return Verdict.APPEND
        if start > self.end:
            return Verdict.OUT_OF_ORDER
        for known, known_count in remembered:
            if known == start:
                return Verdict.DUPLICATE if known_count == count else Verdict.OVERLAP
        return Verdict.OVERLAP if start > remembered[0][0] else Verdict.FORGOTTEN_DUPLICATE


@given(
    first=st.one_of(st.integers(0, 20), st.integers(SEQUENCE_MODULUS - 40, SEQUENCE_MODULUS - 1)),
    attempts=st.lists(st.tuples(st.integers(-60, 20), st.integers(1, 12), st.booleans()), min_size=1, max_size=40),
)
def test_any_run_of_attempts_is_judged_as_by_a_list_that_does_not_wrap(
    first: int, attempts: list[tuple[int, int, bool]]
) -> None:
    dumb = DumbProducer()
    dumb.batches.append((first, 3))
    known = producer(1, (first, 3))
    for distance, count, in_order in attempts:
        start = dumb.end if in_order else max(first, dumb.end + distance)
        judgement = judge(known, 1, start % SEQUENCE_MODULUS, count)
        assert judgement.verdict is dumb.judge(start, count)
        if judgement.verdict is Verdict.APPEND:
            dumb.batches.append((start, count))
            known = fold(known, 1, produced(start % SEQUENCE_MODULUS, count), 5)
        assert known.next_sequence == dumb.end % SEQUENCE_MODULUS
        assert len(known.batches) <= 5

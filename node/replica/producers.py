"""What a partition remembers of its producers, so that a retry never duplicates (KIP-98, KIP-360).

A producer is known by its id; each of its batches carries the producer's epoch and the sequence number of its first
record. The last five batches per producer are remembered, because a client keeps at most five in flight.

This is a fold over the log: every replica computes it from the same entries, and a snapshot of it stands for the
prefix. The part that is not committed yet is an *overlay*, kept by the leader alone and dropped with its leadership.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

SEQUENCE_MODULUS = 1 << 31
"""Sequences count records and wrap here."""

BATCHES_REMEMBERED = 5
"""Per producer; the client's limit of batches in flight per partition is the same."""

PRODUCER_TTL_MS = 7 * 24 * 3600 * 1000
"""A producer that has written nothing for this long, by the partition's own time, is forgotten."""

PURGE_PERIOD_MS = 3600 * 1000
"""Expired producers are looked for when the partition's time enters another period of this length."""

TIME_STEP_MS_MAX = PURGE_PERIOD_MS
"""What one entry can add to the partition's time, however much later than the one before it says that it is."""


@dataclass(frozen=True, slots=True)
class ProducedBatch:
    """One remembered batch. `index` is 0 once nobody needs to know which entry it was."""

    base_sequence: int
    count: int
    base_offset: int
    append_time_ms: int
    leader_epoch: int
    index: int


class Producer(NamedTuple):
    """What is known of one producer; `batches` are the last ones, oldest first, all of `epoch`. `last_active_ms` is the
    partition's own time when it wrote the last one.
    """

    epoch: int
    batches: tuple[ProducedBatch, ...]
    last_active_ms: int

    @property
    def next_sequence(self) -> int:
        """Sequence expected next."""
        last = self.batches[-1]
        return (last.base_sequence + last.count) % SEQUENCE_MODULUS


class Verdict(Enum):
    """What to do with a batch."""

    APPEND = "append"
    DUPLICATE = "duplicate"
    FENCED = "fenced"
    OUT_OF_ORDER = "out_of_order"
    UNKNOWN_PRODUCER = "unknown_producer"
    FORGOTTEN_DUPLICATE = "forgotten_duplicate"
    OVERLAP = "overlap"


class Judgement(NamedTuple):
    """A verdict, with the earlier batch for DUPLICATE and the sequence expected where that explains it."""

    verdict: Verdict
    batch: ProducedBatch | None = None
    expected_sequence: int = 0


def judge(producer: Producer | None, epoch: int, base_sequence: int, count: int) -> Judgement:
    """Say what to do with a batch of `count` records from a producer of which `producer` is known."""
    if producer is None:
        return Judgement(Verdict.APPEND if base_sequence == 0 else Verdict.UNKNOWN_PRODUCER)
    if epoch < producer.epoch:
        return Judgement(Verdict.FENCED)
    if epoch > producer.epoch:
        return Judgement(Verdict.APPEND if base_sequence == 0 else Verdict.OUT_OF_ORDER)
    for batch in producer.batches:
        if batch.base_sequence == base_sequence:
            return Judgement(Verdict.DUPLICATE if batch.count == count else Verdict.OVERLAP, batch)
    expected = producer.next_sequence
    if base_sequence == expected:
        return Judgement(Verdict.APPEND)
    behind = (expected - base_sequence) % SEQUENCE_MODULUS
    if behind >= SEQUENCE_MODULUS // 2:
        return Judgement(Verdict.OUT_OF_ORDER, expected_sequence=expected)
    if behind <= (expected - producer.batches[0].base_sequence) % SEQUENCE_MODULUS:
        return Judgement(Verdict.OVERLAP, expected_sequence=expected)
    return Judgement(Verdict.FORGOTTEN_DUPLICATE, expected_sequence=expected)


def fold(producer: Producer | None, epoch: int, batch: ProducedBatch, now_ms: int) -> Producer:
    """Remember `batch`, which the leader has accepted, as of the partition's time `now_ms`."""
    if producer is None or epoch != producer.epoch:
        return Producer(epoch, (batch,), now_ms)
    return Producer(epoch, (*producer.batches[1 - BATCHES_REMEMBERED :], batch), now_ms)

"""The sender of one partition: sequences, retries and what they prove. A plain class without time, threads or network
of its own.

A batch goes open -> queue -> in flight -> appended, or from in flight to retry and back, or is given up.

The leader appends a batch of a producer only if its sequence continues what that producer has in the log (under the
same epoch), or if it is 0 under a higher epoch; it remembers the last five batches and answers a repeated one with
the offset it already has. From that follows everything here:

- A batch is sent again with the sequence it had, so a repetition is recognised whatever became of the earlier attempt.
- At most `MAX_IN_FLIGHT` batches are unresolved, counted from the oldest, so a repetition is never older than what
  the leader remembers.
- After a failure everything in flight is awaited, then what failed is sent again in its order: a gap is refused, not
  filled.
- A batch that is given up leaves a *hole*: nothing after it can be appended under this epoch. If the batch is
  certainly not in the log, neither is anything after it. Once everything in flight has an answer, the rest starts
  again under the next epoch from sequence 0.
- If the batch given up may be in the log, what was sent after it and may be in the log as well keeps its sequence and
  is sent again until it is settled; only what is certainly not in the log starts again under the next epoch.
- A batch of several records that is over the topic's limit is sent as two halves instead: the same renumbering, and
  no record is given up unless it is too large on its own.
- A leader that does not know the producer has appended neither this batch nor, after it, any other: the same
  renumbering, without a hole.
"""

import math
import random
from collections import deque
from dataclasses import dataclass

from quorumlog.backoff import full_jitter
from quorumlog.errors import FailedBatch, Fenced, Outcome, QuorumlogError, RecordTooLarge, TimedOut
from quorumlog.pending import PendingBatch

MAX_IN_FLIGHT = 5
SEQUENCES = 1 << 31

# Outcome rules need to tell these five from all others; everything else goes by the flags an error carries.
DUPLICATE_SEQUENCE = "DUPLICATE_SEQUENCE"
OUT_OF_ORDER_SEQUENCE = "OUT_OF_ORDER_SEQUENCE"
UNKNOWN_PRODUCER = "UNKNOWN_PRODUCER"
PRODUCER_FENCED = "PRODUCER_FENCED"
RECORD_TOO_LARGE = "RECORD_TOO_LARGE"


@dataclass(eq=False, slots=True)
class Attempt:
    """One sending of one batch; what the network reports its result for."""

    sender: "PartitionSender"
    batch: PendingBatch
    number: int
    round: int


class PartitionSender:
    """Batches of one partition.

    Args:
        topic: name of the topic.
        topic_id: its id, 16 bytes; a topic created again under the same name is another one.
        partition: number of the partition.
        producer_id: id of the producer, handed out by the cluster.
        epoch: the producer's first epoch.
        rng: jitter.
        batch_size_max: size in bytes beyond which several records do not travel together, as far as the topic's limit
            is known; lowered when a leader refuses less.
    """

    def __init__(
        self,
        topic: str,
        topic_id: bytes,
        partition: int,
        producer_id: int,
        epoch: int,
        rng: random.Random,
        batch_size_max: float = math.inf,
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.partition = partition
        self.producer_id = producer_id
        self.epoch = epoch
        self.batch_size_max = batch_size_max
        self.open: PendingBatch | None = None
        self.queue: deque[PendingBatch] = deque()
        self.retry: list[PendingBatch] = []
        self.in_flight: dict[int, Attempt] = {}
        self.failed: list[FailedBatch] = []
        self.settled_bytes = 0
        self.retry_at = 0.0
        self.fenced: QuorumlogError | None = None
        self.trouble: QuorumlogError | None = None
        """Why records are late, as last heard; None since an attempt succeeded."""
        self.trouble_since = 0.0
        """Since when, in monotonic seconds."""
        self._next_sequence = 0
        self._next_order = 0
        self._round = 0
        self._failures = 0
        self._hole: int | None = None
        self._unknown_hole: int | None = None
        self._rng = rng

    @property
    def unsettled(self) -> bool:
        """Whether any record waits for its outcome."""
        return self.open is not None or bool(self.queue or self.retry or self.in_flight)

    # -- sending

    def next_attempt(self, now: float, *, linger: float, batch_size: int, idle: bool) -> Attempt | None:
        """Return what may be sent now, or None; call it again until None.

        Args:
            now: monotonic seconds.
            linger: seconds an open batch may wait for company.
            batch_size: bytes at which an open batch does not wait any longer.
            idle: nothing is in flight to the leader, so nothing is gained by waiting.
        """
        self._renumber_if_settled()
        if self.retry or self._hole is not None or self._unknown_hole is not None:
            batch = self._next_retry(now)
        else:
            batch = self._next_new(now, linger=linger, batch_size=batch_size, idle=idle)
        if batch is None:
            return None
        attempt = Attempt(self, batch, batch.attempts, self._round)
        batch.attempts += 1
        self.in_flight[batch.order] = attempt
        return attempt

    def _next_retry(self, now: float) -> PendingBatch | None:
        if not self.retry or now < self.retry_at:
            return None
        if any(attempt.round != self._round for attempt in self.in_flight.values()):
            return None  # an answer of before the failure is still out
        if self.retry[0].order >= self._held_from():
            return None
        return self.retry.pop(0)

    def _held_from(self) -> float:
        """Return the order from which on batches are certainly not in the log and wait for the next epoch; infinity:
        none do.

        That is a hole that is certain, or the first batch after an uncertain one that every attempt refused: it is
        not sent again under this epoch, so what follows it can never be appended either.
        """
        held = math.inf if self._hole is None else self._hole
        unknown_hole = self._unknown_hole
        if unknown_hole is not None:
            refused = (b.order for b in self.retry if b.order > unknown_hole and not b.maybe_appended)
            held = min(held, next(refused, math.inf))
        return held

    def _next_new(self, now: float, *, linger: float, batch_size: int, idle: bool) -> PendingBatch | None:
        if len(self.in_flight) >= MAX_IN_FLIGHT or now < self.retry_at:
            return None
        if self.in_flight and self._next_order - min(self.in_flight) >= MAX_IN_FLIGHT:
            return None
        if not self.queue:
            opened = self.open
            if opened is None:
                return None
            if not (idle or opened.size_bytes >= batch_size or now - opened.created >= linger):
                return None
            self.seal()
        while self.queue[0].size_bytes > self.batch_size_max and self.queue[0].count > 1:
            self.queue.extendleft(reversed(self.queue.popleft().split()))
        batch = self.queue.popleft()
        batch.order = self._next_order
        batch.epoch = self.epoch
        batch.base_sequence = self._next_sequence
        self._next_order += 1
        self._next_sequence = (self._next_sequence + batch.count) % SEQUENCES
        return batch

    def seal(self) -> None:
        """Close the open batch: records from now on go into another one."""
        if self.open is not None:
            self.queue.append(self.open)
            self.open = None

    # -- results

    def appended(self, attempt: Attempt, base_offset: int, *, duplicate: bool = False) -> None:
        """The attempt was acknowledged.

        Args:
            attempt: which one.
            base_offset: where its records are in the log; -1: at an offset no longer known.
            duplicate: the leader had them before.
        """
        batch = self._take(attempt)
        if batch is None:
            return
        if duplicate and attempt.number == 0:
            self._fence(batch, self._sent_by_another())
            return
        self._failures = 0
        self.trouble = None
        self.retry_at = 0.0
        self.settled_bytes += batch.size_bytes
        batch.complete(base_offset)

    def refused(self, attempt: Attempt, error: QuorumlogError, now: float, *, at_once: bool = False) -> None:
        """The attempt ended with an error.

        Args:
            attempt: which one.
            error: why; its outcome speaks of this attempt alone.
            now: monotonic seconds.
            at_once: the error named a new leader, so nothing is gained by waiting.
        """
        if error.code == DUPLICATE_SEQUENCE:
            self.appended(attempt, -1, duplicate=True)
            return
        batch = self._take(attempt)
        if batch is None:
            return
        if self.trouble is None or error.code != OUT_OF_ORDER_SEQUENCE:  # which only follows from what came before
            self.in_trouble(error, now)
        if error.code == UNKNOWN_PRODUCER:
            # Never appended by this attempt. The node says UNKNOWN on a retry because it cannot know what became of
            # earlier attempts; here it is known.
            if not batch.maybe_appended:
                self._open_hole(batch.order, unknown=False)
                self._back_to_retry(batch)
            elif self._behind_unsettled(batch):
                # No wonder: a batch before it was turned away, perhaps because the leader could take none just then.
                self._failures += 1
                self.retry_at = max(self.retry_at, now + full_jitter(self._failures, self._rng))
                self._back_to_retry(batch)
            else:
                self._give_up(batch, error)
            return
        if error.outcome is not Outcome.NOT_APPENDED:
            batch.maybe_appended = True
        if error.code == RECORD_TOO_LARGE and not batch.maybe_appended:
            self._too_large(batch, error)
            return
        if error.code == PRODUCER_FENCED:
            self._fence(batch, error)
        elif not error.retriable or now >= batch.deadline or self._beyond_settling(batch, error):
            self._give_up(batch, error)
        else:
            self._failures += 1
            wait = 0.0 if at_once else full_jitter(self._failures, self._rng)
            self.retry_at = max(self.retry_at, now + max(wait, error.retry_after_seconds))
            self._back_to_retry(batch)

    def in_trouble(self, cause: QuorumlogError, now: float) -> None:
        """Remember why records are late."""
        if self.trouble is None:
            self.trouble_since = now
        self.trouble = cause

    def _too_large(self, batch: PendingBatch, error: QuorumlogError) -> None:
        if batch.count == 1:
            self._give_up(batch, record_too_large(error))
            return
        # Half of what was refused is at least half of what is allowed.
        self.batch_size_max = min(self.batch_size_max, batch.size_bytes // 2)
        self._open_hole(batch.order, unknown=False)
        for half in batch.split():
            half.order = batch.order
            self._back_to_retry(half)

    def _behind_unsettled(self, batch: PendingBatch) -> bool:
        """Whether a batch before this one is still to be settled; until it is, the leader may know nothing of both."""
        return any(order < batch.order for order in self.in_flight) or any(b.order < batch.order for b in self.retry)

    def _beyond_settling(self, batch: PendingBatch, error: QuorumlogError) -> bool:
        # After a hole that may or may not be in the log, a gap in front of a batch that may be there too can mean
        # either: the log will never tell.
        behind_hole = self._unknown_hole is not None and batch.order > self._unknown_hole
        return behind_hole and batch.maybe_appended and error.code == OUT_OF_ORDER_SEQUENCE

    def expire(self, now: float) -> None:
        """Give up what is past its deadline, in flight or not."""
        for attempt in [a for a in self.in_flight.values() if now >= a.batch.deadline]:
            batch = self._take(attempt)
            assert batch is not None
            batch.maybe_appended = True
            self._give_up(batch, _too_late("no answer came", self.trouble))
        for batch in [b for b in self.retry if now >= b.deadline]:
            self.retry.remove(batch)
            self._give_up(batch, _too_late("every attempt failed", self.trouble))
        if self.open is not None and now >= self.open.deadline:
            self.seal()
        while self.queue and now >= self.queue[0].deadline:
            self._drop(self.queue.popleft(), _too_late("it was never sent", self.trouble))

    def abandon(self, error: QuorumlogError) -> None:
        """Give up everything because of `error`; what is in flight may have been appended."""
        for attempt in list(self.in_flight.values()):
            batch = self._take(attempt)
            assert batch is not None
            batch.maybe_appended = True
            self._give_up(batch, error)
        for batch in self.retry:
            self._give_up(batch, error)
        self.retry.clear()
        self.seal()
        while self.queue:
            self._drop(self.queue.popleft(), error)

    def _take(self, attempt: Attempt) -> PendingBatch | None:
        """Remove the attempt from what is in flight; None if its batch was settled before (a late answer)."""
        if self.in_flight.get(attempt.batch.order) is not attempt:
            return None
        del self.in_flight[attempt.batch.order]
        return attempt.batch

    def _back_to_retry(self, batch: PendingBatch) -> None:
        self._round += 1
        self.retry.append(batch)
        self.retry.sort(key=lambda b: b.order)

    def _give_up(self, batch: PendingBatch, error: QuorumlogError) -> None:
        self._open_hole(batch.order, unknown=batch.maybe_appended)
        self._drop(batch, error)

    def _drop(self, batch: PendingBatch, error: QuorumlogError) -> None:
        self.settled_bytes += batch.size_bytes
        self.failed.append(batch.fail(error))

    def _fence(self, batch: PendingBatch, error: QuorumlogError) -> None:
        self.fenced = Fenced(error.message, hint=error.hint, code=error.code, outcome=error.outcome)
        self._drop(batch, self.fenced)
        self.abandon(self.fenced)

    def _sent_by_another(self) -> Fenced:
        return Fenced(
            f"the leader of {self.topic}[{self.partition}] has other records under the sequence of a batch that was "
            "never sent before: somebody else sends as the same producer",
            hint="open another producer in each process, also after a fork or from a copied image",
            code=PRODUCER_FENCED,
            outcome=Outcome.NOT_APPENDED,
        )

    def _open_hole(self, order: int, *, unknown: bool) -> None:
        if unknown:
            self._unknown_hole = order if self._unknown_hole is None else min(self._unknown_hole, order)
        else:
            self._hole = order if self._hole is None else min(self._hole, order)

    def _renumber_if_settled(self) -> None:
        """Start again under the next epoch once nothing that was sent under this one can still change what is known."""
        if (self._hole is None and self._unknown_hole is None) or self.in_flight:
            return
        if self.retry and self.retry[0].order < self._held_from():
            return
        for batch in reversed(self.retry):
            batch.order = -1
            batch.attempts = 0
            batch.maybe_appended = False
            self.queue.appendleft(batch)
        self.retry.clear()
        self.epoch += 1
        self._next_sequence = 0
        self._hole = None
        self._unknown_hole = None


def _too_late(why: str, trouble: QuorumlogError | None) -> TimedOut:
    late = TimedOut(
        f"not delivered within delivery_timeout: {why}" + (f"; last heard: {trouble.message}" if trouble else ""),
        hint="see quorumlog doctor for what is slow; raise delivery_timeout to wait longer",
    )
    late.__cause__ = trouble
    return late


def record_too_large(refusal: QuorumlogError) -> RecordTooLarge:
    """Return the error for a record that was refused alone; the refusal names its size and the limit."""
    return RecordTooLarge(
        f"one record alone is over the topic's limit: {refusal.message}",
        hint="send a smaller one, or raise max.message.bytes of the topic: quorumlog topic alter",
        code=refusal.code,
        outcome=Outcome.NOT_APPENDED,
    )

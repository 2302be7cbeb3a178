"""What a producer does, without network, threads or clock: records in, attempts out, results back in.

The shell calls `append` (from any thread), and from its loop `poll` for what may be sent to whom, `appended` /
`refused` / `lost` for what became of it, and `next_wakeup` for when to look again. Everything takes `now` in
monotonic seconds.
"""

import math
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from quorumlog.errors import Closed, FailedBatch, Outcome, QuorumlogError, Retriable
from quorumlog.futures import SendFuture
from quorumlog.partition_sender import Attempt, PartitionSender
from quorumlog.pending import RECORD_OVERHEAD_BYTES, Headers, PendingBatch, headers_size_bytes
from quorumlog.send_plan import too_large

# A request of many batches stays below what nodes and proxies accept without being told; one batch always fits.
REQUEST_BYTES = 2 << 20
# Values of failed records are kept for the error up to this size; beyond it only their number is.
FAILED_VALUES_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class ProducerSettings:
    """Options of a producer, in seconds and bytes; see `aio.Client.producer` for what they mean."""

    linger: float = 0.005
    batch_size: int = 65536
    bulk_batch_size: int = 262144
    record_size_max: int = 1 << 20
    delivery_timeout: float = math.inf
    buffer_memory: int = 64 << 20
    compression: int = 0


class ProducerCore:
    """Open batches, senders and memory of one producer.

    Args:
        settings: its options.
        producer_id: handed out by the cluster.
        epoch: the first epoch of that id.
        rng: jitter.
    """

    def __init__(self, settings: ProducerSettings, producer_id: int, epoch: int, rng: random.Random) -> None:
        self.settings = settings
        # Reentrant, because a future's callback may send.
        self.lock = threading.RLock()
        self.buffered_bytes = 0
        self.flushing = 0
        self.closed = False
        self.on_topic_gone: Callable[[str], None] | None = None
        self._producer_id = producer_id
        self._epoch = epoch
        self._rng = rng
        # By topic id: one that another incarnation of the topic has put in the shade goes on with its sequences when
        # it comes to light again. A fresh one would begin at 0, and the leader would take its records for known ones.
        self._senders: dict[tuple[bytes, int], PartitionSender] = {}
        self._busy: dict[PartitionSender, None] = {}
        self._requests: dict[str, int] = {}
        self._size_limits: dict[str, int] = {}
        self._failed: list[FailedBatch] = []
        self._failed_bytes = 0

    # -- records in

    def limit_topic(self, topic: str, size_bytes_max: int | None) -> None:
        """Take over the topic's own limit of a batch, None where it has none. Records are still sent where it may have
        been raised since; the leader decides."""
        with self.lock:
            if size_bytes_max is None:
                self._size_limits.pop(topic, None)
            else:
                self._size_limits[topic] = size_bytes_max
            for sender in self._senders.values():
                if sender.topic == topic:
                    sender.batch_size_max = math.inf if size_bytes_max is None else size_bytes_max

    def record_size_max(self, topic: str) -> int:
        """Return the size in bytes beyond which a record is not even tried."""
        return max(self.settings.record_size_max, self._size_limits.get(topic, 0))

    def bulk_batch_size(self, topic: str) -> int:
        """Return the size in bytes to which the columns of a bulk are cut."""
        return min(self.settings.bulk_batch_size, self._size_limits.get(topic, self.settings.bulk_batch_size))

    def append(
        self,
        topic: str,
        topic_id: bytes,
        partition: int,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        timestamp_ms: int,
        now: float,
    ) -> SendFuture | None:
        """Put one record into the open batch of its partition; None if the buffer is full.

        Raises:
            RecordTooLarge: it is over the limit on its own.
            Closed: the producer is.
            Fenced: this partition was taken over by a newer producer.
        """
        size = RECORD_OVERHEAD_BYTES
        if value is not None:
            size += len(value)
        if key is not None:
            size += len(key)
        if headers:
            size += headers_size_bytes(headers)
        settings = self.settings
        if size > settings.record_size_max and size > self.record_size_max(topic):
            raise too_large(topic, size, self.record_size_max(topic))
        with self.lock:
            if self.buffered_bytes + size > settings.buffer_memory and self.buffered_bytes:
                return None
            sender = self._senders.get((topic_id, partition))
            if sender is None or sender.fenced is not None or self.closed:
                sender = self._sender(topic, topic_id, partition)
            batch = sender.open
            size_max = min(sender.batch_size_max, settings.batch_size)
            if batch is None or batch.size_bytes + size > size_max:
                batch = self._new_batch(sender, now)
            self.buffered_bytes += size
            return SendFuture(batch, batch.add(value, key, headers, timestamp_ms, size))

    def extend(
        self,
        topic: str,
        topic_id: bytes,
        partition: int,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        timestamps_ms: list[int],
        size_bytes: int,
        now: float,
    ) -> tuple[PendingBatch, int, int] | None:
        """Put records (at most one batch of them) into one partition: (batch, first position, count); None if the
        buffer is full."""
        with self.lock:
            if self.buffered_bytes + size_bytes > self.settings.buffer_memory and self.buffered_bytes:
                return None
            sender = self._senders.get((topic_id, partition))
            if sender is None or sender.fenced is not None or self.closed:
                sender = self._sender(topic, topic_id, partition)
            batch = sender.open
            if batch is None or batch.size_bytes + size_bytes > min(self.settings.batch_size, sender.batch_size_max):
                batch = self._new_batch(sender, now)
            self.buffered_bytes += size_bytes
            return batch, batch.extend(values, keys, timestamps_ms, size_bytes), len(values)

    def _sender(self, topic: str, topic_id: bytes, partition: int) -> PartitionSender:
        if self.closed:
            raise Closed("the producer is closed", hint="open another one: client.producer()")
        fenced = self._senders.get((topic_id, partition))
        if fenced is not None and fenced.fenced is not None:
            raise fenced.fenced
        size_max = self._size_limits.get(topic, math.inf)
        sender = PartitionSender(topic, topic_id, partition, self._producer_id, self._epoch, self._rng, size_max)
        self._senders[(topic_id, partition)] = sender
        return sender

    def _new_batch(self, sender: PartitionSender, now: float) -> PendingBatch:
        sender.seal()
        batch = PendingBatch(sender.topic, sender.partition, now, now + self.settings.delivery_timeout)
        sender.open = batch
        self._busy[sender] = None
        return batch

    # -- attempts out

    def poll(self, now: float, leader_of: Callable[[PartitionSender], str | None]) -> list[tuple[str, list[Attempt]]]:
        """Return the requests to send now: the leader's address and the attempts that travel together.

        Args:
            now: monotonic seconds.
            leader_of: where the leader of a sender's partition is; None while that is not known.
        """
        with self.lock:
            by_leader: dict[str, list[PartitionSender]] = {}
            for sender in self._busy:
                address = leader_of(sender)
                if address is not None:
                    by_leader.setdefault(address, []).append(sender)
            requests: list[tuple[str, list[Attempt]]] = []
            for address, senders in by_leader.items():
                requests.extend((address, attempts) for attempts in self._requests_for(address, senders, now))
            return requests

    def _requests_for(self, address: str, senders: list[PartitionSender], now: float) -> Iterable[list[Attempt]]:
        settings = self.settings
        idle = self.flushing > 0 or self._requests.get(address, 0) == 0
        attempts: list[Attempt] = []
        size = 0
        # One batch per partition and round, so that a full one cannot keep the others of its leader waiting.
        while senders:
            remaining = []
            for sender in senders:
                enough = int(min(settings.batch_size, sender.batch_size_max))
                attempt = sender.next_attempt(now, linger=settings.linger, batch_size=enough, idle=idle)
                if attempt is None:
                    continue
                if attempts and size + attempt.batch.size_bytes > REQUEST_BYTES:
                    self._requests[address] = self._requests.get(address, 0) + 1
                    yield attempts
                    attempts, size = [], 0
                attempts.append(attempt)
                size += attempt.batch.size_bytes
                remaining.append(sender)
            senders = remaining
        if attempts:
            self._requests[address] = self._requests.get(address, 0) + 1
            yield attempts

    def next_wakeup(self, now: float) -> float | None:
        """Return when time alone may change what `poll` and `expire` do, in monotonic seconds; None while nothing
        waits."""
        with self.lock:
            times = []
            for sender in self._busy:
                if sender.retry_at > now and (sender.retry or sender.queue or sender.open is not None):
                    times.append(sender.retry_at)
                if sender.open is not None:
                    # A batch that is past its linger and still here waits for something else than time.
                    if sender.open.created + self.settings.linger > now:
                        times.append(sender.open.created + self.settings.linger)
                    times.append(sender.open.deadline)
                times.extend(attempt.batch.deadline for attempt in sender.in_flight.values())
                times.extend(batch.deadline for batch in sender.retry)
                if sender.queue:
                    times.append(sender.queue[0].deadline)
            return min(times, default=None)

    # -- results in

    def request_done(self, address: str) -> None:
        """A request to `address` has all its results, or was lost."""
        with self.lock:
            left = self._requests[address] - 1
            if left:
                self._requests[address] = left
            else:
                del self._requests[address]

    def appended(self, attempt: Attempt, base_offset: int, *, duplicate: bool = False) -> None:
        """The attempt was acknowledged; see `PartitionSender.appended`."""
        with self.lock:
            attempt.sender.appended(attempt, base_offset, duplicate=duplicate)
            self._collect(attempt.sender)

    def refused(self, attempt: Attempt, error: QuorumlogError, now: float, *, at_once: bool = False) -> None:
        """The attempt ended with an error; `at_once` as in `PartitionSender.refused`."""
        with self.lock:
            attempt.sender.refused(attempt, error, now, at_once=at_once)
            self._collect(attempt.sender)
            if error.code == "UNKNOWN_TOPIC" and self.on_topic_gone is not None:
                self.on_topic_gone(attempt.sender.topic)

    def lost(self, attempt: Attempt, cause: QuorumlogError, now: float) -> None:
        """No answer will come: the stream broke. The records may have been appended."""
        error = Retriable(cause.message, hint=cause.hint, code=cause.code, outcome=Outcome.UNKNOWN)
        self.refused(attempt, error, now)

    def unreachable(self, topic: str, cause: QuorumlogError, now: float) -> None:
        """Nobody tells who leads the topic's partitions just now; what has to be given up for that says so."""
        with self.lock:
            for sender in self._busy:
                if sender.topic == topic:
                    sender.in_trouble(cause, now)

    def expire(self, now: float) -> None:
        """Give up what is past `delivery_timeout`."""
        with self.lock:
            for sender in list(self._busy):
                sender.expire(now)
                self._collect(sender)

    def fail_topic(self, topic: str, error: QuorumlogError) -> None:
        """Give up everything for a topic that is not there any more."""
        with self.lock:
            for sender in [sender for sender in self._busy if sender.topic == topic]:
                sender.abandon(error)
                self._collect(sender)
            if self.on_topic_gone is not None:
                self.on_topic_gone(topic)

    def abandon(self, error: QuorumlogError) -> None:
        """Give up everything."""
        with self.lock:
            for sender in list(self._busy):
                sender.abandon(error)
                self._collect(sender)

    def _collect(self, sender: PartitionSender) -> None:
        self.buffered_bytes -= sender.settled_bytes
        sender.settled_bytes = 0
        for failed in sender.failed:
            self._failed_bytes += sum(len(value or b"") for value in failed.values)
            if self._failed_bytes > FAILED_VALUES_BYTES:
                failed = FailedBatch(failed.topic, failed.partition, failed.count, failed.outcome, failed.error)
            self._failed.append(failed)
        sender.failed.clear()
        if not sender.unsettled:
            self._busy.pop(sender, None)

    # -- the whole

    @property
    def unsettled(self) -> bool:
        """Whether any record waits for its outcome."""
        return bool(self._busy)

    def unsettled_batches(self) -> list[PendingBatch]:
        """Return every batch that waits for its outcome now."""
        with self.lock:
            batches: list[PendingBatch] = []
            for sender in self._busy:
                batches.extend(attempt.batch for attempt in sender.in_flight.values())
                batches.extend(sender.retry)
                batches.extend(sender.queue)
                if sender.open is not None:
                    batches.append(sender.open)
            return batches

    def take_failed(self) -> list[FailedBatch]:
        """Return what failed since the last call."""
        with self.lock:
            failed, self._failed = self._failed, []
            self._failed_bytes = 0
            return failed

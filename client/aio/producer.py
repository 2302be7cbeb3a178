"""The producer's face in asyncio."""

import asyncio
import contextlib
import math
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster, Deadline
from quorumlog.aio.dispatch import Dispatcher
from quorumlog.clock import monotonic, wall_ms
from quorumlog.durations import Timeout, When, limit, timestamp_ms
from quorumlog.errors import (
    Closed,
    DeliveryFailed,
    InvalidRequest,
    QuorumlogError,
    RecordTooLarge,
    TimedOut,
    UnknownPartition,
)
from quorumlog.futures import BatchCompletion, BulkFuture, SendFuture
from quorumlog.partitioner import StickyPartitioner
from quorumlog.process import PROCESS, check_process
from quorumlog.producer_core import ProducerCore, ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.send_plan import Chunk, Column, HeadersLike, check_record, headers_of, plan_chunks

# A limit that refuses records is asked for again at most this often: not for every record.
LIMIT_SECONDS = 1.0


class _Route:
    """What sending to one topic needs at hand."""

    __slots__ = ("limit_asked_at", "limit_doubted", "partitioner", "sticky_bytes", "topic_id")

    def __init__(self, topic_id: bytes, partitioner: StickyPartitioner) -> None:
        self.topic_id = topic_id
        self.partitioner = partitioner
        self.sticky_bytes = 0
        self.limit_doubted = False
        self.limit_asked_at = -math.inf

    def doubt_limit(self) -> bool:
        """Doubt the limit that refuses a record: it may have been raised. False where it was asked for just before."""
        if monotonic() - self.limit_asked_at < LIMIT_SECONDS:
            return False
        self.limit_doubted = True
        return True


class Producer:
    """Sends records; made by `Client.producer`, used as a context manager.

    `send` returns as soon as the record is in the buffer. It is acknowledged when its future says so, and `flush()` or
    the end of the context raises `DeliveryFailed` for everything that was not delivered.
    """

    def __init__(self, cluster: Cluster, settings: ProducerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._process = PROCESS.generation
        self._routes: dict[str, _Route] = {}
        self._core: ProducerCore | None = None
        self._dispatcher: Dispatcher | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    # -- sending

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: HeadersLike | None = None,
        partition: int | None = None,
        timestamp: When | None = None,
        timeout: Timeout = None,
    ) -> SendFuture:
        """Put one record into the buffer and return its future; waits while the buffer is full.

        Nothing is sent until this is awaited; Python warns of the line that forgets it, and type checkers refuse it.

        Args:
            topic: where to.
            value: the payload; None is a tombstone.
            key: records with the same key go to the same partition, in their order.
            headers: a mapping, or pairs where a name repeats.
            partition: instead of the one the key chooses.
            timestamp: of the record; now, where not given.
            timeout: how long to wait for room in the buffer and for news of the topic; the delivery itself has
                `delivery_timeout`.

        Raises:
            UnknownTopic: there is no such topic; also UnknownPartition, RecordTooLarge, InvalidRequest.
            TimedOut: no room within `timeout`.
        """
        deadline = Deadline(limit("timeout", timeout))
        while True:
            seen = self.progress(topic)
            future = self.try_send(topic, value, key=key, headers=headers, partition=partition, timestamp=timestamp)
            if future is not None:
                return future
            await self.ready(topic, deadline, seen)

    def try_send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: HeadersLike | None = None,
        partition: int | None = None,
        timestamp: When | None = None,
    ) -> SendFuture | None:
        """Do what `send` does if that needs no waiting, otherwise return None. Safe to call from any thread."""
        route = self._routes.get(topic)
        core, dispatcher = self._core, self._dispatcher
        if route is None or core is None or dispatcher is None or self._closed or self._process != PROCESS.generation:
            self._check_usable()
            return None
        if type(value) is not bytes or (key is not None and type(key) is not bytes):
            value, key = check_record(value, key)
        if partition is not None:
            _check_partition(topic, route, partition)
        elif key is not None:
            partition = route.partitioner.for_key(key)
        else:
            # KIP-794: the same number of bytes for every partition, one partition after the other.
            partition = route.partitioner.sticky
            route.sticky_bytes += len(value or b"") + 16
            if route.sticky_bytes >= self._settings.batch_size:
                route.sticky_bytes = 0
                route.partitioner.turn()
        stamp = wall_ms() if timestamp is None else timestamp_ms("timestamp", timestamp)
        pairs = headers_of(headers) if headers is not None else ()
        try:
            future = core.append(topic, route.topic_id, partition, value, key, pairs, stamp, monotonic())
        except RecordTooLarge:
            if route.doubt_limit():
                return None
            raise
        dispatcher.wake()
        return future

    async def send_many(
        self,
        topic: str,
        values: Column,
        *,
        keys: Column | None = None,
        partition: int | None = None,
        timestamp: When | None = None,
        timeout: Timeout = None,
    ) -> BulkFuture:
        """Put many records into the buffer, column by column: the fast path. One future stands for all of them.

        Args:
            topic: where to.
            values: the payloads; their order is kept within a partition.
            keys: one per value (None: no key), choosing the partitions. Without keys the records are spread in long
                runs.
            partition: one for all, instead.
            timestamp: one for all; now, where not given.
            timeout: as for `send`.

        Raises:
            UnknownTopic, and everything else `send` raises. After TimedOut the records before are on their way.
        """
        deadline = Deadline(limit("timeout", timeout))
        seen = self.progress(topic)
        while (chunks := self.try_plan(topic, values, keys, partition)) is None:
            await self.ready(topic, deadline, seen)
            seen = self.progress(topic)
        parts = []
        for chunk in chunks:
            seen = self.progress(topic)
            while (part := self.try_extend(topic, chunk, timestamp)) is None:
                await self.ready(topic, deadline, seen)
                seen = self.progress(topic)
            parts.append(part)
        return BulkFuture(parts)

    def try_plan(
        self, topic: str, values: Column, keys: Column | None, partition: int | None
    ) -> Iterator[Chunk] | None:
        """Cut columns into chunks for `try_extend`; None while the topic or its present limit is not known. Safe to
        call from any thread."""
        route, core = self._routes.get(topic), self._core
        if route is None or core is None or self._process != PROCESS.generation:
            self._check_usable()
            return None
        if partition is not None:
            _check_partition(topic, route, partition)
        try:
            return plan_chunks(
                topic,
                values,
                keys,
                partition,
                route.partitioner,
                chunk_bytes=core.bulk_batch_size(topic),
                record_bytes_max=core.record_size_max(topic),
            )
        except RecordTooLarge:
            if route.doubt_limit():
                return None
            raise

    def try_extend(self, topic: str, chunk: Chunk, timestamp: When | None) -> tuple[BatchCompletion, int, int] | None:
        """Put one chunk into the buffer; None if that has no room. Safe to call from any thread."""
        route = self._routes.get(topic)
        core, dispatcher = self._core, self._dispatcher
        if route is None or core is None or dispatcher is None or self._closed or self._process != PROCESS.generation:
            self._check_usable()
            return None
        stamp = wall_ms() if timestamp is None else timestamp_ms("timestamp", timestamp)
        stamps = [stamp] * len(chunk.values)
        part = core.extend(
            topic, route.topic_id, chunk.partition, chunk.values, chunk.keys, stamps, chunk.size_bytes, monotonic()
        )
        dispatcher.wake()
        return part

    # -- waiting

    def progress(self, topic: str) -> int:
        """Return a number that changes when trying again may make sense. Taken before a try it lets `ready` know what
        has happened since. Safe to call from any thread."""
        dispatcher = self._dispatcher
        return dispatcher.progress if dispatcher is not None and topic in self._routes else -1

    async def ready(self, topic: str, deadline: Deadline, seen: int) -> None:
        """Wait until trying again makes sense: the topic and its limit are known, or records have left the full
        buffer since `progress` was `seen`.

        Raises:
            TimedOut: not before `deadline`; other errors as the cluster says.
        """
        self._check_usable()
        route, dispatcher = self._routes.get(topic), self._dispatcher
        if route is None or dispatcher is None:
            await self._look_up(topic, deadline)
            return
        if route.limit_doubted:
            await self._ask_for_limit(topic, route, deadline)
            dispatcher.made_room()  # also for those who have seen that it is asked for
            return
        if deadline.passed:
            raise TimedOut(
                f"no room for topic {topic} within {deadline.timeout} s: {self._settings.buffer_memory} bytes are "
                "waiting to be acknowledged",
                hint="send slower, raise buffer_memory, or see quorumlog doctor for what is slow",
            )
        try:
            async with asyncio.timeout(deadline.left()):
                await dispatcher.room(seen)
        except TimeoutError:
            return  # tried again, and then found to be too late

    async def _look_up(self, topic: str, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.left()):
                await self._opening.acquire()  # somebody with more time may be at it
        except TimeoutError:
            raise TimedOut(
                f"topic {topic} was not looked up within {deadline.timeout:g} s",
                hint="give it more time, or see quorumlog doctor for what is slow",
            ) from None
        try:
            if self._core is None:
                self._core = await self._open(deadline)
            if topic not in self._routes:
                known = await self._cluster.topic(topic, deadline.left())
                self._core.limit_topic(topic, known.max_message_bytes)
                partitioner = StickyPartitioner(len(known.leaders), self._cluster.rng)
                self._routes[topic] = _Route(known.topic_id, partitioner)
        finally:
            self._opening.release()

    async def _ask_for_limit(self, topic: str, route: _Route, deadline: Deadline) -> None:
        route.limit_doubted = False
        with contextlib.suppress(QuorumlogError):  # then what was known before decides
            await self._cluster.refresh([topic], deadline.remaining(ATTEMPT_SECONDS))
        route.limit_asked_at = monotonic()
        known = self._cluster.cache.topics.get(topic)
        if known is not None and self._core is not None:
            self._core.limit_topic(topic, known.max_message_bytes)

    async def _open(self, deadline: Deadline) -> ProducerCore:
        async def call(connection: Connection, seconds: float) -> pb.InitProducerResponse:
            return await connection.log.InitProducer(pb.InitProducerRequest(), timeout=seconds)

        answer = await self._cluster.ask_anyone(call, deadline.left())
        core = ProducerCore(self._settings, answer.producer_id, answer.producer_epoch, self._cluster.rng)
        self._dispatcher = Dispatcher(self._cluster, core)
        core.on_topic_gone = self._forget
        return core

    def _forget(self, topic: str) -> None:
        self._routes.pop(topic, None)
        self._cluster.cache.topics.pop(topic, None)

    async def flush(self, *, timeout: Timeout = None) -> None:
        """Wait until everything sent so far is acknowledged or given up.

        Raises:
            DeliveryFailed: something was given up, now or since the last flush.
            TimedOut: not within `timeout`; it goes on in the background.
        """
        self._check_fork()
        core, dispatcher = self._core, self._dispatcher
        if core is None or dispatcher is None:
            return
        deadline = Deadline(limit("timeout", timeout))
        core.flushing += 1
        try:
            for batch in core.unsettled_batches():
                dispatcher.wake()
                try:
                    async with asyncio.timeout(deadline.left()):
                        await batch.wait_async()
                except TimeoutError:
                    raise TimedOut(
                        f"records were not acknowledged within {deadline.timeout} s",
                        hint="they may still be: flush() again, or see quorumlog doctor for what is slow",
                    ) from None
        finally:
            core.flushing -= 1
        failed = core.take_failed()
        if failed:
            raise DeliveryFailed(failed)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    async def close(self, *, timeout: Timeout = None) -> None:
        """Flush, then let go of everything; what is not acknowledged within `timeout` is given up.

        Raises:
            DeliveryFailed: something was not delivered, now or since the last flush.
        """
        try:
            if not self._closed:
                await self.flush(timeout=timeout)
        except TimedOut as error:
            assert self._core is not None
            self._core.abandon(error)
        finally:
            self._closed = True
            if self._core is not None:
                self._core.closed = True
            await self._shut()
        failed = self._core.take_failed() if self._core is not None else []
        if failed:
            raise DeliveryFailed(failed)

    async def _shut(self) -> None:
        core, dispatcher = self._core, self._dispatcher
        if core is None or dispatcher is None:
            return
        await dispatcher.stop()
        core.abandon(Closed("the producer was closed before the records were acknowledged", hint="flush() first"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After Ctrl-C or a cancellation nobody wants to wait for minutes.
            await self.close(timeout=None if error is None or isinstance(error, Exception) else 1.0)
        except DeliveryFailed as failed:
            if error is None:
                raise
            error.add_note(f"while leaving the producer: {failed}")

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None and not self._closed and core.unsettled and self._process == PROCESS.generation:
            warnings.warn(
                f"a producer was dropped with {sum(b.count for b in core.unsettled_batches())} records that are not "
                "acknowledged: use it as a context manager, or call flush() and close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _check_usable(self) -> None:
        self._check_fork()
        if self._closed:
            raise Closed("the producer is closed", hint="open another one: client.producer()")

    def _check_fork(self) -> None:
        check_process(self._process, "producer")


def _check_partition(topic: str, route: _Route, partition: int) -> None:
    if type(partition) is not int:
        raise InvalidRequest(f"partition={partition!r} is not a number", hint="partitions count from 0")
    if not 0 <= partition < route.partitioner.count:
        raise UnknownPartition(
            f"topic {topic} has no partition {partition}, only 0 to {route.partitioner.count - 1}",
            hint="see quorumlog topic describe NAME",
            code="UNKNOWN_PARTITION",
        )

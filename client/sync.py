"""The face without asyncio: the same verbs, safe to call from any thread.

Nothing is decided here. Calls run in the loop of a background thread; sending puts records into the buffer right from
the calling thread, and records are opened and handed out in the thread that iterates.
"""

import atexit
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quorumlog.aio.admin import DEFAULT_TIMEOUT
from quorumlog.aio.client import CONNECT_SECONDS, CompressionName, Where
from quorumlog.aio.client import Client as AsyncClient
from quorumlog.aio.cluster import Deadline
from quorumlog.aio.consumer import Commit
from quorumlog.aio.consumer import Consumer as AsyncConsumer
from quorumlog.aio.producer import Producer as AsyncProducer
from quorumlog.durations import Duration, Timeout, When, limit
from quorumlog.errors import Closed
from quorumlog.fetching import OnDiverged, Reset
from quorumlog.futures import BulkFuture, SendFuture
from quorumlog.portal import Portal
from quorumlog.positions import Partitions
from quorumlog.process import PROCESS
from quorumlog.records import Record, TopicPartition
from quorumlog.send_plan import Column, HeadersLike
from quorumlog.sync_admin import ClusterFace, GroupsFace, TopicsFace
from quorumlog.waiting import OnWaiting

if TYPE_CHECKING:
    from collections.abc import Awaitable

Callback = Callable[[set[TopicPartition]], None]
"""Told which partitions; it runs in a thread of its own, and the group waits for it."""

# How long the end of a program waits for each client that it has not closed.
EXIT_SECONDS = 5.0

_NO_DEADLINE = Deadline(None)
_log = logging.getLogger("quorumlog")


class Producer:
    """Sends records; see `quorumlog.aio.Producer`. Safe to share between threads."""

    def __init__(self, portal: Portal, producer: AsyncProducer) -> None:
        self._portal = portal
        self._producer = producer
        self._try_send = producer.try_send

    def send(
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
        """Put one record into the buffer and return its future; see `quorumlog.aio.Producer.send`."""
        future = self._try_send(topic, value, key=key, headers=headers, partition=partition, timestamp=timestamp)
        if future is not None:
            return future
        return self._portal.call(
            self._producer.send(
                topic, value, key=key, headers=headers, partition=partition, timestamp=timestamp, timeout=timeout
            )
        )

    def send_many(
        self,
        topic: str,
        values: Column,
        *,
        keys: Column | None = None,
        partition: int | None = None,
        timestamp: When | None = None,
        timeout: Timeout = None,
    ) -> BulkFuture:
        """Put many records into the buffer, column by column; see `quorumlog.aio.Producer.send_many`."""
        deadline = Deadline(limit("timeout", timeout))
        producer = self._producer
        seen = producer.progress(topic)
        while (chunks := producer.try_plan(topic, values, keys, partition)) is None:
            self._portal.call(producer.ready(topic, deadline, seen))
            seen = producer.progress(topic)
        parts = []
        for chunk in chunks:
            seen = producer.progress(topic)
            while (part := producer.try_extend(topic, chunk, timestamp)) is None:
                self._portal.call(producer.ready(topic, deadline, seen))
                seen = producer.progress(topic)
            parts.append(part)
        return BulkFuture(parts)

    def flush(self, *, timeout: Timeout = None) -> None:
        """Wait until everything sent so far is acknowledged or given up; see `quorumlog.aio.Producer.flush`."""
        self._portal.call(self._producer.flush(timeout=timeout))

    def close(self, *, timeout: Timeout = None) -> None:
        """Flush and let go of everything; see `quorumlog.aio.Producer.close`."""
        self._portal.call(self._producer.close(timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal.call(self._producer.__aexit__(kind, error, trace))


class Consumer:
    """Reads records; see `quorumlog.aio.Consumer`. One thread at a time iterates; the others may commit, seek and
    close."""

    def __init__(self, portal: Portal, consumer: AsyncConsumer) -> None:
        self._portal = portal
        self._consumer = consumer
        self._take_record = consumer.take_record

    def open(self, *, timeout: Timeout = None) -> None:
        """Look up topics and join the group; the first record asked for does this as well."""
        self._portal.call(self._consumer.open(timeout=timeout))

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        record = self._take_record()
        while record is None:
            if not self._portal.call(self._consumer.next_records(_NO_DEADLINE)):
                raise StopIteration
            record = self._take_record()
        return record

    def batches(self) -> Iterator[list[Record]]:
        """Iterate over lists of records as they were fetched; see `quorumlog.aio.Consumer.batches`."""
        while records := self._list(_NO_DEADLINE, None):
            yield records

    def values(self) -> Iterator[list[bytes | None]]:
        """Iterate over lists of values: the fastest way to read; see `quorumlog.aio.Consumer.values`."""
        consumer = self._consumer
        while True:
            values = consumer.take_values()
            while not values:
                if self._portal.call(consumer.next_chunk(_NO_DEADLINE)) is None:
                    return
                values = consumer.take_values()
            yield values

    def poll(self, *, max_records: int = 500, timeout: Timeout = 1.0) -> list[Record]:
        """Return up to `max_records` records, an empty list if none came; see `quorumlog.aio.Consumer.poll`."""
        AsyncConsumer.check_max_records(max_records)
        return self._list(Deadline(limit("timeout", timeout)), max_records)

    def _list(self, deadline: Deadline, max_records: int | None) -> list[Record]:
        consumer = self._consumer
        records = consumer.take_list(max_records)
        while not records:
            if self._portal.call(consumer.next_chunk(deadline)) is None:
                return []
            records = consumer.take_list(max_records)
        return records

    def commit(self, *, timeout: Timeout = 30.0) -> None:
        """Commit everything handed out so far; see `quorumlog.aio.Consumer.commit`."""
        self._portal.call(self._consumer.commit(timeout=timeout))

    def seek(self, topic: str, partition: int, offset: int, *, leader_epoch: int | None = None) -> None:
        """Go on from another offset; see `quorumlog.aio.Consumer.seek`."""

        async def seek() -> None:
            self._consumer.seek(topic, partition, offset, leader_epoch=leader_epoch)

        self._portal.call(seek())

    def assignment(self) -> set[TopicPartition]:
        """Return the partitions this consumer has now."""
        return self._consumer.assignment()

    def positions(self) -> dict[TopicPartition, int]:
        """Return, per partition, the offset of the next record to hand out; -1 where that is not known yet."""
        return self._consumer.positions()

    def lag(self) -> dict[TopicPartition, int]:
        """Return, per partition, the records between position and high watermark as last heard."""
        return self._consumer.lag()

    def close(self, *, timeout: Timeout = 10.0) -> None:
        """Commit what is done, leave the group and let go of everything; see `quorumlog.aio.Consumer.close`."""
        self._portal.call(self._consumer.close(timeout=timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """A connection to a cluster; made by `connect`, used as a context manager. Safe to share between threads."""

    def __init__(
        self,
        bootstrap: str | Sequence[str] | None,
        client_id: str,
        timeout: Timeout,
        on_waiting: OnWaiting | None = None,
    ) -> None:
        self._portal = Portal()
        self._process = PROCESS.generation
        self._closed = False
        try:
            self._client = self._portal.call(_open(bootstrap, client_id, timeout, on_waiting))
        except BaseException:
            self._portal.close()
            raise
        self.topics = TopicsFace(self._portal, self._client.topics)
        self.groups = GroupsFace(self._portal, self._client.groups)
        self.cluster = ClusterFace(self._portal, self._client.cluster)
        _OPEN.add(self)

    def producer(
        self,
        *,
        linger: Duration = 0.005,
        batch_size: int = 65536,
        compression: CompressionName | None = None,
        delivery_timeout: Timeout = 120.0,
        buffer_memory: int = 64 << 20,
    ) -> Producer:
        """Return a producer; for the options see `quorumlog.aio.Client.producer`."""
        producer = self._client.producer(
            linger=linger,
            batch_size=batch_size,
            compression=compression,
            delivery_timeout=delivery_timeout,
            buffer_memory=buffer_memory,
        )
        return Producer(self._portal, producer)

    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        partitions: Partitions | None = None,
        start: Where = "earliest",
        stop: Where | int | None = None,
        commit: Commit = "after",
        reset: Reset = "raise",
        on_diverged: OnDiverged = "raise",
        prefetch_bytes: int = 32 << 20,
        max_wait: Duration = 0.5,
        any_replica: bool = False,
        session_timeout: Timeout = None,
        release_timeout: Timeout = 30.0,
        on_assign: Callback | None = None,
        on_revoke: Callback | None = None,
        on_lost: Callback | None = None,
    ) -> Consumer:
        """Return a consumer; for the options see `quorumlog.aio.Client.consumer`."""
        consumer = self._client.consumer(
            *topics,
            group=group,
            partitions=partitions,
            start=start,
            stop=stop,
            commit=commit,
            reset=reset,
            on_diverged=on_diverged,
            prefetch_bytes=prefetch_bytes,
            max_wait=max_wait,
            any_replica=any_replica,
            session_timeout=session_timeout,
            release_timeout=release_timeout,
            on_assign=self._in_thread(on_assign),
            on_revoke=self._in_thread(on_revoke),
            on_lost=self._in_thread(on_lost),
        )
        return Consumer(self._portal, consumer)

    def _in_thread(self, callback: Callback | None) -> "Callable[[set[TopicPartition]], Awaitable[None]] | None":
        if callback is None:
            return None
        loop = self._portal.loop

        async def call(partitions: set[TopicPartition]) -> None:
            await loop.run_in_executor(None, callback, partitions)

        return call

    def offsets(self, topic: str, *, at: Where = "latest", timeout: Timeout = DEFAULT_TIMEOUT) -> dict[int, int]:
        """Return an offset per partition; see `quorumlog.aio.Client.offsets`."""
        return self._portal.call(self._client.offsets(topic, at=at, timeout=timeout))

    def close(self, *, timeout: Timeout = None) -> None:
        """Close producers and consumers that are still open, then the connections; see `quorumlog.aio.Client.close`.

        The end of the program does this as well, for 5 seconds, and logs what was not delivered.

        Raises:
            DeliveryFailed: a producer had records that were not delivered.
            InvalidRequest: called from a callback in the client's own thread; nothing is closed then.
        """
        if self._closed or self._process != PROCESS.generation:
            return
        self._portal.check_thread()
        try:
            with contextlib.suppress(Closed):  # by another thread in the meantime
                self._portal.call(self._client.close(timeout=timeout))
        finally:
            self._closed = True
            _OPEN.discard(self)
            self._portal.close()

    def _leave(self) -> None:
        """Close it at the end of the program, and say what is lost by that. The thread, which a callback may hold,
        ends with the process."""
        if self._process != PROCESS.generation:
            return
        try:
            self._portal.call(self._client.close(timeout=EXIT_SECONDS), patience_seconds=EXIT_SECONDS + 1)
        except Exception as error:  # noqa: BLE001 - nobody is left to catch it
            _log.error("the program ended without closing its client: %s", str(error) or "a callback holds its thread")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# Held by this, not by the user alone: a function that returns drops its client, and the records go on.
_OPEN: set[Client] = set()


@atexit.register
def leave_all() -> None:
    """Close the clients that this process has left open; called at its end."""
    for client in list(_OPEN):
        client._leave()


async def _open(
    bootstrap: str | Sequence[str] | None, client_id: str, timeout: Timeout, on_waiting: OnWaiting | None
) -> AsyncClient:
    client = AsyncClient(bootstrap, client_id, on_waiting)
    try:
        await client.connect(timeout=timeout)
    except BaseException:
        await client.close()
        raise
    return client


def connect(
    bootstrap: str | Sequence[str] | None = None,
    *,
    client_id: str = "quorumlog-python",
    timeout: Timeout = CONNECT_SECONDS,
    on_waiting: OnWaiting | None = None,
) -> Client:
    """Connect to a cluster: `with connect("localhost:7070") as client`; for the arguments see
    `quorumlog.aio.connect`."""
    return Client(bootstrap, client_id, timeout, on_waiting)

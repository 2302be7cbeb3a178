"""The client's face in asyncio."""

import os
import random
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from quorumlog.aio.admin import DEFAULT_TIMEOUT, Topics
from quorumlog.aio.cluster import Cluster, Deadline
from quorumlog.aio.cluster_admin import ClusterAdmin
from quorumlog.aio.consumer import Commit, Consumer, ConsumerSettings
from quorumlog.aio.groups import Groups
from quorumlog.aio.offsets import list_offsets
from quorumlog.aio.producer import Producer
from quorumlog.durations import Duration, Timeout, When, limit, milliseconds_32, seconds, timestamp_ms
from quorumlog.errors import InvalidRequest
from quorumlog.fetching import FetchSettings, OnDiverged, Reset
from quorumlog.positions import Partitions, check_partitions, whole_number
from quorumlog.process import PROCESS, check_process
from quorumlog.producer_core import ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.compression import CodecUnavailable, require_codec
from quorumlog.proto.names import NameInvalid, check_group_name
from quorumlog.records import TopicPartition
from quorumlog.waiting import OnWaiting

# Forgives a machine that is busy, or nodes that are just starting; what is wrong is told when it is over.
CONNECT_SECONDS = 30.0

Where = Literal["earliest", "latest"] | When
"""A position in a log: its beginning, its end, or the first record at or after a time."""

Callback = Callable[[set[TopicPartition]], Awaitable[None] | None]
"""Told which partitions; a plain function or a coroutine function. It runs in the background loop and must not block
it."""

CompressionName = Literal["gzip", "snappy", "lz4", "zstd"]


class Client:
    """A connection to a cluster; made by `connect`, used as an async context manager.

    One client serves any number of producers and consumers of one event loop.
    """

    def __init__(
        self, bootstrap: str | Sequence[str] | None, client_id: str, on_waiting: OnWaiting | None = None
    ) -> None:
        self._cluster = Cluster(bootstrap_addresses(bootstrap), client_id, random.Random(), on_waiting)
        self._process = PROCESS.generation
        self._open: list[Producer | Consumer] = []
        self.topics = Topics(self._cluster)
        self.groups = Groups(self._cluster)
        self.cluster = ClusterAdmin(self._cluster)

    async def connect(self, *, timeout: Timeout = CONNECT_SECONDS) -> None:
        """Reach the cluster; `connect()` and the context manager do it.

        Raises:
            ConnectionFailed: it names each address, how far it came and the likely fix.
        """
        await self._cluster.connect(limit("timeout", timeout))

    def producer(
        self,
        *,
        linger: Duration = 0.005,
        batch_size: int = 65536,
        compression: CompressionName | None = None,
        delivery_timeout: Timeout = 120.0,
        buffer_memory: int = 64 << 20,
    ) -> Producer:
        """Return a producer; retries of it never duplicate.

        Args:
            linger: how long a record may wait for company at most, and only while a request to its leader is in
                flight. With none in flight it leaves at once.
            batch_size: bytes at which a batch does not wait any longer.
            compression: codec for batches of at least 1 KiB; all but gzip need quorumlog[fast].
            delivery_timeout: how long a record is tried for; None: forever.
            buffer_memory: bytes that may wait to be acknowledged; `send` waits for room.
        """
        self._check_usable()
        until = limit("delivery_timeout", delivery_timeout)
        if batch_size < 1 or buffer_memory < batch_size:
            raise InvalidRequest(
                f"batch_size={batch_size} and buffer_memory={buffer_memory} contradict each other",
                hint="the buffer must hold at least one batch",
            )
        settings = ProducerSettings(
            linger=seconds("linger", linger),
            batch_size=min(batch_size, 1 << 20),
            bulk_batch_size=max(min(batch_size, 1 << 20), 262144),
            delivery_timeout=float("inf") if until is None else until,
            buffer_memory=buffer_memory,
            compression=_codec(compression),
        )
        producer = Producer(self._cluster, settings)
        self._remember(producer)
        return producer

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
        """Return a consumer of topics, or of explicit partitions.

        Args:
            topics: what to consume. With a group its members share the partitions; without, this consumer reads all
                of them.
            group: name of the group that tracks how far its members have come.
            partitions: instead of topics and without a group: `{"orders": [0, 1]}`, or with offsets `{"orders": {0:
                1500}}`.
            start: where to begin in a partition for which no offset was given or committed.
            stop: where to end: "latest" is the end as it is when the consumer begins; an int is an offset; a datetime
                is a time. None: never.
            commit: "after": asking for the next record marks the one before as done, and done offsets are committed
                in the background; "manual": only `commit()` commits.
            reset: what to do where the position is not in the log any more (or not yet): "raise" OffsetOutOfRange,
                because silence would hide lost records, or go on at the "earliest" or "latest" there is.
            on_diverged: what to do where records that were read are no longer in the log: "raise" Diverged, or
                "reset" to where the logs part.
            prefetch_bytes: how much is fetched ahead of the user.
            max_wait: how long a node may wait before it answers that there is nothing new.
            any_replica: read each partition from any of its replicas, one on this machine if there is one, not only
                from the leader. Records may come a little later; they are the same ones.
            session_timeout: how long the group waits for a member whose background loop does not answer; None: the
                node's default. How long the handler takes does not matter.
            release_timeout: how long a partition that the group wants back may stay in the user's hands.
            on_assign: told about partitions taken over.
            on_revoke: told about partitions before they are given back.
            on_lost: told about partitions that went to others already.
        """
        self._check_usable()
        _check_consumer(topics, group, partitions, stop)
        first: Literal["earliest", "latest"] | int = _position("start", start)
        stop_offset = whole_number("stop", stop) if isinstance(stop, int) else None
        settings = ConsumerSettings(
            topics=topics,
            group=group,
            partitions=None if partitions is None else check_partitions(partitions),
            commit=_one_of("commit", commit, ("after", "manual")),
            session_timeout=None if session_timeout is None else milliseconds_32("session_timeout", session_timeout),
            release_timeout=limit("release_timeout", release_timeout),
            on_assign=_awaited(on_assign),
            on_revoke=_awaited(on_revoke),
            on_lost=_awaited(on_lost),
            fetch=FetchSettings(
                start=first,
                stop=None if stop is None or isinstance(stop, int) else _position("stop", stop),
                stop_offset=stop_offset,
                reset=_one_of("reset", reset, ("raise", "earliest", "latest")),
                on_diverged=_one_of("on_diverged", on_diverged, ("raise", "reset")),
                prefetch_bytes=max(1, whole_number("prefetch_bytes", prefetch_bytes)),
                max_wait=milliseconds_32("max_wait", max_wait),
                any_replica=any_replica,
            ),
        )
        consumer = Consumer(self._cluster, settings)
        self._remember(consumer)
        return consumer

    def _remember(self, part: Producer | Consumer) -> None:
        self._open = [other for other in self._open if not other.closed]
        self._open.append(part)

    async def offsets(self, topic: str, *, at: Where = "latest", timeout: Timeout = DEFAULT_TIMEOUT) -> dict[int, int]:
        """Return, per partition, the high watermark ("latest"), the oldest offset ("earliest"), or the first at or
        after a time."""
        self._check_usable()
        deadline = Deadline(limit("timeout", timeout))
        return dict(await list_offsets(self._cluster, topic, None, _position("at", at), deadline))

    async def close(self, *, timeout: Timeout = None) -> None:
        """Close producers and consumers that are still open, then the connections.

        Args:
            timeout: what is not acknowledged by then is given up. None: each producer takes its delivery timeout, each
                consumer as long as its own `close` does.

        Raises:
            DeliveryFailed: a producer had records that were not delivered.
        """
        if self._process != PROCESS.generation:
            return
        deadline = Deadline(limit("timeout", timeout))
        errors = []
        for part in self._open:
            try:
                await (part.close() if timeout is None else part.close(timeout=deadline.left()))
            except Exception as error:  # noqa: BLE001 - every part is closed whatever another one says; raised below
                errors.append(error)
        self._open.clear()
        await self._cluster.close()
        if errors:
            raise errors[0]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_usable(self) -> None:
        check_process(self._process, "client")


class Connecting:
    """What `connect` returns: `await` it for a client, or use it with `async with`."""

    def __init__(self, client: Callable[[], Client], timeout: Timeout) -> None:
        self._make = client
        self._timeout = timeout
        self._client: Client | None = None

    async def _connect(self) -> Client:
        client = self._make()
        try:
            await client.connect(timeout=self._timeout)
        except BaseException:
            await client.close()
            raise
        self._client = client
        return client

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def __aenter__(self) -> Client:
        return await self._connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.__aexit__(kind, error, trace)


def connect(
    bootstrap: str | Sequence[str] | None = None,
    *,
    client_id: str = "quorumlog-python",
    timeout: Timeout = CONNECT_SECONDS,
    on_waiting: OnWaiting | None = None,
) -> Connecting:
    """Connect to a cluster: `async with connect("localhost:7070") as client`.

    Args:
        bootstrap: "host:port", several with commas or as a list; any node will do, the others are found. None: the
            environment variable QUORUMLOG_BOOTSTRAP, else localhost:7070.
        client_id: how this program calls itself in the nodes' logs and in groups.
        timeout: how long to try.
        on_waiting: called again and again while a call waits, with the cause; see `quorumlog.waiting.OnWaiting`.

    Raises:
        ConnectionFailed: no node answers; it names each address, how far it came and the likely fix.
    """
    return Connecting(lambda: Client(bootstrap, client_id, on_waiting), timeout)


def bootstrap_addresses(bootstrap: str | Sequence[str] | None) -> list[str]:
    """Return the addresses to begin with, each as host:port (port 7070 where none is given)."""
    if bootstrap is None:
        bootstrap = os.environ.get("QUORUMLOG_BOOTSTRAP", "localhost:7070")
    given = bootstrap.split(",") if isinstance(bootstrap, str) else list(bootstrap)
    addresses = [address.strip().removeprefix("quorumlog://").rstrip("/") for address in given]
    addresses = [address if ":" in address else f"{address}:7070" for address in addresses if address]
    if not addresses:
        raise InvalidRequest("no bootstrap address", hint='give "host:port", or set QUORUMLOG_BOOTSTRAP')
    return addresses


def _position(option: str, where: Where) -> Literal["earliest", "latest"] | int:
    if not isinstance(where, str):
        return timestamp_ms(option, where)
    return _one_of(option, where, ("earliest", "latest"))


_W = TypeVar("_W", bound=str)


def _one_of(option: str, given: _W, words: Sequence[str]) -> _W:
    if given not in words:
        raise InvalidRequest(f"{option}={given!r} is not known", hint="use one of: " + ", ".join(words))
    return given


def _codec(name: str | None) -> int:
    if name is None:
        return pb.NONE
    _one_of("compression", name, ("gzip", "snappy", "lz4", "zstd"))
    codec = pb.Compression.Value(name.upper())
    try:
        require_codec(codec)
    except CodecUnavailable as error:
        raise InvalidRequest(str(error), hint=error.hint) from error
    return codec


def _awaited(callback: Callback | None) -> Callable[[set[TopicPartition]], Awaitable[None]] | None:
    if callback is None:
        return None

    async def call(partitions: set[TopicPartition]) -> None:
        result = callback(partitions)
        if result is not None:
            await result

    return call


def _check_consumer(
    topics: Sequence[str], group: str | None, partitions: Partitions | None, stop: Where | int | None
) -> None:
    if isinstance(partitions, Mapping) and (topics or group is not None):
        raise InvalidRequest("partitions= goes without topics and without a group", hint="name either of them")
    if not topics and not partitions:
        raise InvalidRequest("nothing to consume", hint="name topics, or give partitions=")
    if isinstance(stop, datetime) and stop.year < 1970:
        raise InvalidRequest(f"stop={stop!r} is before 1970", hint="give a later time")
    if group is not None:
        try:
            check_group_name(group)
        except NameInvalid as error:
            raise InvalidRequest(error.message, hint=error.hint, code="INVALID_NAME") from error

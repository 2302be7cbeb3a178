"""Subscribe: a stream of committed records under byte credit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from quorumlog.node.broker.fetch import check_fetch
from quorumlog.node.broker.reading import PartitionReader
from quorumlog.node.clock import Clock
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error

PUSH_SIZE_BYTES_MAX: Final = 1 << 20
"""Read at once for one partition, so that many partitions share a stream fairly."""

NOT_YET_RETRY_SECONDS: Final = 0.1
"""A replica that is behind is asked again after this long; the subscriber is not bothered with it."""

Send = Callable[[client_pb2.FetchResponse], None]
Key = tuple[bytes, str, int]


class _Position:
    """Where one partition of a subscription stands."""

    __slots__ = ("failed", "reading", "wanted")

    def __init__(self, wanted: client_pb2.FetchPartition) -> None:
        self.wanted = wanted
        self.reading = False
        self.failed = False


class Subscription:
    """One subscriber. Bytes are sent while credit is positive: one batch may overdraw it, so that it always gets on.

    A partition that fails is reported once and then left alone until the client adds it again.
    """

    def __init__(
        self, reader: PartitionReader, clock: Clock, timers: Timers, open_: client_pb2.SubscribeOpen, send: Send
    ) -> None:
        self._reader = reader
        self._clock = clock
        self._timers = timers
        self._send = send
        self._any_replica = open_.any_replica
        self._format = open_.format
        self._credit_bytes = open_.credit_bytes
        self._positions: dict[Key, _Position] = {}
        self._retry: Timer | None = None
        self.closed = False
        self._add(open_.partitions)

    def change(self, change: client_pb2.SubscribeChange) -> None:
        """Add, move and remove partitions."""
        for wanted in change.remove:
            self._positions.pop(_key(wanted), None)
        self._add(change.add)

    def grant(self, credit_bytes: int) -> None:
        """Let more bytes be sent."""
        self._credit_bytes += credit_bytes
        self._push_all()

    def on_progress(self, topic_id: bytes, partition: int) -> None:
        """The high watermark of a partition has moved."""
        for key, position in list(self._positions.items()):
            if key[2] == partition and (key[0] == topic_id or not key[0]):
                self._push(position)

    def close(self) -> None:
        """Send nothing more."""
        self.closed = True
        self._positions.clear()
        if self._retry is not None:
            self._retry.cancel()

    def _add(self, partitions: Iterable[client_pb2.FetchPartition]) -> None:
        added = list(partitions)
        error = check_fetch(added, self._format)
        if error is not None:
            self._send(client_pb2.FetchResponse(error=error))
            return
        for wanted in added:
            copy = client_pb2.FetchPartition()
            copy.CopyFrom(wanted)
            self._positions[_key(wanted)] = _Position(copy)
        self._push_all()

    def _push_all(self) -> None:
        for position in list(self._positions.values()):
            self._push(position)

    def _push(self, position: _Position) -> None:
        if position.reading or position.failed or self._credit_bytes <= 0 or self.closed:
            return
        position.reading = True
        self._reader.read(
            position.wanted,
            size_bytes_max=min(self._credit_bytes, PUSH_SIZE_BYTES_MAX),
            any_replica=self._any_replica,
            fetch_format=self._format,
            done=lambda result: self._on_read(position, result),
        )

    def _on_read(self, position: _Position, result: client_pb2.FetchedPartition) -> None:
        position.reading = False
        if self.closed or self._positions.get(_key(position.wanted)) is not position:
            return
        if result.HasField("error"):
            self._on_error(position, result)
            return
        batches, rows = result.batches, result.rows.records
        if batches:
            last = batches[-1]
            position.wanted.offset = last.base_offset + last.last_offset_delta + 1
            position.wanted.last_leader_epoch = last.leader_epoch
        elif rows:
            position.wanted.offset = rows[-1].offset + 1
            position.wanted.last_leader_epoch = rows[-1].leader_epoch
        else:
            return
        self._credit_bytes -= result.ByteSize()
        self._send(client_pb2.FetchResponse(partitions=[result]))
        self._push(position)

    def _on_error(self, position: _Position, result: client_pb2.FetchedPartition) -> None:
        if result.error.code != client_pb2.NOT_YET_AVAILABLE:
            position.failed = True
            self._send(client_pb2.FetchResponse(partitions=[result]))
            return
        if self._retry is None:
            self._retry = self._timers.at(self._clock.now() + NOT_YET_RETRY_SECONDS, self._on_retry)

    def _on_retry(self) -> None:
        self._retry = None
        self._push_all()


class SubscribePath:
    """All subscriptions of this node."""

    def __init__(self, reader: PartitionReader, clock: Clock, timers: Timers) -> None:
        self._reader = reader
        self._clock = clock
        self._timers = timers
        self._subscriptions: dict[Subscription, None] = {}

    def open(self, request: client_pb2.SubscribeRequest, send: Send) -> Subscription | None:
        """Begin a subscription with its first message; None, and an error sent, when that is not an open."""
        if request.WhichOneof("message") != "open":
            error = make_error(client_pb2.INVALID_REQUEST, "the first message of a subscription must be `open`")
            send(client_pb2.FetchResponse(error=error))
            return None
        subscription = Subscription(self._reader, self._clock, self._timers, request.open, send)
        self._subscriptions[subscription] = None
        return subscription

    def close(self, subscription: Subscription) -> None:
        """End a subscription."""
        subscription.close()
        self._subscriptions.pop(subscription, None)

    def on_progress(self, partitions: Iterable[tuple[bytes, int]]) -> None:
        """The high watermarks of these (topic id, partition) have moved."""
        if not self._subscriptions:
            return
        for topic_id, partition in partitions:
            for subscription in list(self._subscriptions):
                subscription.on_progress(topic_id, partition)


def _key(wanted: client_pb2.FetchPartition) -> Key:
    return wanted.topic_id, wanted.topic, wanted.partition

"""Subscribe: a stream of committed records under byte credit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from quorumlog.node.broker.fetch import PARTITIONS_MAX, check_fetch
from quorumlog.node.broker.reading import PartitionReader
from quorumlog.node.clock import Clock
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error

PUSH_SIZE_BYTES_MAX: Final = 1 << 20
"""Read at once for one partition, so that many partitions share a stream fairly."""

UNWRITTEN_SIZE_BYTES_MAX: Final = 16 << 20
"""Pushed and not written to the stream yet: a subscriber that grants credit and does not read costs no more memory."""

NOT_YET_RETRY_SECONDS: Final = 0.1
"""A replica that is behind is asked again after this long; the subscriber is not bothered with it."""

Send = Callable[[client_pb2.FetchResponse], None]
Key = tuple[bytes, str, int]


class _Position:
    """Where one partition of a subscription stands."""

    __slots__ = ("failed", "more", "pushing", "reading", "wanted")

    def __init__(self, wanted: client_pb2.FetchPartition) -> None:
        self.wanted = wanted
        self.reading = False
        self.pushing = False
        self.more = False
        """The last read brought something, so there may be more."""
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
        self._unwritten_bytes = 0
        self._positions: dict[Key, _Position] = {}
        self._retry: Timer | None = None
        self.closed = False

    def add(self, partitions: Iterable[client_pb2.FetchPartition]) -> client_pb2.Error | None:
        """Begin with partitions, or move those that are there. An error: nothing was changed."""
        added = list(partitions)
        error = check_fetch(added, self._format)
        if error is None and len(self._positions.keys() | map(_key, added)) > PARTITIONS_MAX:
            error = make_error(client_pb2.INVALID_REQUEST, f"more than {PARTITIONS_MAX} partitions in one subscription")
        if error is not None:
            return error
        for wanted in added:
            copy = client_pb2.FetchPartition()
            copy.CopyFrom(wanted)
            self._positions[_key(wanted)] = _Position(copy)
        self._push_all()
        return None

    def remove(self, partitions: Iterable[client_pb2.FetchPartition]) -> None:
        """Send no more of these."""
        for wanted in partitions:
            self._positions.pop(_key(wanted), None)

    def grant(self, credit_bytes: int) -> None:
        """Let more bytes be sent."""
        self._credit_bytes += credit_bytes
        self._push_all()

    def on_written(self, response: client_pb2.FetchResponse) -> None:
        """An answer has been written to the stream."""
        waited = self._unwritten_bytes >= UNWRITTEN_SIZE_BYTES_MAX
        self._unwritten_bytes -= response.ByteSize()
        if waited:
            self._push_all()

    def on_progress(self, moved: Collection[tuple[bytes, int]], numbers: Collection[int]) -> None:
        """The high watermarks of `moved`, as (topic id, partition), have moved; `numbers` are those of the partitions.

        A position by name is looked at whenever a partition of its number moves.
        """
        for (topic_id, _, number), position in list(self._positions.items()):
            if (topic_id, number) in moved or (not topic_id and number in numbers):
                self._push(position)

    def close(self) -> None:
        """Send nothing more."""
        self.closed = True
        self._positions.clear()
        if self._retry is not None:
            self._retry.cancel()

    def _push_all(self) -> None:
        for position in list(self._positions.values()):
            self._push(position)

    def _may_push(self, position: _Position) -> bool:
        return not (
            position.reading
            or position.failed
            or self.closed
            or self._credit_bytes <= 0
            or self._unwritten_bytes >= UNWRITTEN_SIZE_BYTES_MAX
        )

    def _push(self, position: _Position) -> None:
        """Read and send as long as reads are answered at once; a read that takes longer goes on from `_on_read`."""
        if position.pushing:
            return
        position.pushing = position.more = True
        while position.more and self._may_push(position):
            position.reading = True
            position.more = False
            self._reader.read(
                position.wanted,
                size_bytes_max=min(self._credit_bytes, PUSH_SIZE_BYTES_MAX),
                any_replica=self._any_replica,
                fetch_format=self._format,
                done=lambda result: self._on_read(position, result),
            )
        position.pushing = False

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
        self._answer(result)
        position.more = True
        self._push(position)

    def _answer(self, result: client_pb2.FetchedPartition) -> None:
        response = client_pb2.FetchResponse(partitions=[result])
        self._unwritten_bytes += response.ByteSize()
        self._send(response)

    def _on_error(self, position: _Position, result: client_pb2.FetchedPartition) -> None:
        if result.error.code != client_pb2.NOT_YET_AVAILABLE:
            position.failed = True
            self._answer(result)
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
        """Begin a subscription with its first message; None, and an error sent, when that is not a sound open."""
        if request.WhichOneof("message") != "open":
            error = make_error(client_pb2.INVALID_REQUEST, "the first message of a subscription must be `open`")
            send(client_pb2.FetchResponse(error=error))
            return None
        subscription = Subscription(self._reader, self._clock, self._timers, request.open, send)
        self._subscriptions[subscription] = None
        return subscription if self._took(subscription, subscription.add(request.open.partitions), send) else None

    def on_request(self, subscription: Subscription, request: client_pb2.SubscribeRequest, send: Send) -> bool:
        """Take a later message; False, and an error sent, when it cannot be taken: the stream ends."""
        match request.WhichOneof("message"):
            case "credit_bytes":
                subscription.grant(request.credit_bytes)
                return True
            case "change":
                subscription.remove(request.change.remove)
                return self._took(subscription, subscription.add(request.change.add), send)
            case _:
                message = "a subscription is opened once; after that it takes `change` and `credit_bytes`"
                return self._took(subscription, make_error(client_pb2.INVALID_REQUEST, message), send)

    def _took(self, subscription: Subscription, error: client_pb2.Error | None, send: Send) -> bool:
        if error is None:
            return True
        self.close(subscription)
        send(client_pb2.FetchResponse(error=error))
        return False

    def close(self, subscription: Subscription) -> None:
        """End a subscription."""
        subscription.close()
        self._subscriptions.pop(subscription, None)

    def on_progress(self, partitions: Iterable[tuple[bytes, int]]) -> None:
        """The high watermarks of these (topic id, partition) have moved."""
        if not self._subscriptions:
            return
        moved = set(partitions)
        numbers = {number for _, number in moved}
        for subscription in list(self._subscriptions):
            subscription.on_progress(moved, numbers)


def _key(wanted: client_pb2.FetchPartition) -> Key:
    return wanted.topic_id, wanted.topic, wanted.partition

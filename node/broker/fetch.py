"""Fetch: the long poll."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from quorumlog.node.broker.reading import PartitionReader
from quorumlog.node.clock import Clock
from quorumlog.node.timers import Timer, Timers
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error

FETCH_SIZE_BYTES_MAX: Final = 8 << 20
"""Of one answer, whatever the client asks for, and one batch more: together they fit into one message."""

FETCH_WAIT_MS_MAX: Final = 60_000
PARTITIONS_MAX: Final = 4096

Reply = Callable[[client_pb2.FetchResponse], None]


def check_fetch(partitions: Iterable[client_pb2.FetchPartition], fetch_format: int) -> client_pb2.Error | None:
    """Why a fetch or a subscription cannot be understood, None when it can."""
    if fetch_format not in client_pb2.FetchFormat.values():
        return make_error(
            client_pb2.UNSUPPORTED_VERSION, f"fetch format {fetch_format} is not known; known are 0 BATCHES and 1 ROWS"
        )
    for count, wanted in enumerate(partitions, 1):
        if wanted.offset < 0:
            return make_error(
                client_pb2.INVALID_REQUEST,
                f"offset {wanted.offset} of partition {wanted.partition} is negative: offsets count from 0",
                hint="ask ListOffsets for the earliest or latest offset",
            )
        if count > PARTITIONS_MAX:
            return make_error(client_pb2.INVALID_REQUEST, f"more than {PARTITIONS_MAX} partitions in one request")
    return None


class FetchPath:
    """Answers fetches: at once when there is enough, otherwise when the high watermarks have moved, or in time."""

    def __init__(self, reader: PartitionReader, clock: Clock, timers: Timers) -> None:
        self._reader = reader
        self._clock = clock
        self._timers = timers
        self._waiting: dict[tuple[bytes, int], dict[_Poll, None]] = {}
        self._first = 0

    def fetch(self, request: client_pb2.FetchRequest, reply: Reply) -> Callable[[], None]:
        """Answer `request` through `reply`, once. Returns a function that gives it up."""
        error = check_fetch(request.partitions, request.format)
        if error is not None:
            reply(client_pb2.FetchResponse(error=error))
            return _nothing
        poll = _Poll(self, request, reply)
        wait_seconds = min(request.max_wait_ms, FETCH_WAIT_MS_MAX) / 1000
        poll.deadline = self._clock.now() + wait_seconds
        self._read(poll)
        return poll.give_up

    def on_progress(self, partitions: Iterable[tuple[bytes, int]]) -> None:
        """The high watermarks of these (topic id, partition) have moved."""
        polls: dict[_Poll, None] = {}
        for key in partitions:
            polls.update(self._waiting.get(key, {}))
        for poll in polls:
            self._forget(poll)
            self._read(poll)

    def _read(self, poll: _Poll) -> None:
        """Read the partitions one after the other, so that one fetch never holds more in memory than one answer.

        Each fetch begins behind where the one before it began, so that the first partitions do not starve the others.
        """
        count = len(poll.request.partitions)
        self._first += 1
        poll.results = [None] * count
        poll.order = [(self._first + place) % count for place in range(count)]
        poll.left_bytes = min(poll.request.max_bytes or FETCH_SIZE_BYTES_MAX, FETCH_SIZE_BYTES_MAX)
        self._go_on(poll)

    def _go_on(self, poll: _Poll) -> None:
        """Read as long as reads are answered at once; one that takes longer calls this again."""
        if poll.going:
            return
        poll.going = True
        while poll.order and poll.reading is None and not poll.over:
            position = poll.reading = poll.order.pop()
            self._reader.read(
                poll.request.partitions[position],
                size_bytes_max=max(poll.left_bytes, 0),
                any_replica=poll.request.any_replica,
                fetch_format=poll.request.format,
                done=lambda result: self._collect(poll, result),
            )
        poll.going = False
        if poll.reading is None:
            self._finish(poll)

    def _collect(self, poll: _Poll, result: client_pb2.FetchedPartition) -> None:
        assert poll.reading is not None, "one read is answered once"
        poll.results[poll.reading] = result
        poll.reading = None
        poll.left_bytes -= _payload_bytes(result)
        self._go_on(poll)

    def _finish(self, poll: _Poll) -> None:
        """Everything is read: answer, or wait for more."""
        if poll.over:
            return
        results = [result for result in poll.results if result is not None]
        size_bytes = sum(_payload_bytes(result) for result in results)
        enough = (
            size_bytes >= max(poll.request.min_bytes, 1)
            or any(_is_cut_short(result) for result in results)  # no wait would bring more into this answer
            or any(result.HasField("error") for result in results)
        )
        if enough or poll.expired or self._clock.now() >= poll.deadline:
            poll.answer(results)
            return
        for result in results:
            self._waiting.setdefault((result.topic_id, result.partition), {})[poll] = None
        poll.keys = [(result.topic_id, result.partition) for result in results]
        if poll.timer is None:
            poll.timer = self._timers.at(poll.deadline, lambda: self._expire(poll))

    def _expire(self, poll: _Poll) -> None:
        poll.expired = True
        if poll.reading is None:
            self._forget(poll)
            poll.answer([result for result in poll.results if result is not None])

    def _forget(self, poll: _Poll) -> None:
        for key in poll.keys:
            polls = self._waiting.get(key)
            if polls is not None:
                polls.pop(poll, None)
                if not polls:
                    del self._waiting[key]
        poll.keys = []


class _Poll:
    """One fetch under way."""

    __slots__ = (
        "_owner", "_reply", "deadline", "expired", "going", "keys", "left_bytes", "order", "over", "reading",
        "request", "results", "timer",
    )  # fmt: skip

    def __init__(self, owner: FetchPath, request: client_pb2.FetchRequest, reply: Reply) -> None:
        self._owner = owner
        self._reply = reply
        self.request = request
        self.deadline = 0.0
        self.expired = False
        self.over = False
        self.timer: Timer | None = None
        self.keys: list[tuple[bytes, int]] = []
        self.results: list[client_pb2.FetchedPartition | None] = []
        self.order: list[int] = []
        self.reading: int | None = None
        """Position of the partition that is being read."""
        self.going = False
        self.left_bytes = 0

    def answer(self, results: list[client_pb2.FetchedPartition]) -> None:
        self._end()
        self._reply(client_pb2.FetchResponse(partitions=results))

    def give_up(self) -> None:
        if not self.over:
            self._end()
            self._owner._forget(self)

    def _end(self) -> None:
        self.over = True
        if self.timer is not None:
            self.timer.cancel()


def _payload_bytes(result: client_pb2.FetchedPartition) -> int:
    return sum(len(batch.payload) for batch in result.batches) + (
        result.rows.ByteSize() if result.HasField("rows") else 0
    )


def _is_cut_short(result: client_pb2.FetchedPartition) -> bool:
    """Whether there was more to read than the limits allowed."""
    if result.batches:
        last = result.batches[-1]
        return last.base_offset + last.last_offset_delta + 1 < result.high_watermark
    return bool(result.rows.records) and result.rows.records[-1].offset + 1 < result.high_watermark


def _nothing() -> None:
    """A fetch that was answered at once has nothing to give up."""

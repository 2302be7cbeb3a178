"""One Produce stream to one leader: requests out, results back in any order, and the end of it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from grpc import aio

from quorumlog.aio.channels import Connection, rpc_failed
from quorumlog.clock import monotonic
from quorumlog.encoding import encode
from quorumlog.errors import QuorumlogError, TimedOut
from quorumlog.partition_sender import Attempt
from quorumlog.proto import client_pb2 as pb

ResultHandler = Callable[[Attempt, pb.ProduceResult, str], None]


class Request:
    """A request in flight: the attempts still without a result, by their position in it."""

    __slots__ = ("attempts", "correlation_id", "sent_at")

    def __init__(self, correlation_id: int, attempts: list[Attempt], sent_at: float) -> None:
        self.correlation_id = correlation_id
        self.attempts = dict(enumerate(attempts))
        self.sent_at = sent_at


class ProduceStream:
    """The stream to one leader. It ends once; a new one is opened for what comes after.

    Args:
        address: the leader's.
        connect: opens the connection.
        compression: codec for batches.
        request_timeout: seconds within which a request has its results; the node is told, and a stream that is later
            than twice that is given up.
        on_result: called for every result.
        on_end: called once, with what was still in flight and why the stream ended.
        on_request_done: called when a request has all its results.
    """

    def __init__(
        self,
        address: str,
        connect: Callable[[], Awaitable[Connection]],
        *,
        compression: int,
        request_timeout: float,
        on_result: ResultHandler,
        on_end: Callable[["ProduceStream", list[Request], QuorumlogError], None],
        on_request_done: Callable[[str], None],
    ) -> None:
        self.address = address
        self._connect = connect
        self._compression = compression
        self._request_timeout = request_timeout
        self._on_result = on_result
        self._on_end = on_end
        self._on_request_done = on_request_done
        self._outgoing: deque[Request] = deque()
        self._in_flight: dict[int, Request] = {}
        self._wake = asyncio.Event()
        self._correlation_id = 0
        self._task = asyncio.ensure_future(self._run())

    def send(self, attempts: list[Attempt]) -> None:
        """Queue a request; its results, or the end of the stream, will tell what became of it."""
        self._correlation_id += 1
        request = Request(self._correlation_id, attempts, monotonic())
        self._in_flight[request.correlation_id] = request
        self._outgoing.append(request)
        self._wake.set()

    def expire(self, now: float) -> None:
        """End the stream if its oldest request is overdue."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is not None and now - oldest.sent_at > 2 * self._request_timeout:
            self._task.cancel()

    def stalled(self, now: float, seconds: float) -> list[Attempt]:
        """Return what waits for an answer for more than `seconds`."""
        late: list[Attempt] = []
        for request in self._in_flight.values():
            if now - request.sent_at <= seconds:
                break
            late.extend(request.attempts.values())
        return late

    def give_up(self) -> None:
        """End the stream: another node leads what it was for."""
        self._task.cancel()

    async def close(self) -> None:
        """End the stream."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        cause: QuorumlogError = TimedOut(
            f"{self.address} did not answer in time", hint="see quorumlog doctor for what is slow"
        )
        call: aio.StreamStreamCall[pb.ProduceRequest, pb.ProduceResponse] | None = None
        writer: asyncio.Task[None] | None = None
        try:
            connection = await self._connect()
            call = connection.log.Produce()
            writer = asyncio.ensure_future(self._write(call))
            while True:
                response = await call.read()
                if response is aio.EOF:
                    break
                assert isinstance(response, pb.ProduceResponse)
                for result in response.results:
                    self._take(result)
            status = await call.code()
            cause = TimedOut(f"{self.address} ended the stream ({status.name})", hint="the node may be stopping")
        except aio.AioRpcError as error:
            cause = rpc_failed(self.address, error)
        except QuorumlogError as error:
            cause = error
        except asyncio.CancelledError:
            pass  # close() or expire(): the end is reported below, and nobody awaits this task for a value
        finally:
            if writer is not None:
                writer.cancel()
            if call is not None:
                call.cancel()
            lost = list(self._in_flight.values())
            self._in_flight.clear()
            self._outgoing.clear()
            self._on_end(self, lost, cause)

    async def _write(self, call: "aio.StreamStreamCall[pb.ProduceRequest, pb.ProduceResponse]") -> None:
        while True:
            while self._outgoing:
                message = self._message(self._outgoing.popleft())
                try:
                    await call.write(message)
                except (aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the reader sees the end as well, and why
            self._wake.clear()
            await self._wake.wait()

    def _message(self, request: Request) -> pb.ProduceRequest:
        batches = []
        for attempt in request.attempts.values():
            sender, batch = attempt.sender, attempt.batch
            batches.append(
                pb.PartitionBatch(
                    topic_id=sender.topic_id,
                    topic=sender.topic,
                    partition=sender.partition,
                    attempt=attempt.number,
                    batch=encode(batch, sender.producer_id, self._compression),
                )
            )
        return pb.ProduceRequest(
            correlation_id=request.correlation_id, batches=batches, timeout_ms=round(self._request_timeout * 1000)
        )

    def _take(self, result: pb.ProduceResult) -> None:
        request = self._in_flight.get(result.correlation_id)
        attempt = request.attempts.pop(result.batch, None) if request is not None else None
        if request is None or attempt is None:
            return
        if not request.attempts:
            del self._in_flight[request.correlation_id]
            self._on_request_done(self.address)
        self._on_result(attempt, result, self.address)

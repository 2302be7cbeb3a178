"""One Produce stream to one leader: requests out, results back in any order, and the end of it."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from grpc import aio

from quorumlog.aio.channels import Connection, rpc_failed
from quorumlog.clock import monotonic
from quorumlog.encoding import encode
from quorumlog.errors import Outcome, QuorumlogError, TimedOut, unexpected
from quorumlog.partition_sender import Attempt
from quorumlog.proto import client_pb2 as pb

_log = logging.getLogger("quorumlog")

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
        on_unsendable: called for what cannot be put into a message, and why.
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
        on_unsendable: Callable[[Attempt, QuorumlogError], None],
        on_request_done: Callable[[str], None],
    ) -> None:
        self.address = address
        self._connect = connect
        self._compression = compression
        self._request_timeout = request_timeout
        self._on_result = on_result
        self._on_end = on_end
        self._on_unsendable = on_unsendable
        self._on_request_done = on_request_done
        self._outgoing: deque[Request] = deque()
        self._in_flight: dict[int, Request] = {}
        self._wake = asyncio.Event()
        self._correlation_id = 0
        self._cause: QuorumlogError = TimedOut(
            f"{address} did not answer in time", hint="see quorumlog doctor for what is slow"
        )
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
            self._cause = TimedOut(f"{self.address} ended the stream ({status.name})", hint="the node may be stopping")
        except aio.AioRpcError as error:
            self._cause = rpc_failed(self.address, error)
        except QuorumlogError as error:
            self._cause = error
        except asyncio.CancelledError:
            pass  # close() or expire(): the end is reported below, and nobody awaits this task for a value
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: what is in flight is lost with it
            self._fail(error)
        finally:
            if writer is not None:
                writer.cancel()
            if call is not None:
                call.cancel()
            lost = list(self._in_flight.values())
            self._in_flight.clear()
            self._outgoing.clear()
            self._on_end(self, lost, self._cause)

    def _fail(self, error: Exception) -> None:
        """Something went wrong that nobody has foreseen. What is in flight is lost, and may be sent again."""
        _log.exception("the stream to %s has failed", self.address)
        self._cause = unexpected(f"the stream to {self.address}", error)

    async def _write(self, call: "aio.StreamStreamCall[pb.ProduceRequest, pb.ProduceResponse]") -> None:
        try:
            while True:
                while self._outgoing:
                    message = self._message(self._outgoing.popleft())
                    if message is not None:
                        await call.write(message)
                self._wake.clear()
                await self._wake.wait()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader sees the end as well, and why
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the stream ends with it
            self._fail(error)
            self._task.cancel()

    def _message(self, request: Request) -> pb.ProduceRequest | None:
        """Return what to write; None where nothing of the request is to be sent any more."""
        batches = []
        sent = []
        for attempt in request.attempts.values():
            if attempt.batch.done:
                continue  # given up while it waited here; its records are gone
            try:
                batches.append(self._encode(attempt))
            except Exception as error:  # noqa: BLE001 - of whatever kind: the other batches are none of its business
                place = f"{attempt.sender.topic}[{attempt.sender.partition}]"
                cause = unexpected(f"encoding records for {place}", error, Outcome.NOT_APPENDED)
                self._on_unsendable(attempt, cause)
            else:
                sent.append(attempt)
        request.attempts = dict(enumerate(sent))
        if not sent:
            del self._in_flight[request.correlation_id]
            self._on_request_done(self.address)
            return None
        return pb.ProduceRequest(
            correlation_id=request.correlation_id, batches=batches, timeout_ms=round(self._request_timeout * 1000)
        )

    def _encode(self, attempt: Attempt) -> pb.PartitionBatch:
        sender, batch = attempt.sender, attempt.batch
        return pb.PartitionBatch(
            topic_id=sender.topic_id,
            topic=sender.topic,
            partition=sender.partition,
            attempt=attempt.number,
            batch=encode(batch, sender.producer_id, self._compression),
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

"""Carries batches between a producer's core and the leaders: streams, timers, and finding out who leads."""

import asyncio
import contextlib

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster
from quorumlog.aio.produce_stream import ProduceStream, Request
from quorumlog.backoff import full_jitter
from quorumlog.clock import monotonic
from quorumlog.errors import QuorumlogError, TimedOut, from_wire, unexpected
from quorumlog.partition_sender import Attempt, PartitionSender
from quorumlog.producer_core import ProducerCore
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import kind_of

# How long a leader may take for one attempt before it counts as lost.
REQUEST_SECONDS = 10.0
# A leader this late may be paused, with another one elected meanwhile: ask who leads.
STALLED_SECONDS = 2.0


class Dispatcher:
    """The loop side of a producer.

    Args:
        cluster: whom to ask.
        core: what to send.
    """

    def __init__(self, cluster: Cluster, core: ProducerCore) -> None:
        self._cluster = cluster
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, ProduceStream] = {}
        self._wake_pending = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._leaderless: set[str] = set()
        self._refresher: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._stopped = False
        self.progress = 0
        """How many times something has happened that may let a refused record into the buffer."""

    def wake(self) -> None:
        """Look soon for what can be sent. Safe to call from any thread; cheap when called again before that has
        happened."""
        if self._wake_pending or self._stopped:
            return
        self._wake_pending = True
        if asyncio._get_running_loop() is self._loop:
            self._loop.call_soon(self._pump)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._pump)

    async def room(self, seen: int) -> None:
        """Wait until something has happened that may let a refused record into the buffer, counted from when `progress`
        was `seen`; not at all where no records are in it."""
        if self.progress == seen and self._core.unsettled and not self._stopped:
            self._room.clear()
            self.wake()
            await self._room.wait()

    def made_room(self) -> None:
        """Let whoever waits for room try again."""
        self.progress += 1
        self._room.set()

    async def stop(self) -> None:
        """End streams and timers."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._refresher, self._checker) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(stream.close() for stream in list(self._streams.values())))
        self.made_room()

    # -- sending

    def _pump(self) -> None:
        self._wake_pending = False
        if self._stopped:
            return
        now = monotonic()
        core = self._core
        with core.lock:
            before = core.buffered_bytes
            core.expire(now)
            expired = core.buffered_bytes < before
        if expired:
            self.made_room()
        for stream in list(self._streams.values()):
            stream.expire(now)
        if self._checker is None and any(s.stalled(now, STALLED_SECONDS) for s in self._streams.values()):
            self._checker = asyncio.ensure_future(self._check_stalled())
        for address, attempts in core.poll(now, self._leader_of):
            self._stream(address).send(attempts)
        if self._leaderless and self._refresher is None:
            self._refresher = asyncio.ensure_future(self._find_leaders())
        self._arm(now)

    def _arm(self, now: float) -> None:
        at = self._core.next_wakeup(now)
        if self._streams and self._core.unsettled:
            at = min(at if at is not None else now + 1.0, now + 1.0)  # overdue streams are looked for every second
        if at is None or (self._timer is not None and self._timer_at <= at):
            return  # one that comes too early looks again; arming one anew for every record would cost more
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.001, at - now), self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self._pump()

    def _leader_of(self, sender: PartitionSender) -> str | None:
        address = self._cluster.cache.leader(sender.topic, sender.partition)
        if address is None:
            self._leaderless.add(sender.topic)
        return address

    def _stream(self, address: str) -> ProduceStream:
        stream = self._streams.get(address)
        if stream is None:

            async def connect() -> Connection:
                return await self._cluster.pool.get(address, ATTEMPT_SECONDS)

            stream = self._streams[address] = ProduceStream(
                address,
                connect,
                compression=self._core.settings.compression,
                request_timeout=REQUEST_SECONDS,
                on_result=self._on_result,
                on_end=self._on_end,
                on_unsendable=self._on_unsendable,
                on_request_done=self._on_request_done,
            )
        return stream

    # -- results

    def _on_result(self, attempt: Attempt, result: pb.ProduceResult, address: str) -> None:
        if result.HasField("error") and result.error.code != pb.OK:
            self._on_error(attempt, result.error, address)
        else:
            self._core.appended(attempt, result.base_offset, duplicate=result.duplicate)
        self.made_room()
        self.wake()

    def _on_error(self, attempt: Attempt, error: pb.Error, address: str) -> None:
        sender = attempt.sender
        cache = self._cluster.cache
        news = error.HasField("leader") and cache.learn_leader(sender.topic, sender.partition, error.leader)
        if not news and kind_of(error.code).refresh_metadata:
            cache.forget_leader(sender.topic, sender.partition, address)
        self._core.refused(attempt, from_wire(error), monotonic(), at_once=news)
        if sender.trouble is not None and sender.unsettled:
            self._cluster.mention(sender.trouble, sender.trouble_since)

    def _on_unsendable(self, attempt: Attempt, cause: QuorumlogError) -> None:
        self._core.refused(attempt, cause, monotonic())
        self.made_room()
        self.wake()

    def _on_request_done(self, address: str) -> None:
        self._core.request_done(address)
        self.wake()

    def _on_end(self, stream: ProduceStream, lost: list[Request], cause: QuorumlogError) -> None:
        if self._streams.get(stream.address) is stream:
            del self._streams[stream.address]
        now = monotonic()
        self._cluster.cache.forget_node(stream.address)
        for request in lost:
            self._core.request_done(stream.address)
            for attempt in request.attempts.values():
                self._core.lost(attempt, cause, now)
        self.made_room()
        self.wake()
        since = [attempt.sender.trouble_since for request in lost for attempt in request.attempts.values()]
        if since:
            self._cluster.mention(cause, min(since))

    # -- leaders

    async def _check_stalled(self) -> None:
        """Ask who leads what a silent node was sent; where that is another one, stop waiting for the silent one."""
        try:
            late = []
            for address, stream in self._streams.items():
                stalled = stream.stalled(monotonic(), STALLED_SECONDS)
                if stalled:
                    silence = TimedOut(f"{address} has not answered for {STALLED_SECONDS:g} s")
                    self._cluster.mention(silence, monotonic() - STALLED_SECONDS)
                late += stalled
            with contextlib.suppress(QuorumlogError):
                await self._cluster.refresh({attempt.sender.topic for attempt in late}, ATTEMPT_SECONDS)
            for stream in list(self._streams.values()):
                leaders = {
                    self._cluster.cache.leader(attempt.sender.topic, attempt.sender.partition)
                    for attempt in stream.stalled(monotonic(), STALLED_SECONDS)
                }
                if leaders - {stream.address, None}:
                    stream.give_up()
            await asyncio.sleep(STALLED_SECONDS / 4)
        finally:
            self._checker = None

    async def _find_leaders(self) -> None:
        began = monotonic()
        failures = 0
        topics: set[str] = set()
        try:
            while self._leaderless and not self._stopped:
                topics, self._leaderless = self._leaderless, set()
                try:
                    failed = await self._cluster.refresh(topics, ATTEMPT_SECONDS)
                except QuorumlogError as error:
                    failed = dict.fromkeys(topics, error)
                for topic, cause in failed.items():
                    if cause.retriable:
                        self._core.unreachable(topic, cause, monotonic())
                    else:
                        self._core.fail_topic(topic, cause)
                        self.made_room()
                self._pump()  # also tells whether anything is still without a leader
                if self._leaderless:
                    self._cluster.waiting_for_leaders(self._leaderless, began)
                    failures += 1
                    await asyncio.sleep(full_jitter(failures, self._cluster.rng))
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the records' futures tell
            cause = unexpected("finding out who leads", error)
            for topic in topics | self._leaderless:
                self._core.fail_topic(topic, cause)
            self._leaderless.clear()
            self.made_room()
        finally:
            self._refresher = None

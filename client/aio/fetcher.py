"""Carries fetches between a consumer's core and the leaders."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from grpc import aio

from quorumlog.aio.channels import Connection, rpc_failed
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster
from quorumlog.backoff import full_jitter
from quorumlog.clock import monotonic
from quorumlog.cursor import Cursor, Start
from quorumlog.errors import QuorumlogError, from_wire
from quorumlog.fetching import Fetch, FetchCore
from quorumlog.proto import client_pb2 as pb

# What a long poll may take beyond the time it was asked to wait.
_GRACE_SECONDS = 2.5


class Fetcher:
    """The loop side of a consumer's fetching: several long polls at a time, each partition in at most one of them.

    Args:
        cluster: whom to ask.
        core: what to ask for.
    """

    def __init__(self, cluster: Cluster, core: FetchCore) -> None:
        self._cluster = cluster
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._scheduled = False
        self._stopped = False
        self.news = asyncio.Event()

    def wake(self) -> None:
        """Look soon for what can be fetched."""
        if not self._scheduled and not self._stopped:
            self._scheduled = True
            self._loop.call_soon(self._pump)

    async def stop(self) -> None:
        """End everything in flight."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._refresher] if self._refresher is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pump(self) -> None:
        self._scheduled = False
        if self._stopped:
            return
        now = monotonic()
        core = self._core
        for address, cursors in core.unresolved(now).items():
            for cursor in cursors:
                cursor.fetching = True
            self._spawn(self._resolve(address, cursors))
        for fetch in core.fetches(now):
            self._spawn(self._fetch(fetch))
        if core.leaderless and self._refresher is None:
            self._refresher = asyncio.ensure_future(self._find_leaders())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = core.next_wakeup(now)
        if at is not None:
            self._timer = self._loop.call_later(max(0.001, at - now), self.wake)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _fetch(self, fetch: Fetch) -> None:
        request = fetch.request(self._core.settings)
        timeout = self._core.settings.max_wait + _GRACE_SECONDS
        try:
            connection = await self._cluster.pool.get(fetch.address, ATTEMPT_SECONDS)
            response = await connection.log.Fetch(request, timeout=timeout)
        except aio.AioRpcError as error:
            self._core.failed(fetch, rpc_failed(fetch.address, error), monotonic())
        except QuorumlogError as error:
            self._core.failed(fetch, error, monotonic())
        else:
            self._core.fetched(fetch, response, monotonic())
        self.news.set()
        self.wake()

    # -- starts and stops

    async def _resolve(self, address: str, cursors: list[Cursor]) -> None:
        generations = [cursor.generation for cursor in cursors]
        try:
            connection = await self._cluster.pool.get(address, ATTEMPT_SECONDS)
            # The stop first: what is appended between the two questions is then beyond it.
            stops = await self._look_up(connection, cursors, self._core.settings.stop)
            starts = await self._look_up(connection, cursors, "cursor")
        except aio.AioRpcError as error:
            failure = rpc_failed(address, error)
            self._cluster.cache.forget_node(address)
            self._unresolved(cursors, generations, failure)
        except QuorumlogError as error:
            self._unresolved(cursors, generations, error)
        else:
            for cursor, generation, start, stop in zip(cursors, generations, starts, stops, strict=True):
                if cursor.generation != generation:
                    continue
                cursor.fetching = False
                refused = next((r for r in (start, stop) if isinstance(r, pb.Error)), None)
                if refused is not None:
                    self._core.redirect(cursor, refused, address)
                    self._core.back_off(cursor, from_wire(refused), monotonic())
                else:
                    assert not isinstance(start, pb.Error)
                    assert not isinstance(stop, pb.Error)
                    self._core.resolve(cursor, start=start, stop=stop)
        self.news.set()
        self.wake()

    def _unresolved(self, cursors: list[Cursor], generations: list[int], error: QuorumlogError) -> None:
        for cursor, generation in zip(cursors, generations, strict=True):
            if cursor.generation == generation:
                cursor.fetching = False
                self._core.back_off(cursor, error, monotonic())

    async def _look_up(
        self, connection: Connection, cursors: list[Cursor], what: "Start | Literal['cursor'] | None"
    ) -> list[int | pb.Error | None]:
        """Return an offset per cursor: of `what`, or with "cursor" of where each is to begin; None where there is no
        question."""
        partitions = []
        asked = []
        for index, cursor in enumerate(cursors):
            position = cursor.start if what == "cursor" else what
            if (
                position is None
                or (what == "cursor" and cursor.resolved)
                or (what != "cursor" and cursor.stop is not None)
            ):
                continue
            asked.append(index)
            partitions.append(list_offsets_partition(cursor.topic_id, cursor.tp.topic, cursor.tp.partition, position))
        answers: list[int | pb.Error | None] = [None] * len(cursors)
        if not partitions:
            return answers
        response = await connection.log.ListOffsets(
            pb.ListOffsetsRequest(partitions=partitions), timeout=ATTEMPT_SECONDS
        )
        for index, listed in zip(asked, response.offsets, strict=True):
            failed = listed.HasField("error") and listed.error.code != pb.OK
            answers[index] = listed.error if failed else listed.offset
        return answers

    async def _find_leaders(self) -> None:
        failures = 0
        try:
            while self._core.leaderless and not self._stopped:
                topics = set(self._core.leaderless)
                self._core.leaderless.clear()
                try:
                    failed = await self._cluster.refresh(topics, ATTEMPT_SECONDS)
                except QuorumlogError as error:
                    failed = dict.fromkeys(topics, error)
                for cursor in self._core.cursors.values():
                    cause = failed.get(cursor.tp.topic)
                    if cause is not None and not cause.retriable:
                        cursor.error = cause
                self.news.set()
                self._pump()  # also tells whether anything is still without a leader
                if self._core.leaderless:
                    failures += 1
                    await asyncio.sleep(full_jitter(failures, self._cluster.rng))
        finally:
            self._refresher = None


def list_offsets_partition(topic_id: bytes, topic: str, partition: int, position: Start) -> pb.ListOffsetsPartition:
    """Return the question for one partition: earliest, latest, or the first record at or after a time in
    milliseconds."""
    message = pb.ListOffsetsPartition(topic_id=topic_id, topic=topic, partition=partition)
    if position == "earliest":
        message.earliest = True
    elif position == "latest":
        message.latest = True
    else:
        message.timestamp_ms = position
    return message

"""Carries fetches between a consumer's core and the leaders."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from grpc import aio

from quorumlog.aio.channels import Connection, rpc_failed
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster
from quorumlog.backoff import full_jitter
from quorumlog.clock import monotonic
from quorumlog.errors import QuorumlogError, unexpected
from quorumlog.fetching import Fetch, FetchCore, Lookup
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
        for lookup in core.lookups(now):
            self._spawn(self._look_up(lookup))
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
        try:
            request = fetch.request(self._core.settings)
            timeout = self._core.settings.max_wait + _GRACE_SECONDS
            connection = await self._cluster.pool.get(fetch.address, ATTEMPT_SECONDS)
            response = await connection.log.Fetch(request, timeout=timeout)
            self._core.fetched(fetch, response, monotonic())
        except aio.AioRpcError as error:
            self._core.failed(fetch, rpc_failed(fetch.address, error), monotonic())
        except QuorumlogError as error:
            self._core.failed(fetch, error, monotonic())
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: it is raised to whoever reads on
            self._core.failed(fetch, unexpected(f"fetching from {fetch.address}", error), monotonic())
        self.news.set()
        self.wake()

    async def _look_up(self, lookup: Lookup) -> None:
        try:
            connection = await self._cluster.pool.get(lookup.address, ATTEMPT_SECONDS)
            stops = await _list_offsets(connection, lookup.stops)
            starts = await _list_offsets(connection, lookup.starts)
            self._core.looked_up(lookup, stops, starts, monotonic())
        except aio.AioRpcError as error:
            self._core.failed(lookup, rpc_failed(lookup.address, error), monotonic())
        except QuorumlogError as error:
            self._core.failed(lookup, error, monotonic())
        except Exception as error:  # noqa: BLE001 - as above
            self._core.failed(lookup, unexpected(f"asking {lookup.address} for offsets", error), monotonic())
        self.news.set()
        self.wake()

    async def _find_leaders(self) -> None:
        began = monotonic()
        failures = 0
        topics: set[str] = set()
        try:
            while self._core.leaderless and not self._stopped:
                topics = set(self._core.leaderless)
                self._core.leaderless.clear()
                try:
                    failed = await self._cluster.refresh(topics, ATTEMPT_SECONDS)
                except QuorumlogError as error:
                    failed = dict.fromkeys(topics, error)
                self._give_up({topic: cause for topic, cause in failed.items() if not cause.retriable})
                self._pump()  # also tells whether anything is still without a leader
                if self._core.leaderless:
                    self._cluster.waiting_for_leaders(self._core.leaderless, began)
                    failures += 1
                    await asyncio.sleep(full_jitter(failures, self._cluster.rng))
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: it is raised to whoever reads on
            cause = unexpected("finding out who leads", error)
            self._give_up(dict.fromkeys(topics | self._core.leaderless, cause))
        finally:
            self._refresher = None

    def _give_up(self, failed: Mapping[str, QuorumlogError]) -> None:
        for cursor in self._core.cursors.values():
            cause = failed.get(cursor.tp.topic)
            if cause is not None:
                cursor.error = cause
        self.news.set()


async def _list_offsets(connection: Connection, request: pb.ListOffsetsRequest) -> pb.ListOffsetsResponse:
    if not request.partitions:
        return pb.ListOffsetsResponse()
    return await connection.log.ListOffsets(request, timeout=ATTEMPT_SECONDS)

"""Calls to the cluster: whom to ask, how long, and what to believe afterwards."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from grpc import aio

from quorumlog.aio.channels import Connection, Pool, diagnose, no_answer, rpc_failed
from quorumlog.backoff import full_jitter
from quorumlog.clock import monotonic
from quorumlog.errors import (
    ConnectionFailed,
    Fatal,
    NoLeader,
    QuorumlogError,
    TimedOut,
    UnknownTopic,
    from_wire,
)
from quorumlog.metadata import MetadataCache, Topic
from quorumlog.proto import client_pb2 as pb
from quorumlog.waiting import SLOW_SECONDS, Causes, OnWaiting, Wait, nobody_answers

# One node is given this long to answer a small question before another one is asked.
ATTEMPT_SECONDS = 5.0
METADATA_SECONDS = 2.0
# Who has kept silent for this long is more than slow; only then a silence is called a fault.
CERTAIN_SECONDS = 10.0
# How long one question about topics goes on for all who wait for its answer.
REFRESH_SECONDS = 30.0


_A = TypeVar("_A")
Call = Callable[[Connection, float], Awaitable[_A]]
"""One question to one node: (connection, timeout in seconds) -> answer."""


class Deadline:
    """A point in time by which something must be done.

    Args:
        timeout: seconds from now; None: never.
    """

    __slots__ = ("at", "began", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.began = monotonic()
        self.at = None if timeout is None else self.began + timeout

    def remaining(self, cap: float) -> float:
        """Return the seconds left, at most `cap`."""
        return cap if self.at is None else max(0.0, min(cap, self.at - monotonic()))

    def left(self) -> float | None:
        """Return the seconds left; None: no limit."""
        return None if self.at is None else max(0.0, self.at - monotonic())

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self.at is not None and monotonic() >= self.at


class Cluster:
    """The cluster as one client sees it.

    Args:
        bootstrap: addresses to begin with, and to fall back to.
        client_id: how this client calls itself.
        rng: jitter and the choice of whom to ask.
        on_waiting: told what calls wait for; see `OnWaiting`.
    """

    def __init__(
        self, bootstrap: list[str], client_id: str, rng: random.Random, on_waiting: OnWaiting | None = None
    ) -> None:
        self.bootstrap = bootstrap
        self.client_id = client_id
        self.rng = rng
        self.pool = Pool(client_id)
        self.cache = MetadataCache()
        self._on_waiting = on_waiting
        self._silent: dict[str, None] = {}
        self._refreshing: dict[frozenset[str], asyncio.Task[dict[str, QuorumlogError]]] = {}

    async def connect(self, timeout: float | None) -> None:
        """Reach any node and learn who the others are.

        Raises:
            ConnectionFailed: none answered; it names each address and what is wrong with it.
            WrongCluster: the addresses belong to different clusters.
        """
        call = self._metadata_call(pb.MetadataRequest(no_topics=True))

        async def reached(connection: Connection, seconds: float) -> None:
            try:
                await call(connection, seconds)
            except aio.AioRpcError as error:
                # A node that waits to be founded was reached all the same; whoever founds the cluster must get in.
                if rpc_failed(connection.address, error).code != "NOT_FOUNDED":
                    raise

        await self._ask_anyone(reached, Deadline(timeout))

    async def close(self) -> None:
        """Close every connection."""
        for task in self._refreshing.values():
            task.cancel()
        await asyncio.gather(*self._refreshing.values(), return_exceptions=True)
        await self.pool.close()

    # -- asking

    async def ask(self, address: str, call: Call[_A], timeout: float) -> _A:
        """Ask one node once.

        Raises:
            QuorumlogError: what the node answered, or why it did not.
        """
        slow = None
        if self._on_waiting is not None:
            late = TimedOut(f"{address} has not answered for {SLOW_SECONDS:g} s")
            slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self.mention, late, monotonic())
        try:
            connection = await self.pool.get(address, timeout)
            answer = await call(connection, timeout)
        except aio.AioRpcError as error:
            failed = rpc_failed(address, error)
            self._note(address, failed)
            raise failed from error
        except QuorumlogError as error:
            self._note(address, error)
            raise
        finally:
            if slow is not None:
                slow.cancel()
        self._silent.pop(address, None)
        refusal = getattr(answer, "error", None)
        if isinstance(refusal, pb.Error) and refusal.code != pb.OK:
            raise from_wire(refusal)
        return answer

    def waiting(self, error: QuorumlogError, began: float) -> None:
        """Tell whoever wants to know why something goes on waiting, and since when (monotonic seconds)."""
        if self._on_waiting is None:
            return
        refused = error.address.split(",") if isinstance(error, ConnectionFailed) and error.refused else []
        hopeless = all(address in refused for address in self._candidates())
        self._on_waiting(Wait(error, monotonic() - began, hopeless))

    def mention(self, error: QuorumlogError, began: float) -> None:
        """Tell the same of work in the background, which goes on whatever the answer."""
        with contextlib.suppress(QuorumlogError):
            self.waiting(error, began)

    def waiting_for_leaders(self, topics: Iterable[str], began: float) -> None:
        """Tell of partitions without a leader, where there are any, and of their nodes that are known to be down."""
        places = [
            (name, partition)
            for name in sorted(topics)
            if (known := self.cache.topics.get(name)) is not None
            for partition, leader in enumerate(known.leaders)
            if leader is None
        ]
        if not places:
            return
        shown = ", ".join(f"{name}[{partition}]" for name, partition in places[:3])
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        nodes = {node.node_id: node for place in places for node in self.cache.replicas(*place)}
        down = [number for number, node in sorted(nodes.items()) if not node.up or node.address in self._silent]
        hint = "an election is under way"
        if down:
            numbers = ", ".join(map(str, down))
            hint = f"start the nodes that are down ({numbers}): a majority of the replicas must run"
        self.mention(NoLeader(f"nobody leads {shown}{more}", hint=hint), began)

    def _note(self, address: str, error: QuorumlogError) -> None:
        if isinstance(error, (ConnectionFailed, TimedOut)):
            self._silent[address] = None

    async def ask_anyone(self, call: Call[_A], timeout: float | None) -> _A:
        """Ask one node after the other until one answers, for at most `timeout` seconds.

        Raises:
            QuorumlogError: a node refused for good, or the last reason when time was up.
        """
        return await self._ask_anyone(call, Deadline(timeout))

    async def _ask_anyone(self, call: Call[_A], deadline: Deadline, patience: float = ATTEMPT_SECONDS) -> _A:
        failures = 0
        causes = Causes()
        while True:
            for address in self._candidates():
                try:
                    return await self.ask(address, call, deadline.remaining(patience))
                except QuorumlogError as error:
                    if not error.retriable:
                        raise
                    causes.add(address, error)
                if deadline.passed:
                    break
            failures += 1
            if deadline.passed:
                raise await self._unanswered(causes, deadline)
            self.waiting(causes.summary(), deadline.began)
            await asyncio.sleep(deadline.remaining(full_jitter(failures, self.rng)))

    def _candidates(self) -> list[str]:
        nodes = self.cache.addresses()
        first = [self.cache.cluster_leader] if self.cache.cluster_leader else []
        candidates = dict.fromkeys([*first, *nodes, *self.bootstrap])
        # Whoever kept silent is asked last: a paused node costs a whole timeout.
        return sorted(candidates, key=lambda address: address in self._silent)

    async def _unanswered(self, causes: Causes, deadline: Deadline) -> QuorumlogError:
        """Return the error for a call that has waited in vain."""
        unanswered = causes.unanswered
        if not unanswered:
            return causes.summary()
        asked_seconds = monotonic() - deadline.began
        found = await asyncio.gather(
            *(self._verdict(address, cause, asked_seconds) for address, cause in unanswered.items())
        )
        return nobody_answers(dict(zip(unanswered, found, strict=True)))

    async def _verdict(self, address: str, cause: QuorumlogError, asked_seconds: float) -> QuorumlogError:
        """Return what is wrong with a node that did not answer, as far as that is certain: a node that accepts
        connections may be busy, or may have started just now."""
        found = await diagnose(address)
        talks_otherwise = isinstance(cause, ConnectionFailed) and not cause.refused
        if found.stage != "protocol" or talks_otherwise or asked_seconds >= CERTAIN_SECONDS:
            return found
        return no_answer(address)

    async def ask_leader(
        self, believed: Callable[[], str], call: Call[_A], timeout: float | None, *, learn: Callable[[str], None]
    ) -> _A:
        """Ask the node that leads something, following redirects and waiting out elections for at most `timeout`
        seconds.

        Args:
            believed: address of the leader as far as known; empty: anyone may be asked who it is.
            call: the question.
            timeout: seconds; None: no limit.
            learn: called with what turned out: an address, or empty where the one believed in was wrong.

        Raises:
            QuorumlogError: a refusal for good, or the last reason when time was up.
            TimedOut: nobody answered, and it is not certain that anything is wrong.
        """
        deadline = Deadline(timeout)
        causes = Causes()
        failures = 0
        turn = 0
        while True:
            others = self._candidates()
            address = believed() or others[turn % len(others)]
            turn += 1
            try:
                return await self.ask(address, call, deadline.remaining(max(ATTEMPT_SECONDS, timeout or 0.0)))
            except QuorumlogError as error:
                if not error.retriable:
                    raise
                causes.add(address, error)
                if deadline.passed:
                    raise await self._unanswered(causes, deadline) from error
                self.waiting(causes.summary(), deadline.began)
                if error.leader != address:  # a leader that cannot do it yet is asked again
                    learn(error.leader)
                if error.leader and error.leader != address and failures == 0:
                    failures += 1
                    continue
                failures += 1
                wait = max(full_jitter(failures, self.rng), error.retry_after_seconds)
            await asyncio.sleep(deadline.remaining(wait))

    async def ask_cluster_leader(self, call: Call[_A], timeout: float | None) -> _A:
        """Ask the leader of the cluster's metadata; see `ask_leader`."""

        def learn(address: str) -> None:
            self.cache.cluster_leader = address

        return await self.ask_leader(lambda: self.cache.cluster_leader, call, timeout, learn=learn)

    async def ask_partition_leader(self, topic: str, partition: int, call: Call[_A], timeout: float | None) -> _A:
        """Ask the leader of a partition; see `ask_leader`."""
        told = ""

        def believed() -> str:
            return told or self.cache.leader(topic, partition) or ""

        def learn(address: str) -> None:
            nonlocal told
            if not address:
                self.cache.forget_leader(topic, partition, believed())
            told = address

        return await self.ask_leader(believed, call, timeout, learn=learn)

    # -- metadata

    def _metadata_call(self, request: pb.MetadataRequest) -> Call[dict[str, QuorumlogError]]:
        async def call(connection: Connection, timeout: float) -> dict[str, QuorumlogError]:
            response = await connection.log.Metadata(request, timeout=timeout)
            if response.HasField("error") and response.error.code != pb.OK:
                raise from_wire(response.error)
            if self.cache.cluster_id and response.cluster_id and response.cluster_id != self.cache.cluster_id:
                raise Fatal(
                    f"{connection.address} belongs to another cluster than the nodes asked before",
                    hint="check the bootstrap and the advertised addresses",
                    code="WRONG_CLUSTER",
                )
            failed = self.cache.update(response)
            self.pool.cluster_id = self.cache.cluster_id
            for error in failed.values():
                if error.retriable:
                    raise error  # this node lags behind, another one may know
            return failed

        return call

    async def refresh(self, topics: Iterable[str], timeout: float | None) -> dict[str, QuorumlogError]:
        """Ask about topics (none: all of them) and return those that have errors.

        The same question is asked once at a time, and goes on in the background when `timeout` seconds were not enough
        for whoever asked.

        Raises:
            TimedOut: no answer within `timeout`; other errors as the cluster says, or where it is found out of reach.
        """
        wanted = frozenset(topics)
        deadline = Deadline(timeout)
        while True:
            task = self._refreshing.get(wanted)
            if task is None:
                task = asyncio.ensure_future(self._refresh(wanted))
                self._refreshing[wanted] = task
                task.add_done_callback(lambda task: self._refreshed(wanted, task))
            await asyncio.wait([task], timeout=deadline.left())
            if not task.done():
                raise TimedOut(
                    f"the cluster did not tell about {', '.join(sorted(wanted)) or 'its topics'} within {timeout:g} s",
                    hint="give it more time, or see quorumlog doctor for what is slow",
                )
            error = task.exception()
            if not isinstance(error, QuorumlogError) or not error.retriable or timeout is not None:
                return task.result()

    def _refreshed(self, wanted: frozenset[str], task: "asyncio.Task[dict[str, QuorumlogError]]") -> None:
        if self._refreshing.get(wanted) is task:
            del self._refreshing[wanted]
        if not task.cancelled():
            task.exception()  # perhaps nobody waits for it any more

    async def _refresh(self, topics: frozenset[str]) -> dict[str, QuorumlogError]:
        call = self._metadata_call(pb.MetadataRequest(topics=sorted(topics)))
        return await self._ask_anyone(call, Deadline(REFRESH_SECONDS), METADATA_SECONDS)

    async def topic(self, name: str, timeout: float | None) -> Topic:
        """Return a topic, from memory where possible.

        Raises:
            UnknownTopic: there is none; other errors as the node says.
        """
        deadline = Deadline(timeout)
        failures = 0
        while True:
            known = self.cache.topics.get(name)
            if known is not None and known.leaders:
                return known
            failed = await self.refresh([name], deadline.left())
            error = failed.get(name)
            if error is None and name in self.cache.topics and self.cache.topics[name].leaders:
                return self.cache.topics[name]
            if error is None:
                error = UnknownTopic(
                    f"no topic {name!r}", hint="create it: quorumlog topic create NAME", code="UNKNOWN_TOPIC"
                )
            failures += 1
            if not error.retriable or deadline.passed:
                raise error
            self.waiting(error, deadline.began)
            await asyncio.sleep(deadline.remaining(full_jitter(failures, self.rng)))

"""Carries a group member's session: finds the coordinator, keeps the stream, and runs what its events ask for."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from grpc import aio

from quorumlog.aio.channels import Connection, rpc_failed
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster
from quorumlog.backoff import full_jitter
from quorumlog.clock import monotonic
from quorumlog.cursor import Cursor, Mark
from quorumlog.errors import Fatal, NotCoordinator, QuorumlogError, TimedOut, from_wire, unexpected
from quorumlog.fetching import FetchCore
from quorumlog.member import Assigned, Committed, Ended, Event, Lost, Member, Positions, Revoked
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import Offset, Record, TopicPartition

COMMIT_SECONDS = 1.0
SILENCE_SHARE = 0.6
_COMMIT_ANSWER_SECONDS = 5.0

Callback = Callable[[set[TopicPartition]], Awaitable[None]]
GroupCall = aio.StreamStreamCall[pb.GroupRequest, pb.GroupResponse]


class Membership:
    """The loop side of a group member.

    Args:
        cluster: whom to ask.
        member: the member's core.
        fetch: where its partitions are fetched.
        auto_commit: commit what is done in the background and before every release; otherwise only what `commit` is
            told.
        release_timeout: seconds that a revoked partition may stay in the user's hands; None: no limit.
        on_assign: told about partitions after they were taken over.
        on_revoke: told before they are given back.
        on_lost: told after they were lost.
        on_change: called when there may be something new for the user: partitions, or an error.
    """

    def __init__(
        self,
        cluster: Cluster,
        member: Member,
        fetch: FetchCore,
        *,
        auto_commit: bool,
        release_timeout: float | None,
        on_assign: Callback | None,
        on_revoke: Callback | None,
        on_lost: Callback | None,
        on_change: Callable[[], None],
    ) -> None:
        self.error: QuorumlogError | None = None
        self._cluster = cluster
        self._member = member
        self._fetch = fetch
        self._auto_commit = auto_commit
        self._release_timeout = release_timeout
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._on_lost = on_lost
        self._on_change = on_change
        self._coordinator = ""
        self._out = asyncio.Event()
        self._handed_back = asyncio.Event()
        self._draining: dict[TopicPartition, Cursor] = {}
        self._told: dict[TopicPartition, Offset] = {}
        self._commits: dict[int, asyncio.Future[Committed]] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue(maxsize=1024)
        self._joined = asyncio.Event()
        self._closing = False
        works = self._run(), self._work(), self._tick()
        self._tasks = [asyncio.ensure_future(self._guarded(work)) for work in works]

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Let the user hear of it when something ends that should go on."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.error = unexpected(f"the membership in group {self._member.group}", error)
            self._on_change()

    # -- the session

    async def _run(self) -> None:
        failures = 0
        began = monotonic()
        while not self._closing:
            try:
                await self._session()
                failures = 0
                continue
            except QuorumlogError as error:
                heard = self._joined.is_set()
                self._hang_up()
                if not error.retriable and error.code not in ("UNKNOWN_MEMBER", "STALE_MEMBER_EPOCH"):
                    self.error = error
                    self._on_change()
                    return
                hint = error.leader
                self._coordinator = hint if hint and hint != self._coordinator else ""
                failures = 1 if heard else failures + 1
                if failures == 1:
                    began = monotonic()
                self._cluster.mention(error, began)
                wait = 0.0 if hint and failures == 1 else full_jitter(failures, self._cluster.rng)
            await asyncio.sleep(wait)

    def _hang_up(self) -> None:
        self._member.disconnected()
        self._joined.clear()
        for waiting in self._commits.values():
            waiting.cancel()
        self._commits.clear()

    async def _session(self) -> None:
        if not self._coordinator:
            self._coordinator = await find_coordinator(self._cluster, self._member.group, ATTEMPT_SECONDS)
        address = self._coordinator
        connection = await self._cluster.pool.get(address, ATTEMPT_SECONDS)
        call = connection.groups.GroupSession()
        self._member.connected()
        self._out.set()
        writer = asyncio.ensure_future(self._write(call))
        try:
            await self._read(call, address)
        except aio.AioRpcError as error:
            self._coordinator = ""
            raise rpc_failed(address, error) from error
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()

    async def _read(self, call: GroupCall, address: str) -> None:
        while True:
            # A stream may outlive its coordinator. Pings come several times per session timeout; after more than half
            # of one without any, there is still time to come back to a new coordinator before it gives up on this
            # member.
            try:
                async with asyncio.timeout(self._member.session_timeout * SILENCE_SHARE):
                    response = await call.read()
            except TimeoutError:
                raise TimedOut(f"the coordinator {address} has fallen silent", hint="it may be paused") from None
            if response is aio.EOF:
                if self._closing:
                    return
                raise NotCoordinator(f"the coordinator {address} ended the session", hint="another one takes over")
            assert isinstance(response, pb.GroupResponse)
            for event in self._member.received(response, monotonic()):
                if isinstance(event, Ended):
                    raise event.error
                if isinstance(event, Committed):
                    self._committed(event)
                else:
                    await self._enqueue(event)
            if self._member.joined:
                self._joined.set()
            if self._member.outbox:
                self._out.set()

    async def _write(self, call: GroupCall) -> None:
        while True:
            await self._out.wait()
            self._out.clear()
            while self._member.outbox:
                request = self._member.outbox.pop(0)
                try:
                    await call.write(request)
                except (aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the reader sees the end as well, and why

    async def _tick(self) -> None:
        """Commit what is done, and notice when the session has expired on this side."""
        while True:
            await asyncio.sleep(min(COMMIT_SECONDS, self._member.session_timeout / 4))
            for event in self._member.expire(monotonic()):
                await self._enqueue(event)
            if self._auto_commit:
                self._send_commit(self._to_commit(self._fetch.cursors.values()))

    # -- partitions

    async def _enqueue(self, event: Event) -> None:
        if isinstance(event, Lost):
            # At once, though the event waits for its turn: nothing more of them is handed out or committed.
            self._drop(event.partitions)
        await self._events.put(event)

    async def _work(self) -> None:
        """Take events one after the other: an assignment is understood only after the revocation before it."""
        while True:
            event = await self._events.get()
            try:
                if isinstance(event, Assigned):
                    await self._assign(event)
                elif isinstance(event, Revoked):
                    await self._revoke(event.partitions)
                elif isinstance(event, Lost):
                    await self._lose(event.partitions)
            except Exception as error:  # noqa: BLE001 - whatever a callback raises is told to the user
                self.error = error if isinstance(error, QuorumlogError) else _callback_failed(error)
            self._on_change()

    async def _assign(self, event: Assigned) -> None:
        taken = set()
        for tp, (topic_id, position) in event.partitions.items():
            if self._member.owns(tp, topic_id) and tp not in self._fetch.cursors:
                cursor = self._fetch.add(tp, topic_id, position)
                cursor.committed = position.offset if position is not None else -1
                taken.add(tp)
        if taken and self._on_assign is not None:
            await self._on_assign(taken)

    async def _revoke(self, partitions: tuple[TopicPartition, ...]) -> None:
        for tp in partitions:
            cursor = self._fetch.remove(tp)
            if cursor is not None:
                self._draining[tp] = cursor
        try:
            async with asyncio.timeout(self._release_timeout):
                while any(cursor.in_hand for cursor in self._draining.values()):
                    self._handed_back.clear()
                    await self._handed_back.wait()
        except TimeoutError:
            pass  # given back all the same: what is committed later is refused by its epoch
        if self._on_revoke is not None:
            await self._on_revoke(set(partitions))
        await self._commit_and_wait(self._to_commit(self._draining.values()))
        for tp in partitions:
            self._draining.pop(tp, None)
            self._told.pop(tp, None)
        self._member.release(partitions)
        self._out.set()

    def _drop(self, partitions: tuple[TopicPartition, ...]) -> None:
        for tp in partitions:
            self._fetch.remove(tp)
            self._draining.pop(tp, None)
            self._told.pop(tp, None)
        self._handed_back.set()  # a revocation waits for these no longer

    async def _lose(self, partitions: tuple[TopicPartition, ...]) -> None:
        self._drop(partitions)  # an assignment from before the loss may have been worked off since
        if self._on_lost is not None:
            await self._on_lost(set(partitions))

    def handed_back(self) -> None:
        """The user has asked for more: what was in hand is done."""
        self._handed_back.set()

    # -- commits

    def _to_commit(self, cursors: Iterable[Cursor]) -> dict[TopicPartition, tuple[bytes, Offset]]:
        positions = {}
        for cursor in cursors:
            if self._auto_commit:
                position = _after(cursor.done) or _looked_up(cursor)
            else:
                position = self._told.get(cursor.tp)
            if position is not None and position.offset != cursor.committed:
                positions[cursor.tp] = cursor.topic_id, position
        return positions

    def _send_commit(self, positions: Positions) -> "asyncio.Future[Committed] | None":
        commit_id = self._member.commit(positions) if positions else None
        if commit_id is None:
            return None
        self._out.set()
        answer: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._commits[commit_id] = answer
        return answer

    def _committed(self, event: Committed) -> None:
        for tp, offset in event.offsets.items():
            cursor = self._fetch.cursors.get(tp) or self._draining.get(tp)
            if cursor is not None:
                cursor.committed = offset
        answer = self._commits.pop(event.commit_id, None)
        if answer is not None and not answer.done():
            answer.set_result(event)

    async def _commit_and_wait(self, positions: Positions) -> None:
        answer = self._send_commit(positions)
        if answer is not None:
            await asyncio.wait([answer], timeout=_COMMIT_ANSWER_SECONDS)

    async def commit(self, timeout: float | None) -> None:
        """Commit everything handed out so far and wait until that is replicated.

        Raises:
            Fenced: a partition belongs to another member by now.
            TimedOut: no answer within `timeout`; it may be committed all the same.
        """
        for cursor in [*self._fetch.cursors.values(), *self._draining.values()]:
            cursor.done = cursor.handed if cursor.handed is not None else cursor.done
            position = _after(cursor.done)
            if position is not None:
                self._told[cursor.tp] = position
        failures = 0
        try:
            async with asyncio.timeout(timeout):
                while True:
                    if self.error is not None:
                        raise self.error
                    wanted = self._to_commit([*self._fetch.cursors.values(), *self._draining.values()])
                    if not wanted:
                        return
                    await self._joined.wait()
                    answer = self._send_commit(wanted)
                    if answer is not None:
                        await asyncio.wait([answer], timeout=_COMMIT_ANSWER_SECONDS)
                        if answer.done() and not answer.cancelled():
                            refused = next(iter(answer.result().refused.values()), None)
                            if refused is None:
                                return
                            if not refused.retriable:
                                raise refused
                    failures += 1
                    await asyncio.sleep(full_jitter(failures, self._cluster.rng))
        except TimeoutError:
            if self.error is not None:
                raise self.error from None
            raise TimedOut(
                f"the commit of group {self._member.group} was not answered within {timeout} s",
                hint="it may have been made: commit again, or see quorumlog doctor",
            ) from None

    # -- the end

    async def close(self, timeout: float | None) -> None:
        """Commit what is done, leave the group, end the session. Where this is cancelled the session ends at once, and
        the coordinator finds out by itself."""
        session = self._tasks[0]
        try:
            if self.error is None and self._member.joined and not session.done():
                cursors = [*self._fetch.cursors.values(), *self._draining.values()]
                try:
                    async with asyncio.timeout(timeout):
                        await self._commit_and_wait(self._to_commit(cursors))
                except TimeoutError:
                    pass  # the records will be handed out again
            self._closing = True
            if self._member.joined and not session.done():
                self._member.leave()
                self._out.set()
                await asyncio.wait([session], timeout=1.0)  # the coordinator ends the stream once it has heard
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _after(record: Record | Mark | None) -> Offset | None:
    return None if record is None else Offset(record.offset + 1, record.leader_epoch)


def _looked_up(cursor: Cursor) -> Offset | None:
    """Where a partition is read from that has no committed offset, unless that is its beginning: whoever comes after
    this member must not look up another end, or skip what was appended in between."""
    if cursor.start in (None, "earliest") or not cursor.resolved:
        return None
    return Offset(cursor.position)


def _callback_failed(error: Exception) -> QuorumlogError:
    failed = Fatal(f"a callback of the consumer raised {type(error).__name__}: {error}", hint="see its cause")
    failed.__cause__ = error
    return failed


async def find_coordinator(cluster: Cluster, group: str, timeout: float | None) -> str:
    """Return the address of the node that coordinates a group.

    Raises:
        QuorumlogError: nobody knows within `timeout` seconds.
    """

    async def call(connection: Connection, seconds: float) -> str:
        request = pb.FindCoordinatorRequest(group=group)
        answer = await connection.groups.FindCoordinator(request, timeout=seconds)
        if answer.HasField("error") and answer.error.code != pb.OK:
            raise from_wire(answer.error)
        if answer.coordinator.address:
            return answer.coordinator.address
        if answer.replicas:
            return str(cluster.rng.choice(list(answer.replicas)))
        raise NotCoordinator(f"no node coordinates group {group} just now", hint="see quorumlog doctor")

    found: Any = await cluster.ask_anyone(call, timeout)
    return str(found)

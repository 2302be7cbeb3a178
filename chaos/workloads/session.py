"""A group member's session on the wire, by the client's own core of a member; commits carry a tag."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import grpc.aio

from quorumlog.chaos.workloads.wire import Refused, Wire, attempt, check
from quorumlog.clock import monotonic
from quorumlog.errors import QuorumlogError
from quorumlog.member import Ended, Event, Member
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import TopicPartition

CALL_SECONDS = 3.0
PAUSE_SECONDS = 0.1
SILENCE_SHARE = 0.6
"""Of the session timeout; a coordinator that is silent for longer is looked for anew."""
FIRST_COMMIT_ID = 1 << 32
"""Of the commits here, apart from those that the core would number."""


class Session:
    """Keeps a member in its group until it is cancelled.

    Args:
        wire: the nodes.
        member: the member's core.
        hear: told of every event.
    """

    def __init__(self, wire: Wire, member: Member, hear: Callable[[Event], None]) -> None:
        self._wire = wire
        self._member = member
        self._hear = hear
        self._out = asyncio.Event()
        self._commits: dict[int, asyncio.Future[pb.GroupCommitted]] = {}
        self._ids = itertools.count(FIRST_COMMIT_ID)

    async def keep(self) -> None:
        """Join, and come back whenever the session is lost."""
        while True:
            # Whatever went wrong: the coordinator is looked for anew.
            with contextlib.suppress(Refused, QuorumlogError, grpc.aio.AioRpcError, TimeoutError):
                await self._once()
            self._member.disconnected()
            for waiting in self._commits.values():
                waiting.cancel()
            self._commits.clear()
            await asyncio.sleep(PAUSE_SECONDS)

    def flush(self) -> None:
        """Something is in the member's outbox."""
        self._out.set()

    async def commit(self, tp: TopicPartition, topic_id: bytes, offset: int, tag: str) -> pb.Error | None:
        """Commit a position; None when it is committed.

        Raises:
            Refused: nobody knows.
        """
        commit_id = next(self._ids)
        answer: asyncio.Future[pb.GroupCommitted] = asyncio.get_running_loop().create_future()
        self._commits[commit_id] = answer
        place = pb.TopicPartition(topic_id=topic_id, topic=tp.topic, partition=tp.partition)
        commit = pb.GroupCommit(
            commit_id=commit_id,
            member_epoch=self._member.member_epoch,
            offsets=[pb.OffsetAndEpoch(partition=place, offset=offset, metadata=tag)],
        )
        self._member.outbox.append(pb.GroupRequest(commit=commit))
        self._out.set()
        await asyncio.wait([answer], timeout=CALL_SECONDS)
        self._commits.pop(commit_id, None)
        if not answer.done() or answer.cancelled():
            said = "the session ended before the answer" if answer.cancelled() else "no answer"
            raise Refused(pb.Error(code=pb.TIMED_OUT, message=said, outcome=pb.OUTCOME_UNKNOWN))
        result = answer.result().results[0]
        return result.error if result.HasField("error") and result.error.code != pb.OK else None

    async def _once(self) -> None:
        node = await find_coordinator(self._wire, self._member.group)
        if not await self._wire.connected(node, CALL_SECONDS):
            return
        call = self._wire.groups(node).GroupSession()
        self._member.connected()
        self._out.set()
        writer = asyncio.create_task(self._write(call))
        try:
            while await self._read(call):
                pass
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            call.cancel()

    async def _read(self, call: Any) -> bool:
        async with asyncio.timeout(self._member.session_timeout * SILENCE_SHARE):
            response = await call.read()
        if response is grpc.aio.EOF:
            return False
        if response.WhichOneof("message") == "committed":
            waiting = self._commits.get(response.committed.commit_id)
            if waiting is not None and not waiting.done():
                waiting.set_result(response.committed)
            return True
        for event in self._member.received(response, monotonic()):
            self._hear(event)
            if isinstance(event, Ended):
                return False
        if self._member.outbox:
            self._out.set()
        return True

    async def _write(self, call: Any) -> None:
        while True:
            await self._out.wait()
            self._out.clear()
            while self._member.outbox:
                try:
                    await call.write(self._member.outbox.pop(0))
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the reader sees the end as well


async def find_coordinator(wire: Wire, group: str) -> int:
    """Return the node that coordinates a group.

    Raises:
        Refused: the node asked does not know.
    """
    node = wire.any_node()
    request = pb.FindCoordinatorRequest(group=group)
    answer = await attempt(lambda: wire.groups(node).FindCoordinator(request, timeout=CALL_SECONDS))
    check(answer.error if answer.HasField("error") else None)
    return answer.coordinator.node_id or wire.any_node()

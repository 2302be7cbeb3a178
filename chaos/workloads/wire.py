"""The contract spoken directly: one channel for each node, one attempt at a time, and what became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from quorumlog.chaos.sight import CHANNEL_OPTIONS
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.client_pb2_grpc import AdminStub, GroupsStub, LogStub

ERROR_METADATA_KEY = "quorumlog-error-bin"
METADATA_SECONDS = 2.0

A = TypeVar("A")


class Refused(Exception):
    """An attempt that a node refused or that failed on the way.

    Args:
        error: what the node said; for what failed on the way an error of ours, whose outcome is unknown.
    """

    def __init__(self, error: pb.Error) -> None:
        super().__init__(f"{pb.ErrorCode.Name(error.code)}: {error.message}")
        self.error = error

    @property
    def certain(self) -> bool:
        """Whether nothing was appended or changed by this attempt."""
        return self.error.outcome == pb.NOT_APPENDED


class Wire:
    """Every node by its number, and who leads which partition as far as is known.

    Args:
        addresses: of the nodes, from number 1 on.
        rng: whom to ask where nothing is known.
    """

    def __init__(self, addresses: Sequence[str], rng: random.Random) -> None:
        self.numbers = range(1, len(addresses) + 1)
        self._channels = [grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) for address in addresses]
        self._rng = rng
        self._leaders: dict[tuple[str, int], int] = {}

    def channel(self, node: int) -> grpc.aio.Channel:
        """The channel to a node."""
        return self._channels[node - 1]

    def log(self, node: int) -> Any:
        """The stub of the log service, which is typed for calls that do not wait."""
        return LogStub(self.channel(node))

    def groups(self, node: int) -> Any:
        """The stub of the group service."""
        return GroupsStub(self.channel(node))

    def admin(self, node: int) -> Any:
        """The stub of the admin service."""
        return AdminStub(self.channel(node))

    async def connected(self, node: int, seconds: float) -> bool:
        """Whether there is a connection now, or within `seconds`: without one a request has certainly not left."""
        channel = self.channel(node)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await channel.channel_ready()
        except TimeoutError:
            return False
        return True

    def any_node(self) -> int:
        """One of the nodes, drawn."""
        return self._rng.choice(self.numbers)

    async def leader(self, topic: str, partition: int) -> int:
        """Who leads a partition, as far as is known; otherwise a node drawn, which may know."""
        known = self._leaders.get((topic, partition))
        if known is None:
            await self._look_up(topic)
            known = self._leaders.get((topic, partition))
        return known if known is not None else self.any_node()

    def led_by(self, topic: str, partition: int, node: int) -> None:
        """Remember who leads; 0: forget."""
        if node:
            self._leaders[topic, partition] = node
        else:
            self._leaders.pop((topic, partition), None)

    async def _look_up(self, topic: str) -> None:
        node = self.any_node()
        try:
            answer = await self.log(node).Metadata(pb.MetadataRequest(topics=[topic]), timeout=METADATA_SECONDS)
        except grpc.RpcError:
            return
        for found in answer.topics:
            for one in found.partitions:
                if one.leader.node_id:
                    self._leaders.setdefault((topic, one.partition), one.leader.node_id)

    async def close(self) -> None:
        """Hang up."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


async def attempt(call: Callable[[], Awaitable[A]]) -> A:
    """Make one call.

    Raises:
        Refused: it failed; by a node's own words where it has said some.
    """
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        for key, value in error.trailing_metadata() or ():
            if key == ERROR_METADATA_KEY and isinstance(value, bytes):
                raise Refused(pb.Error.FromString(value)) from error
        said = f"{error.code().name}: {error.details()}"
        raise Refused(pb.Error(code=pb.UNKNOWN, message=said, retriable=True, outcome=pb.OUTCOME_UNKNOWN)) from error


def check(error: pb.Error | None) -> None:
    """Raise Refused if an answer has an error."""
    if error is not None and error.code != pb.OK:
        raise Refused(error)

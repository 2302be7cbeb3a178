"""What a run sees of its cluster from outside: who leads what, who is whole, who holds which offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from quorumlog.chaos.nodes import Node
from quorumlog.clock import monotonic
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.client_pb2_grpc import AdminStub

CALL_SECONDS = 2.0
FOUND_SECONDS = 5.0
LEAD_SECONDS = 0.5
"""Who leads is asked again and again, also while a node is paused."""
LOOK_SECONDS = 0.1
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)
"""Of every channel of a run: found again soon after a node is back, nothing is sent twice behind our back."""


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads a partition, as that node says itself."""

    node: int
    term: int


class Sight:
    """Asks the nodes; a context manager.

    Args:
        nodes: all of them.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._channels: dict[int, grpc.aio.Channel] = {}

    async def found(self) -> str | None:
        """Ask the first node to found a cluster of all; None when there is one, otherwise why there is none."""
        members = [pb.FoundingNode(node_id=node.number, address=node.advertised) for node in self._nodes]
        try:
            await self._admin(1).InitCluster(pb.InitClusterRequest(nodes=members), timeout=FOUND_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                return f"it is not founded: {error.details()}"
        return None

    def _admin(self, number: int) -> Any:
        """The stub of a node, which is typed for calls that do not wait."""
        channel = self._channels.get(number)
        if channel is None:
            address = self._nodes[number - 1].client_address
            channel = self._channels[number] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return AdminStub(channel)

    async def status(self, number: int, seconds: float = CALL_SECONDS) -> pb.StatusResponse | None:
        """How a node is; None where it does not answer within `seconds`."""
        try:
            answer: pb.StatusResponse = await self._admin(number).Status(pb.StatusRequest(), timeout=seconds)
        except grpc.RpcError:
            return None
        return answer

    async def statuses(self, seconds: float = CALL_SECONDS) -> dict[int, pb.StatusResponse]:
        """How all nodes are that answer within `seconds`."""
        numbers = [node.number for node in self._nodes]
        told = await asyncio.gather(*(self.status(number, seconds) for number in numbers))
        return {number: one for number, one in zip(numbers, told, strict=True) if one is not None}

    async def lead(self, topic: str, partition: int) -> Lead | None:
        """The leader of the highest term among those who say that they lead a partition."""
        found = [
            Lead(number, replica.leader_epoch)
            for number, told in (await self.statuses(LEAD_SECONDS)).items()
            for replica in told.replicas
            if (replica.topic, replica.partition, replica.role) == (topic, partition, "leader")
        ]
        return max(found, key=lambda lead: lead.term, default=None)

    async def until_led(self, topic: str, partition: int, *, above: int = 0, seconds: float) -> Lead | None:
        """Wait for a leader of a term above one, and return it; None if there is none within `seconds`."""
        deadline = monotonic() + seconds
        while True:
            lead = await self.lead(topic, partition)
            if lead is not None and lead.term > above:
                return lead
            if monotonic() >= deadline:
                return None
            await asyncio.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Hang up."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        self._channels.clear()


def lacking(told: dict[int, pb.StatusResponse], nodes: int) -> list[str]:
    """Return what keeps a cluster from being whole: every node a member, every replica counting, mended and as far as
    all others of its group, nothing moving. Empty when it is whole."""
    reasons = [f"node {number} does not answer" for number in range(1, nodes + 1) if number not in told]
    ends: dict[tuple[str, int], set[int]] = {}
    for number, status in told.items():
        if status.state != "member":
            reasons.append(f"node {number} is {status.state}")
        reasons += [f"{one.topic}[{one.partition}] moves" for one in status.moving if not one.settled]
        if not status.replicas:
            reasons.append(f"node {number} has no replicas")
        for replica in status.replicas:
            place = f"{replica.topic}[{replica.partition}] on node {number}"
            if not replica.counting:
                reasons.append(f"{place} is in repair")
            if replica.damaged_entries:
                reasons.append(f"{place} has {replica.damaged_entries} damaged entries")
            if not replica.leader_node_id:
                reasons.append(f"{place} knows no leader")
            ends.setdefault((replica.topic, replica.partition), set()).add(replica.commit_index)
    reasons += [
        f"the replicas of {topic}[{partition}] differ" for (topic, partition), at in ends.items() if len(at) > 1
    ]
    return reasons

"""Looking at nodes from outside, as `dev` does while it waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc

from quorumlog.node.rpc.options import CHANNEL_OPTIONS
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import AdminStub

CALL_SECONDS: Final = 5.0


async def found_cluster(address: str, nodes: Sequence[client_pb2.FoundingNode]) -> bool:
    """Ask the node at a client address to found a cluster. True when it did, now or before; False to try again."""
    try:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            await AdminStub(channel).InitCluster(client_pb2.InitClusterRequest(nodes=nodes), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.ALREADY_EXISTS
    return True


async def is_serving(addresses: Sequence[str]) -> bool:
    """Whether every node is a member and knows a leader for each of its groups."""
    return all(await asyncio.gather(*(_serves(address) for address in addresses)))


async def _serves(address: str) -> bool:
    try:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            status = await AdminStub(channel).Status(client_pb2.StatusRequest(), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return (
        status.state in ("member", "repair")
        and len(status.nodes) > 0
        and len(status.replicas) > 0
        and all(replica.leader_node_id for replica in status.replicas if replica.counting)
    )

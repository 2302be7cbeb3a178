"""Founding a cluster and admitting nodes: asking nodes who they are, and handing the founding record over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import grpc

from quorumlog.node.rpc.answers import ERROR_METADATA_KEY
from quorumlog.node.rpc.options import CHANNEL_OPTIONS
from quorumlog.proto import client_pb2, internal_pb2, peer_pb2
from quorumlog.proto.client_pb2_grpc import AdminStub
from quorumlog.proto.errors import make_error
from quorumlog.proto.peer_pb2_grpc import PeerStub

CALL_SECONDS: Final = 5.0
REASON_SECONDS: Final = 1.0


async def identify_all(peers: Mapping[int, str]) -> list[internal_pb2.NodeDescriptor] | client_pb2.Error:
    """Ask the nodes at these peer addresses who they are; an error when one does not answer or is not free."""
    answers = await asyncio.gather(*(_identify(node_id, address) for node_id, address in peers.items()))
    descriptors = []
    for answer in answers:
        if isinstance(answer, client_pb2.Error):
            return answer
        descriptors.append(answer)
    return descriptors


async def _identify(node_id: int, address: str) -> internal_pb2.NodeDescriptor | client_pb2.Error:
    answer = await identify(address, f"node {node_id}")
    if isinstance(answer, client_pb2.Error):
        return answer
    if answer.node_id != node_id:
        message = f"node {answer.node_id} answers at {address}, where node {node_id} was expected"
        return make_error(client_pb2.INVALID_REQUEST, message, hint="correct the addresses")
    if answer.cluster_id:
        return make_error(
            client_pb2.ALREADY_FOUNDED, f"node {node_id} at {address} belongs to cluster {answer.cluster_id.hex()}"
        )
    return descriptor_of(answer)


async def identify(address: str, name: str) -> peer_pb2.IdentifyResponse | client_pb2.Error:
    """Ask the node at a peer address who it is; an error, which calls it `name`, when it does not answer."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        try:
            return await PeerStub(channel).Identify(
                peer_pb2.IdentifyRequest(), timeout=CALL_SECONDS, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            return make_error(
                client_pb2.INVALID_REQUEST,
                f"{name} does not answer at its peer address {address}: {await _reason(channel, error)}",
                hint="start it, and give peer addresses, not client addresses",
            )


async def identify_through(channel: grpc.aio.Channel) -> peer_pb2.IdentifyResponse | None:
    """Ask the node at the other end of a channel who it is; None when it does not answer."""
    try:
        return await PeerStub(channel).Identify(peer_pb2.IdentifyRequest(), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError:
        return None


def descriptor_of(answer: peer_pb2.IdentifyResponse) -> internal_pb2.NodeDescriptor:
    """Return the node as it has described itself."""
    return internal_pb2.NodeDescriptor(
        node_id=answer.node_id,
        incarnation=answer.incarnation,
        client_address=answer.client_address,
        peer_address=answer.peer_address,
        host=answer.host,
        rack=answer.rack,
    )


async def _reason(channel: grpc.aio.Channel, failure: grpc.aio.AioRpcError) -> str:
    """Say what is wrong with a node that did not answer. Patience hides it: a call that waits for a connection ends
    with nothing but its deadline, so one that does not wait is made to see why there is none.
    """
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        try:
            await PeerStub(channel).Identify(peer_pb2.IdentifyRequest(), timeout=REASON_SECONDS)
        except grpc.aio.AioRpcError as error:
            failure = error
    details = failure.details() or failure.code().name
    if failure.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "what listens there is not the peer port of a node"
    if "refused" in details.lower():
        return "connection refused, so nothing listens there"
    if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {CALL_SECONDS:g} s"
    return details


async def init_at(address: str, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
    """Have the node at a client address found the cluster; its answer, or its error."""
    try:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            return await AdminStub(channel).InitCluster(request, timeout=2 * CALL_SECONDS, wait_for_ready=True)
    except grpc.aio.AioRpcError as failure:
        for name, value in failure.trailing_metadata() or ():
            if name == ERROR_METADATA_KEY and isinstance(value, bytes):
                return client_pb2.InitClusterResponse(error=client_pb2.Error.FromString(value))
        message = f"the node at {address}, which founds the cluster, does not answer: {failure.details()}"
        return client_pb2.InitClusterResponse(error=make_error(client_pb2.INVALID_REQUEST, message, hint="try again"))


async def hand_over(
    channel: grpc.aio.Channel, founding: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None = None
) -> str | None:
    """Give the founding record to a node that waits. Returns why it would not take it; None when it did or was
    silent.

    `admitted`: the node as the cluster has admitted it, where it came later than the founding.
    """
    request = peer_pb2.FoundRequest(
        founding=founding.SerializeToString(deterministic=True),
        admitted=admitted.SerializeToString(deterministic=True) if admitted is not None else b"",
    )
    try:
        response = await PeerStub(channel).Found(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError:
        return None
    return None if response.accepted else response.message

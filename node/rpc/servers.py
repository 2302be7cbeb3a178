"""The two gRPC servers of a node: one for clients, one for peers."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from quorumlog.node.config import NodeConfig, split_address
from quorumlog.node.errors import NodeError
from quorumlog.node.rpc.admin_service import AdminService
from quorumlog.node.rpc.groups_service import GroupsService
from quorumlog.node.rpc.log_service import LogService
from quorumlog.node.rpc.options import SERVER_OPTIONS
from quorumlog.node.rpc.peer_service import PeerHost, PeerService
from quorumlog.node.rpc.service import ClientHost
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import (
    add_AdminServicer_to_server,
    add_GroupsServicer_to_server,
    add_LogServicer_to_server,
)
from quorumlog.proto.peer_pb2_grpc import add_PeerServicer_to_server

STOP_GRACE_SECONDS: Final = 0.5
CALLS_MAX: Final = 20_000
"""Calls and streams at a time on each server, over all connections: what the broker keeps for those that wait (polls,
subscriptions, reads, sessions) is bounded by it. One more is answered RESOURCE_EXHAUSTED."""


class Host(ClientHost, PeerHost, Protocol):
    """A node, as both servers need it."""


class PortTaken(NodeError):
    """An address cannot be listened on."""


class Servers:
    """Listens for clients and peers."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._servers: list[grpc.aio.Server] = []
        self.peers: PeerService | None = None
        """The streams from peers, once it listens."""
        self.client_address = ""
        """Where clients are listened for, with the port that was chosen where the configuration says 0."""
        self.peer_address = ""

    async def listen(self, config: NodeConfig) -> None:
        """Take the ports, so that the addresses are known; nobody is answered yet. Raises PortTaken."""
        client, peer = (grpc.aio.server(options=SERVER_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX) for _ in range(2))
        add_LogServicer_to_server(LogService(self._host), client)
        add_GroupsServicer_to_server(GroupsService(self._host), client)
        add_AdminServicer_to_server(AdminService(self._host), client)
        names = [service.full_name for service in client_pb2.DESCRIPTOR.services_by_name.values()]
        serving = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(serving, client)
        for name in ("", *names):
            await serving.set(name, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), client)
        self.peers = PeerService(self._host, config.node_id)
        add_PeerServicer_to_server(self.peers, peer)
        self.client_address = _listen(client, config.client_address, "client_address")
        self.peer_address = _listen(peer, config.peer_address, "peer_address")
        self._servers = [client, peer]

    async def start(self) -> None:
        """Begin to answer."""
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        """Take no more calls; those under way get a moment."""
        await asyncio.gather(*(server.stop(STOP_GRACE_SECONDS) for server in self._servers))


def _listen(server: grpc.aio.Server, address: str, setting: str) -> str:
    host, _ = split_address(address, setting)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise PortTaken(
            f"{setting} {address} cannot be listened on: it is taken by another process, or is not an address of this "
            "machine; choose another port, or stop the process that has it"
        ) from error
    return f"{host}:{port}"

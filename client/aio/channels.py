"""Connections to nodes: one channel per address, and what went wrong with it in words a user can act on."""

import asyncio
import errno
import socket

import grpc
from grpc import aio

from quorumlog.errors import (
    ConnectionFailed,
    Fatal,
    Outcome,
    QuorumlogError,
    Retriable,
    TimedOut,
    WrongCluster,
    from_wire,
)
from quorumlog.process import before_connecting
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import client_pb2_grpc as pb_grpc
from quorumlog.proto import peer_pb2
from quorumlog.proto.peer_pb2_grpc import PeerStub

PROTOCOL_VERSION = 1
MESSAGE_BYTES_MAX = 64 << 20
_DIAGNOSIS_SECONDS = 5.0
# The first answer of a node may take this long on a loaded machine, whatever the patience of whoever asks first.
_GREETING_SECONDS = 10.0
_IDENTIFY_SECONDS = 2.0

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A node that was restarted is to be found again quickly; grpc's own patience grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # Despite its name this is how long one attempt to connect may take, handshake included.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Retries are decided here, where it is known what an attempt may have done.
    ("grpc.enable_retries", 0),
    # An HTTP proxy of the environment is for the web, not for a cluster's own port.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]

# Under this name a node's trailing metadata carry the contract's own Error when a call fails as a whole.
ERROR_METADATA_KEY = "quorumlog-error-bin"


class Connection:
    """One node: its channel, its stubs, and the greeting that comes before anything else.

    Args:
        address: host:port.
        client_id: how this client calls itself in the node's log.
        cluster_id: the cluster it must belong to; empty: any.

    Raises:
        ForkedProcess: see `before_connecting`.
    """

    def __init__(self, address: str, client_id: str, cluster_id: bytes) -> None:
        self.address = address
        before_connecting()
        self.channel = aio.insecure_channel(address, options=_OPTIONS)
        self.log = pb_grpc.LogStub(self.channel)
        self.groups = pb_grpc.GroupsStub(self.channel)
        self.admin = pb_grpc.AdminStub(self.channel)
        self.cluster_id = b""
        self._hello = pb.HelloRequest(protocol_version=PROTOCOL_VERSION, client_id=client_id, cluster_id=cluster_id)
        self._greeting: asyncio.Task[None] | None = None

    async def greet(self, timeout: float) -> None:
        """Say hello once; later calls wait for the first. It goes on when `timeout` seconds were not enough.

        Raises:
            QuorumlogError: the node does not answer, speaks another protocol or belongs to another cluster.
        """
        if self._greeting is None or (self._greeting.done() and not _succeeded(self._greeting)):
            self._greeting = asyncio.ensure_future(self._greet())
        if not self._greeting.done():
            await asyncio.wait([self._greeting], timeout=timeout)
            if not self._greeting.done():
                raise no_answer(self.address)
        self._greeting.result()

    async def _greet(self) -> None:
        try:
            answer = await self.log.Hello(self._hello, timeout=_GREETING_SECONDS)
        except aio.AioRpcError as error:
            failed = rpc_failed(self.address, error)
            if failed.code == "NOT_FOUNDED":
                return  # it has no cluster to speak of yet; whatever is asked of it says so
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                failed = await self._peer_port() or failed
            raise failed from error
        if answer.HasField("error") and answer.error.code != pb.OK:
            raise from_wire(answer.error)
        if self._hello.cluster_id and answer.cluster_id and answer.cluster_id != self._hello.cluster_id:
            raise WrongCluster(
                f"{self.address} belongs to cluster {answer.cluster_id.hex()}, not {self._hello.cluster_id.hex()}",
                hint="check the bootstrap addresses: they name nodes of different clusters",
                code="WRONG_CLUSTER",
            )
        self.cluster_id = answer.cluster_id

    async def _peer_port(self) -> Fatal | None:
        """Return the error for the port at which nodes talk to each other, which knows the client's; None if this is
        none."""
        try:
            node = await PeerStub(self.channel).Identify(peer_pb2.IdentifyRequest(), timeout=_IDENTIFY_SECONDS)
        except aio.AioRpcError:
            return None
        return Fatal(
            f"{self.address} is the port at which node {node.node_id} talks to the other nodes, not one for clients",
            hint=f"use its client_address: {node.client_address}",
            code="UNSUPPORTED_VERSION",
        )

    async def close(self) -> None:
        """Close the channel; calls on it fail."""
        if self._greeting is not None:
            self._greeting.cancel()
            await asyncio.gather(self._greeting, return_exceptions=True)
        await self.channel.close()


def _succeeded(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None


class Pool:
    """The connections of one client, made as they are needed.

    Args:
        client_id: as in `Connection`.
    """

    def __init__(self, client_id: str) -> None:
        self.cluster_id = b""
        self._client_id = client_id
        self._connections: dict[str, Connection] = {}

    async def get(self, address: str, timeout: float) -> Connection:
        """Return the connection to `address`, greeted.

        Raises:
            QuorumlogError: as `Connection.greet`.
        """
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = Connection(address, self._client_id, self.cluster_id)
        await connection.greet(timeout)
        return connection

    async def drop(self, address: str) -> None:
        """Close the connection to `address`, if there is one: the next use makes another."""
        connection = self._connections.pop(address, None)
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close them all."""
        connections = list(self._connections.values())
        self._connections.clear()
        await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)


def no_answer(address: str) -> TimedOut:
    """Return the error for a node that is merely late as far as anybody knows."""
    return TimedOut(
        f"{address} did not answer in time",
        hint="give it more time, or see quorumlog doctor for what is slow",
        outcome=Outcome.UNKNOWN,
    )


def rpc_failed(address: str, error: aio.AioRpcError) -> QuorumlogError:
    """Return the error for a call that ended with a gRPC status instead of an answer: the node's own, where it sent
    one."""
    for name, value in error.trailing_metadata() or ():
        if name == ERROR_METADATA_KEY and isinstance(value, bytes):
            return from_wire(pb.Error.FromString(value))
    status = error.code()
    details = error.details() or status.name
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return no_answer(address)
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return Fatal(
            f"{address} does not know this call: {details}",
            hint="check that the address is the client port of a quorumlog node (7070 by default), or upgrade the node",
            code="UNSUPPORTED_VERSION",
        )
    if status in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return ConnectionFailed(
            f"{address} refuses this client: {details}", hint="check the credentials", address=address, stage="auth"
        )
    if status is grpc.StatusCode.UNAVAILABLE and "Connection refused" in details:
        failed = _refused(address)
        failed.outcome = Outcome.UNKNOWN
        return failed
    if status is grpc.StatusCode.UNAVAILABLE:
        failed = ConnectionFailed(
            f"cannot reach {address}: {details}",
            hint="check that the node runs and the address is right",
            address=address,
            stage=_stage_of(details),
        )
        failed.outcome = Outcome.UNKNOWN
        return failed
    return Retriable(
        f"{address} failed: {status.name}: {details}", hint="look into the node's log", outcome=Outcome.UNKNOWN
    )


def _refused(address: str) -> ConnectionFailed:
    return ConnectionFailed(
        f"cannot connect to {address}: Connection refused",
        hint="start the node (quorumlog dev, or quorumlog node), or check the port",
        address=address,
        stage="tcp",
        refused=True,
    )


def _stage_of(details: str) -> str:
    lowered = details.lower()
    if "dns" in lowered or "name resolution" in lowered:
        return "dns"
    if "ssl" in lowered or "tls" in lowered or "handshake" in lowered:
        return "tls"
    return "tcp"


async def diagnose(address: str) -> ConnectionFailed:
    """Find out how far a connection to `address` comes, step by step, and return what to tell the user."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return ConnectionFailed(
            f"{address!r} is not an address",
            hint="write host:port, for example localhost:7070",
            address=address,
            stage="dns",
        )
    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait_for(loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM), _DIAGNOSIS_SECONDS)
    except (OSError, TimeoutError) as error:
        return ConnectionFailed(
            f"cannot resolve the host name of {address}: {str(error) or 'no answer'}",
            hint="check the spelling and the DNS; an advertised address is corrected in the node's configuration",
            address=address,
            stage="dns",
        )
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), _DIAGNOSIS_SECONDS)
    except TimeoutError:
        return ConnectionFailed(
            f"no answer from {address} within {_DIAGNOSIS_SECONDS:.0f} s",
            hint="a firewall or a wrong address swallows packets, or the host is down",
            address=address,
            stage="tcp",
        )
    except OSError as error:
        # Of a name with several addresses, asyncio tells in one error how each failed.
        if isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error):
            return _refused(address)
        return ConnectionFailed(
            f"cannot connect to {address}: {error.strerror or error}",
            hint="check the address and the network to it",
            address=address,
            stage="tcp",
        )
    writer.close()
    return ConnectionFailed(
        f"{address} accepts connections but does not answer as a quorumlog node",
        hint="check that it is the client port of a node (7070 by default), expects no TLS and is not paused",
        address=address,
        stage="protocol",
    )

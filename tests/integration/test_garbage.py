"""Garbage on the ports: a node drops it and lives on, for clients and for its peers."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from typing import TypeAlias

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import peer_pb2
from quorumlog.proto.peer_pb2_grpc import PeerStub
from tests.integration.cluster import LocalCluster, NodeProcess

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HUGE_FRAME = struct.pack(">I", 0x7FFFFF)[1:] + b"\x00\x00\x00\x00\x00\x01"
SEED = 20

RawCall: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
RawStream: TypeAlias = "grpc.StreamStreamMultiCallable[bytes, peer_pb2.HelloAnswer]"


def garbage(kind: str) -> list[bytes]:
    rng = random.Random(SEED)
    match kind:
        case "random bytes":
            return [rng.randbytes(length) for length in (1, 100, 10_000, 1_000_000)]
        case "another protocol":
            return [b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
        case "huge frame":
            return [PREFACE + SETTINGS + HUGE_FRAME + bytes(1 << 20)]
        case _:
            return [PREFACE + SETTINGS + rng.randbytes(100_000) for _ in range(3)]


def serves(cluster: LocalCluster, topic: str, node: NodeProcess) -> None:
    """The node answers, takes part and has not been started again."""
    assert node.process is not None
    assert node.process.poll() is None
    rows = pb.Rows(records=[pb.Record(value=b"x")])
    request = pb.ProduceRequest(batches=[pb.PartitionBatch(topic=topic, rows=rows)])
    (result,) = cluster.leader(topic).log.ProduceOnce(request, timeout=20.0).results
    assert not result.HasField("error"), result.error
    assert len(node.read(topic, 0, result.base_offset + 1)) == result.base_offset + 1


@pytest.fixture(scope="module")
def topic(shared: LocalCluster) -> str:
    shared.create_topic("garbage")
    return "garbage"


@pytest.mark.parametrize("kind", ["random bytes", "another protocol", "huge frame", "broken frames"])
@pytest.mark.parametrize("port", ["client", "peer"])
def test_garbage_on_a_port(shared: LocalCluster, topic: str, port: str, kind: str) -> None:
    node = shared.node(1)
    host, _, number = (node.client_address if port == "client" else node.peer_address).partition(":")
    for data in garbage(kind):
        connection = socket.create_connection((host, int(number)), timeout=10.0)
        with connection, contextlib.suppress(OSError):  # hanging up in the middle is a fine answer
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
    serves(shared, topic, node)


def test_message_that_is_no_message_of_ours(shared: LocalCluster, topic: str) -> None:
    node = shared.node(1)
    rng = random.Random(SEED)
    for target, method in (
        (node.client_address, "/quorumlog.v1.Log/Fetch"),
        (node.client_address, "/quorumlog.v1.Admin/CreateTopic"),
        (node.peer_address, "/quorumlog.peer.v1.Peer/Identify"),
        (node.peer_address, "/quorumlog.peer.v1.Peer/Found"),
    ):
        with grpc.insecure_channel(target) as channel:
            call: RawCall = channel.unary_unary(method)
            with pytest.raises(grpc.RpcError):
                call(b"\xff" + rng.randbytes(1000), timeout=10.0)
    serves(shared, topic, node)


def test_message_larger_than_any_allowed(shared: LocalCluster, topic: str) -> None:
    node = shared.node(1)
    for target, method in (
        (node.client_address, "/quorumlog.v1.Log/ProduceOnce"),
        (node.peer_address, "/quorumlog.peer.v1.Peer/Found"),
    ):
        with grpc.insecure_channel(target, options=(("grpc.max_send_message_length", -1),)) as channel:
            large: RawCall = channel.unary_unary(method)
            with pytest.raises(grpc.RpcError) as refused:
                large(bytes(40 << 20), timeout=20.0)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    serves(shared, topic, node)


def hello(shared: LocalCluster, **changes: object) -> peer_pb2.Hello:
    """What node 2 would say to node 1, but for `changes`."""
    status = shared.node(2).status()
    assert status is not None
    fields = {
        "protocol_version": 1,
        "cluster_id": status.cluster_id,
        "node_id": 2,
        "incarnation": status.incarnation,
        "session_id": 4711,
        "to_node_id": 1,
        **changes,
    }
    return peer_pb2.Hello(**fields)  # type: ignore[arg-type] # of many types


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_id": bytes(16)}, ("belongs to cluster", "check the peer addresses")),
        ({"protocol_version": 9}, ("peer protocol 1, not 9", "upgrade")),
        ({"to_node_id": 3}, ("node 1 answers where node 3 was expected", "check the peer addresses")),
        ({"incarnation": b"x" * 16}, ("node 2 comes with incarnation", "folder")),
        ({"node_id": 9}, ("node 9", "not a member")),
    ],
)
def test_stranger_on_the_peer_port(
    shared: LocalCluster, topic: str, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    with grpc.insecure_channel(shared.node(1).peer_address) as channel:
        frames = iter([peer_pb2.Frame(hello=hello(shared, **changes))])
        (answer,) = PeerStub(channel).Stream(frames, timeout=10.0)
    for word in words:
        assert word in answer.refusal.message
    serves(shared, topic, shared.node(1))


def test_peer_stream_that_does_not_begin_with_hello(shared: LocalCluster, topic: str) -> None:
    with grpc.insecure_channel(shared.node(1).peer_address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            list(PeerStub(channel).Stream(iter([peer_pb2.Frame()]), timeout=10.0))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "hello" in str(refused.value)
    serves(shared, topic, shared.node(1))


def test_peer_that_turns_to_garbage_after_its_hello(shared: LocalCluster, topic: str) -> None:
    """A welcomed peer whose frames make no sense is dropped; the real one comes back."""
    rng = random.Random(SEED)
    with grpc.insecure_channel(shared.node(1).peer_address) as channel:
        call: RawStream = channel.stream_stream(
            "/quorumlog.peer.v1.Peer/Stream", response_deserializer=peer_pb2.HelloAnswer.FromString
        )
        first = peer_pb2.Frame(hello=hello(shared)).SerializeToString()
        frame = peer_pb2.Frame(incarnation=hello(shared).incarnation)
        frame.raft.add(group_id=2**63, type=77, term=2**63)
        with contextlib.suppress(grpc.RpcError):
            list(call(iter([first, frame.SerializeToString(), rng.randbytes(500)]), timeout=10.0))
    shared.until_ready()
    serves(shared, topic, shared.node(1))

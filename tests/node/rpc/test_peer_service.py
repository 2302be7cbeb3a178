"""Streams from peers: whose are taken, and when no more."""

from __future__ import annotations

import asyncio

import grpc

from quorumlog.node.broker.outbox import Packet
from quorumlog.node.rpc.peer_service import PeerService
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.proto.peer_pb2_grpc import PeerStub, add_PeerServicer_to_server

FORMER, ANEW = b"f" * 16, b"a" * 16


class Host:
    """Node 1, which welcomes everybody and keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue(maxsize=100)

    def refuse(self, hello: peer_pb2.Hello) -> peer_pb2.Refusal | None:
        return None

    def welcome(self) -> peer_pb2.Welcome:
        return peer_pb2.Welcome(node_id=1)

    def on_connected(self, peer: int, session_id: int) -> None:
        self.heard.put_nowait(f"connected {peer}")

    def on_packet(self, peer: int, session_id: int, packet: Packet) -> None:
        self.heard.put_nowait(f"packet of {peer}")

    def on_disconnected(self, peer: int) -> None:
        self.heard.put_nowait(f"disconnected {peer}")

    def identify(self) -> peer_pb2.IdentifyResponse:
        return peer_pb2.IdentifyResponse(node_id=1)

    async def found(
        self, founding: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None
    ) -> peer_pb2.FoundResponse:
        return peer_pb2.FoundResponse(accepted=admitted is not None, message="")


def test_a_stream_ends_when_its_node_is_no_member_any_more_under_the_incarnation_it_came_with() -> None:
    async def scene() -> list[str]:
        host = Host()
        service = PeerService(host, 1)
        server = grpc.aio.server()
        add_PeerServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        told = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for peer in (2, 3):
                call = PeerStub(channel).Stream()
                await call.write(peer_pb2.Frame(hello=peer_pb2.Hello(node_id=peer, incarnation=FORMER, session_id=5)))
                await call.read()
                told.append(await host.heard.get())
                await call.write(peer_pb2.Frame(incarnation=FORMER, ping=True))
                told.append(await host.heard.get())
                service.end_strangers({2: ANEW, 3: FORMER})
                if peer == 2:
                    told.append(await host.heard.get())
                await call.write(peer_pb2.Frame(incarnation=FORMER, ping=True))
                if peer == 2:
                    assert await call.read() is grpc.aio.EOF, "the stream has ended"
                else:
                    told.append(await host.heard.get())
                call.cancel()
        await server.stop(None)
        return told

    assert asyncio.run(scene()) == [
        "connected 2",
        "packet of 2",
        "disconnected 2",
        "connected 3",
        "packet of 3",
        "packet of 3",
    ]

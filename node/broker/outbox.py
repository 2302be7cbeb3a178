"""What a node says to its peers: one packet per peer, lane and turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from quorumlog.proto import peer_pb2
from quorumlog.raft import Message, MessageType


class Lane(Enum):
    """Two ways to a peer, so that a heartbeat never waits behind a megabyte."""

    CONTROL = "control"
    BULK = "bulk"


@dataclass(slots=True)
class Packet:
    """Everything for one peer and lane in one turn. `raft` holds (group id, message), `size_bytes` counts entries and
    pieces of snapshots.
    """

    raft: list[tuple[int, Message]] = field(default_factory=list)
    forwarded: list[peer_pb2.Forwarded] = field(default_factory=list)
    forwarded_results: list[peer_pb2.ForwardedResult] = field(default_factory=list)
    coordination: list[bytes] = field(default_factory=list)
    snapshot_chunks: list[peer_pb2.SnapshotChunk] = field(default_factory=list)
    snapshot_answers: list[peer_pb2.SnapshotAnswer] = field(default_factory=list)
    entries_requests: list[peer_pb2.EntriesRequest] = field(default_factory=list)
    entries_answers: list[peer_pb2.EntriesAnswer] = field(default_factory=list)
    size_bytes: int = 0


PACKET_SIZE_BYTES_MAX: Final = 4 << 20
"""Entries in one packet, beyond the first message; keeps a packet well below gRPC's limit for one message."""

Send = Callable[[int, Lane, Packet], None]


class Outbox:
    """Gathers what one turn has for each peer. A packet without content is a sign of life."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._control: dict[int, Packet] = {}
        self._bulk: dict[int, Packet] = {}

    def raft(self, group_id: int, message: Message) -> None:
        """Add a message of a group; appends that carry entries take the bulk lane."""
        if message.type is not MessageType.APPEND or not message.entries:
            self.control(message.to).raft.append((group_id, message))
            return
        packet = self._bulk.setdefault(message.to, Packet())
        packet.raft.append((group_id, message))
        self._filled(message.to, packet, sum(len(entry.data) for entry in message.entries))

    def snapshot_chunk(self, peer: int, chunk: peer_pb2.SnapshotChunk) -> None:
        """Add a piece of a snapshot, on the bulk lane."""
        packet = self._bulk.setdefault(peer, Packet())
        packet.snapshot_chunks.append(chunk)
        self._filled(peer, packet, len(chunk.data))

    def entries_answer(self, peer: int, answer: peer_pb2.EntriesAnswer) -> None:
        """Add entries that a peer has lost, on the bulk lane."""
        packet = self._bulk.setdefault(peer, Packet())
        packet.entries_answers.append(answer)
        self._filled(peer, packet, sum(map(len, answer.entries)) + len(answer.snapshot))

    def _filled(self, peer: int, packet: Packet, size_bytes: int) -> None:
        packet.size_bytes += size_bytes
        if packet.size_bytes >= PACKET_SIZE_BYTES_MAX:
            self._flush_bulk(peer)

    def control(self, peer: int) -> Packet:
        """The open packet of the control lane."""
        return self._control.setdefault(peer, Packet())

    def flush(self) -> None:
        """Send everything gathered."""
        if self._control:
            control, self._control = self._control, {}
            for peer, packet in control.items():
                self._send(peer, Lane.CONTROL, packet)
        for peer in list(self._bulk):
            self._flush_bulk(peer)

    def _flush_bulk(self, peer: int) -> None:
        self._send(peer, Lane.BULK, self._bulk.pop(peer))

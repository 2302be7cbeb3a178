"""What goes to which peer, on which lane, in how many packets."""

from __future__ import annotations

from quorumlog.node.broker.outbox import PACKET_SIZE_BYTES_MAX, Lane, Outbox, Packet
from quorumlog.raft import Entry, EntryKind, LogIndex, Message, MessageType, NodeId, Term


class Sent:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.packets: list[tuple[int, Lane, Packet]] = []

    def __call__(self, peer: int, lane: Lane, packet: Packet) -> None:
        self.packets.append((peer, lane, packet))

    def of(self, peer: int, lane: Lane) -> list[Packet]:
        return [packet for to, on, packet in self.packets if (to, on) == (peer, lane)]


def message(to: int, kind: MessageType = MessageType.HEARTBEAT, size_bytes: int = 0) -> Message:
    entries = (Entry(LogIndex(1), Term(1), EntryKind.COMMAND, bytes(size_bytes)),) if size_bytes else ()
    return Message(kind, NodeId(1), NodeId(to), Term(1), entries=entries)


def test_one_turn_is_one_packet_for_each_peer_and_lane() -> None:
    sent = Sent()
    outbox = Outbox(sent)
    for group_id in range(50):
        outbox.raft(group_id, message(2))
        outbox.raft(group_id, message(3))
        outbox.raft(group_id, message(2, MessageType.APPEND, 100))
    assert not sent.packets
    outbox.flush()
    assert [(peer, lane, len(packet.raft)) for peer, lane, packet in sent.packets] == [
        (2, Lane.CONTROL, 50),
        (3, Lane.CONTROL, 50),
        (2, Lane.BULK, 50),
    ]
    outbox.flush()
    assert len(sent.packets) == 3, "nothing is sent twice"


def test_only_entries_take_the_bulk_lane() -> None:
    sent = Sent()
    outbox = Outbox(sent)
    for kind in MessageType:
        outbox.raft(7, message(2, kind))
    outbox.flush()
    assert not sent.of(2, Lane.BULK)


def test_a_packet_of_entries_leaves_when_it_is_large_and_says_how_large() -> None:
    sent = Sent()
    outbox = Outbox(sent)
    for _ in range(10):
        outbox.raft(7, message(2, MessageType.APPEND, 1 << 20))
    outbox.flush()
    packets = sent.of(2, Lane.BULK)
    assert [len(packet.raft) for packet in packets] == [4, 4, 2]
    assert all(packet.size_bytes <= PACKET_SIZE_BYTES_MAX for packet in packets)
    assert sum(packet.size_bytes for packet in packets) == 10 << 20


def test_an_open_packet_without_content_is_a_sign_of_life() -> None:
    sent = Sent()
    outbox = Outbox(sent)
    outbox.control(2)
    outbox.flush()
    assert sent.of(2, Lane.CONTROL) == [Packet()]

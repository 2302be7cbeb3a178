"""Packets as frames and back; what is damaged on the way is refused as a whole."""

from __future__ import annotations

from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.broker.outbox import Packet
from quorumlog.node.errors import EntryCorrupt, UnknownEntryKind
from quorumlog.node.rpc.convert import frame_of, packet_of
from quorumlog.node.storage.entry import encode_entry
from quorumlog.proto import peer_pb2
from quorumlog.proto.batch import encode_columns, header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import Entry, EntryKind, LogIndex, Message, MessageType, NodeId, Term

GROUP = 7
REFUSALS = DecodeError, EntryCorrupt, UnknownEntryKind, ValueError
"""All that the stream takes for a refusal; anything else would be a bug."""
INCARNATION = bytes(range(16))
u63 = st.integers(0, (1 << 63) - 1)


def entry(index: int, term: int, kind: EntryKind = EntryKind.COMMAND, payload: bytes = b"payload") -> Entry:
    count = 1 if kind is EntryKind.RECORDS else 0
    data = encode_entry(kind, GROUP, index, term, 5, count, 1, payload, crc32c(payload))
    return Entry(LogIndex(index), Term(term), kind, data)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    index = draw(st.integers(0, 1 << 40))
    payloads = draw(st.lists(st.binary(max_size=20), max_size=3))
    return Message(
        type=draw(st.sampled_from(MessageType)),
        sender=NodeId(2),
        to=NodeId(1),
        term=Term(draw(u63)),
        index=LogIndex(index),
        log_term=Term(draw(u63)),
        entries=tuple(entry(index + place, 3, payload=payload) for place, payload in enumerate(payloads, 1)),
        commit_index=LogIndex(draw(u63)),
        reject=draw(st.booleans()),
        hint_index=LogIndex(draw(u63)),
        hint_term=Term(draw(u63)),
        last_index=LogIndex(draw(u63)),
        stable_index=LogIndex(draw(u63)),
        counting=draw(st.booleans()),
        context=draw(u63),
        force=draw(st.booleans()),
        quiesce=draw(st.booleans()),
    )


packets = st.builds(
    Packet,
    raft=st.lists(st.tuples(st.just(GROUP), messages()), max_size=4),
    forwarded=st.lists(st.builds(peer_pb2.Forwarded, correlation_id=u63, command=st.binary(max_size=9)), max_size=2),
    forwarded_results=st.lists(st.builds(peer_pb2.ForwardedResult, correlation_id=u63, index=u63), max_size=2),
    coordination=st.lists(st.binary(max_size=9), max_size=2),
)


@given(packet=packets)
def test_a_packet_arrives_as_it_left(packet: Packet) -> None:
    wire = frame_of([packet], INCARNATION).SerializeToString()
    frame = peer_pb2.Frame.FromString(wire)
    assert frame.incarnation == INCARNATION
    assert packet_of(frame, 2, 1) == packet


@given(first=packets, second=packets)
def test_packets_of_one_frame_keep_their_order(first: Packet, second: Packet) -> None:
    together = packet_of(frame_of([first, second], INCARNATION), 2, 1)
    assert together.raft == first.raft + second.raft
    assert together.coordination == first.coordination + second.coordination


def test_the_sender_is_who_opened_the_stream_whatever_a_message_says() -> None:
    message = Message(MessageType.HEARTBEAT, NodeId(9), NodeId(8), Term(1))
    ((_, received),) = packet_of(frame_of([Packet(raft=[(GROUP, message)])], INCARNATION), 2, 1).raft
    assert (received.sender, received.to) == (2, 1)


def append(*entries: Entry) -> peer_pb2.Frame:
    message = Message(MessageType.APPEND, NodeId(2), NodeId(1), Term(3), index=LogIndex(4), entries=entries)
    return frame_of([Packet(raft=[(GROUP, message)])], INCARNATION)


def test_one_flipped_bit_in_an_entry_refuses_the_frame() -> None:
    sound = entry(5, 3).data
    for position in range(len(sound)):
        damaged = bytearray(sound)
        damaged[position] ^= 0x10
        with pytest.raises((EntryCorrupt, UnknownEntryKind)):
            packet_of(append(Entry(LogIndex(5), Term(3), EntryKind.COMMAND, bytes(damaged))), 2, 1)


def test_an_entry_of_another_place_or_group_refuses_the_frame() -> None:
    with pytest.raises(EntryCorrupt, match="asked for entry 5 of group 7, found entry 6"):
        packet_of(append(entry(6, 3)), 2, 1)
    frame = append(entry(5, 3))
    frame.raft[0].group_id = 8
    with pytest.raises(EntryCorrupt, match="group 8"):
        packet_of(frame, 2, 1)


def test_records_that_end_within_their_header_refuse_the_frame() -> None:
    sound = pack_stored(header_for(1, first_timestamp_ms=0), encode_columns([b"x"]))
    assert packet_of(append(entry(5, 3, EntryKind.RECORDS, sound)), 2, 1).raft
    with pytest.raises(EntryCorrupt, match="ends within its header"):
        packet_of(append(entry(5, 3, EntryKind.RECORDS, sound[:44])), 2, 1)


def test_a_message_type_of_a_later_release_refuses_the_frame() -> None:
    frame = peer_pb2.Frame(raft=[peer_pb2.RaftMessage(group_id=GROUP, type=77)])
    with pytest.raises(ValueError, match="77"):
        packet_of(frame, 2, 1)


@given(garbage=st.binary(max_size=200))
def test_garbage_is_refused_in_the_ways_that_the_stream_expects(garbage: bytes) -> None:
    with suppress(*REFUSALS):
        assert isinstance(packet_of(peer_pb2.Frame.FromString(garbage), 2, 1), Packet)


@given(packet=packets, position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_damaged_frame_is_refused_in_the_ways_that_the_stream_expects(
    packet: Packet, position: int, bit: int
) -> None:
    wire = bytearray(frame_of([packet], INCARNATION).SerializeToString())
    wire[position % len(wire)] ^= 1 << bit
    with suppress(*REFUSALS):
        assert isinstance(packet_of(peer_pb2.Frame.FromString(bytes(wire)), 2, 1), Packet)

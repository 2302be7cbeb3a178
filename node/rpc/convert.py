"""Packets between nodes as protobuf, and back."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from quorumlog.node.broker.outbox import Packet
from quorumlog.node.errors import EntryCorrupt
from quorumlog.node.storage.configurations import to_configuration
from quorumlog.node.storage.entry import check_entry, payload_of
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.proto.batch import PACKED_HEADER_BYTES
from quorumlog.raft import Entry, EntryKind, LogIndex, Message, MessageType, NodeId, Term


def frame_of(packets: Iterable[Packet], incarnation: bytes) -> peer_pb2.Frame:
    """One frame for some packets, in their order."""
    frame = peer_pb2.Frame(incarnation=incarnation, ping=True)
    for packet in packets:
        for group_id, message in packet.raft:
            frame.raft.append(_to_wire(group_id, message))
        frame.forwarded.extend(packet.forwarded)
        frame.forwarded_results.extend(packet.forwarded_results)
        frame.coordination.extend(packet.coordination)
        frame.snapshot_chunks.extend(packet.snapshot_chunks)
        frame.snapshot_answers.extend(packet.snapshot_answers)
        frame.entries_requests.extend(packet.entries_requests)
        frame.entries_answers.extend(packet.entries_answers)
    return frame


def packet_of(frame: peer_pb2.Frame, sender: int, receiver: int) -> Packet:
    """The packet in a frame.

    Raises EntryCorrupt, UnknownEntryKind or ValueError: the frame must not be used.
    """
    return Packet(
        raft=[(wire.group_id, _from_wire(wire, NodeId(sender), NodeId(receiver))) for wire in frame.raft],
        forwarded=list(frame.forwarded),
        forwarded_results=list(frame.forwarded_results),
        coordination=list(frame.coordination),
        snapshot_chunks=list(frame.snapshot_chunks),
        snapshot_answers=list(frame.snapshot_answers),
        entries_requests=list(frame.entries_requests),
        entries_answers=list(frame.entries_answers),
    )


def _to_wire(group_id: int, message: Message) -> peer_pb2.RaftMessage:
    return peer_pb2.RaftMessage(
        group_id=group_id,
        type=message.type,
        term=message.term,
        index=message.index,
        log_term=message.log_term,
        entries=[entry.data for entry in message.entries],
        commit_index=message.commit_index,
        reject=message.reject,
        hint_index=message.hint_index,
        hint_term=message.hint_term,
        last_index=message.last_index,
        stable_index=message.stable_index,
        not_counting=not message.counting,
        context=message.context,
        force=message.force,
        quiesce=message.quiesce,
        nonce=message.nonce,
    )


def _from_wire(wire: peer_pb2.RaftMessage, sender: NodeId, receiver: NodeId) -> Message:
    return Message(
        type=MessageType(wire.type),
        sender=sender,
        to=receiver,
        term=Term(wire.term),
        index=LogIndex(wire.index),
        log_term=Term(wire.log_term),
        entries=tuple([_entry(wire.group_id, index, data) for index, data in enumerate(wire.entries, wire.index + 1)])
        if wire.entries
        else (),
        commit_index=LogIndex(wire.commit_index),
        reject=wire.reject,
        hint_index=LogIndex(wire.hint_index),
        hint_term=Term(wire.hint_term),
        last_index=LogIndex(wire.last_index),
        stable_index=LogIndex(wire.stable_index),
        counting=not wire.not_counting,
        context=wire.context,
        force=wire.force,
        quiesce=wire.quiesce,
        nonce=wire.nonce,
    )


def _entry(group_id: int, index: int, data: bytes) -> Entry:
    """An entry as it came, both of its checks made: what is written here was not damaged on the way."""
    header = check_entry(data, group_id, index)
    if header.kind is EntryKind.RECORDS and header.payload_length < PACKED_HEADER_BYTES:
        raise EntryCorrupt(f"the batch of entry {index} of group {group_id} ends within its header")
    if header.kind is EntryKind.CONFIGURATION:
        try:
            to_configuration(internal_pb2.GroupConfiguration.FromString(payload_of(data)))
        except (DecodeError, ValueError) as error:
            raise EntryCorrupt(f"entry {index} of group {group_id} is no configuration: {error}") from None
    return Entry(LogIndex(index), Term(header.term), header.kind, data)

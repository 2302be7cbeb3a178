"""The bytes between two coordination planes: an envelope, and one of the six messages that PySyncObj really needs.

PySyncObj pickles what it sends; reading a pickle runs whatever its sender wants. Here every message has a fixed layout,
nothing is nested, and what does not fit the layout is `Malformed`. All integers big-endian.

    envelope: version u8 | kind u8 | receiver's session u64 | connection epoch u32 | sequence u64 | sender's term u64
      1 request_vote           last_log_index u64 | last_log_term u64
      2 response_vote          -
      3 append_entries         commit_index u64 | previous index u64 | previous term u64 | entries
                               an entry: term u64 | length u32 | command
                               previous index 0: the leader has no entry there, for its log is shorter than it was told
      4 append_entries         commit_index u64 | snapshot (snapshot.py)
      5 next_node_idx          next_index u64 | flags u8: 1 success, 2 reset
      6 apply_command          command

Terms and indexes are bounded far below 2^64, so that one more never overflows. An entry's index is not sent: entries
follow each other without a gap.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quorumlog.node.coordination.commands import MAX_COMMAND_BYTES, Malformed
from quorumlog.node.coordination.snapshot import LogRow, decode_snapshot

MAX_PAYLOAD_BYTES = 160 * 1024
"""Above the largest message: a batch of entries closes once it has `BATCH_BYTES`; a snapshot has two entries."""

BATCH_BYTES = 48 * 1024
MAX_TERM = 1 << 40
MAX_INDEX = 1 << 48

Message = dict[str, Any]
"""A message as PySyncObj takes and gives it."""

_VERSION = 1
_REQUEST_VOTE, _RESPONSE_VOTE, _APPEND, _SNAPSHOT, _NEXT_INDEX, _COMMAND = range(1, 7)
_REGULAR_COMMAND, _NO_OP_COMMAND = 0, 1  # type bytes of PySyncObj; the other two (membership, version) are not used

_ENVELOPE = struct.Struct(">BBQIQQ")
_TWO = struct.Struct(">QQ")
_APPEND_HEAD = struct.Struct(">QQQ")
_ENTRY_HEAD = struct.Struct(">QI")
_ONE = struct.Struct(">Q")
_NEXT = struct.Struct(">QB")

assert BATCH_BYTES > MAX_COMMAND_BYTES + 1, "PySyncObj cuts an entry that fills a batch alone into pickled chunks"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What stands around every message, so that a late one is known as late.

    `to_session_id` is the receiver's session as the sender knows it; `epoch` counts the sender's connections to the
    receiver, `sequence` the messages of one epoch, both from 1; `term` is the sender's Raft term when it sent.
    """

    to_session_id: int
    epoch: int
    sequence: int
    term: int


def encode(envelope: Envelope, message: Mapping[str, Any]) -> bytes:
    """Return the payload for `message`, a message of PySyncObj.

    Raises:
        KeyError: a message that has no place here; PySyncObj does not send one under the engine's settings.
        struct.error: a number out of range.
    """
    kind, body = _encode_body(message)
    head = _ENVELOPE.pack(_VERSION, kind, envelope.to_session_id, envelope.epoch, envelope.sequence, envelope.term)
    return head + body


def decode(payload: bytes) -> tuple[Envelope, Message]:
    """Return envelope and message of `payload`, every value in range and every entry in sequence.

    Raises:
        Malformed: it is not a payload of this version.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Malformed(f"payload of {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}")
    try:
        version, kind, to_session_id, epoch, sequence, term = _ENVELOPE.unpack_from(payload)
        if version != _VERSION or term > MAX_TERM or epoch == 0 or sequence == 0:
            raise Malformed("envelope with a value out of range")
        body = payload[_ENVELOPE.size :]
        message = _decode_body(kind, term, body)
    except struct.error as error:
        raise Malformed(f"payload of {len(payload)} bytes: {error}") from error
    return Envelope(to_session_id, epoch, sequence, term), message


def _encode_body(message: Mapping[str, Any]) -> tuple[int, bytes]:
    kind = message["type"]
    if kind == "append_entries":
        if "serialized" in message:
            return _SNAPSHOT, _ONE.pack(message["commit_index"]) + message["serialized"][0]
        parts = [_APPEND_HEAD.pack(message["commit_index"], message["prevLogIdx"] or 0, message["prevLogTerm"] or 0)]
        for command, _, term in message["entries"]:
            parts.append(_ENTRY_HEAD.pack(term, len(command)))
            parts.append(command)
        return _APPEND, b"".join(parts)
    if kind == "next_node_idx":
        return _NEXT_INDEX, _NEXT.pack(message["next_node_idx"], message["success"] | message["reset"] << 1)
    if kind == "apply_command":
        return _COMMAND, message["command"]
    if kind == "request_vote":
        return _REQUEST_VOTE, _TWO.pack(message["last_log_index"], message["last_log_term"])
    if kind == "response_vote":
        return _RESPONSE_VOTE, b""
    raise KeyError(kind)


def _decode_body(kind: int, term: int, body: bytes) -> Message:
    if kind == _APPEND:
        return _decode_append(term, body)
    if kind == _SNAPSHOT:
        (commit_index,) = _ONE.unpack_from(body)
        data = body[_ONE.size :]
        last = decode_snapshot(data).last
        _require(last[1] <= commit_index <= MAX_INDEX and last[2] <= term, "snapshot")
        return {"type": "append_entries", "term": term, "commit_index": commit_index, "serialized": (data, True, True)}
    if kind == _NEXT_INDEX:
        next_index, flags = _NEXT.unpack(body)
        _require(2 <= next_index <= MAX_INDEX and flags <= 3, "next_node_idx")
        return {
            "type": "next_node_idx",
            "next_node_idx": next_index,
            "success": bool(flags & 1),
            "reset": bool(flags & 2),
        }
    if kind == _COMMAND:
        _require(0 < len(body) <= MAX_COMMAND_BYTES + 1 and body[0] == _REGULAR_COMMAND, "apply_command")
        return {"type": "apply_command", "command": body}
    if kind == _REQUEST_VOTE:
        last_log_index, last_log_term = _TWO.unpack(body)
        _require(0 < last_log_index <= MAX_INDEX and last_log_term < term, "request_vote")
        return {
            "type": "request_vote",
            "term": term,
            "last_log_index": last_log_index,
            "last_log_term": last_log_term,
        }
    if kind == _RESPONSE_VOTE:
        _require(not body, "response_vote")
        return {"type": "response_vote", "term": term}
    raise Malformed(f"message of unknown kind {kind}")


def _decode_append(term: int, body: bytes) -> Message:
    commit_index, previous_index, previous_term = _APPEND_HEAD.unpack_from(body)
    _require(commit_index <= MAX_INDEX and previous_index <= MAX_INDEX and previous_term <= term, "append_entries")
    entries: list[LogRow] = []
    at, index, last_term = _APPEND_HEAD.size, previous_index, previous_term
    while at < len(body):
        entry_term, length = _ENTRY_HEAD.unpack_from(body, at)
        at += _ENTRY_HEAD.size + length
        index += 1
        _require(0 < length <= MAX_COMMAND_BYTES + 1 and at <= len(body) and last_term <= entry_term <= term, "entry")
        command = body[at - length : at]
        _require(command[0] in (_REGULAR_COMMAND, _NO_OP_COMMAND), "command type")
        entries.append((command, index, entry_term))
        last_term = entry_term
    _require(previous_index > 0 or (not entries and previous_term == 0), "append_entries without a previous index")
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit_index,
        "entries": entries,
        "prevLogIdx": previous_index or None,
        "prevLogTerm": previous_term if previous_index else None,
    }


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise Malformed(f"{what} with a value out of range")

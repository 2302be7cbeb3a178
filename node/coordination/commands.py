"""The replicated commands of the coordination plane and their bytes.

All integers big-endian. The first byte tells the kind; a command of an unknown kind, of a wrong length or with a value
out of range is `Malformed` and changes nothing.

    ANNOUNCE (1)   node u32 | session u64 | sequence u64 | ttl_ms u32 | disk_free u64 | load f64 | part u16 | parts u16
                   | incarnation length u8, bytes | (group u64, term u64) ...
    CLAIM (2)      node u32 | session u64 | ttl_ms u32 | expected_version u64 | name length u8, UTF-8

An announcement that is longer than `MAX_ANNOUNCE_BYTES` is split into parts which carry the same sequence number. Each
repeats the figures; only all of them together replace what the node said before.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from quorumlog.node.coordination.view import Announcement
from quorumlog.raft.types import NodeId, Term

MAX_COMMAND_BYTES = 32 * 1024
"""The largest command. PySyncObj cuts those of 64 KiB into chunks by a rule that can block replication for ever."""

MAX_ANNOUNCE_BYTES = 16 * 1024
MAX_ANNOUNCE_PARTS = 256
MAX_INCARNATION_BYTES = 64
MAX_LOCK_NAME_BYTES = 64
MAX_TTL_MS = 10 * 60 * 1000

_ANNOUNCE = 1
_CLAIM = 2

_ANNOUNCE_HEAD = struct.Struct(">BIQQIQdHHB")
_GROUP_AND_TERM = struct.Struct(">QQ")
_CLAIM_HEAD = struct.Struct(">BIQIQB")
_GROUPS_PER_PART = (MAX_ANNOUNCE_BYTES - _ANNOUNCE_HEAD.size - MAX_INCARNATION_BYTES) // _GROUP_AND_TERM.size

MAX_GROUPS_PER_NODE = MAX_ANNOUNCE_PARTS * _GROUPS_PER_PART

assert MAX_ANNOUNCE_BYTES < MAX_COMMAND_BYTES


class Malformed(ValueError):
    """The bytes are not what this plane writes: a peer is broken or of another version. Count and drop."""


@dataclass(frozen=True, slots=True)
class AnnouncementPart:
    """Part `part` (from 0) of `parts` of the announcement `sequence` of one node's session."""

    announcement: Announcement
    sequence: int
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class LockClaim:
    """A wish for a lock. It is granted only if the lock still has the version that the claimer saw."""

    name: str
    node_id: NodeId
    session_id: int
    ttl_seconds: float
    expected_version: int


def encode_announcement(announcement: Announcement, sequence: int) -> list[bytes]:
    """Return the commands, each at most `MAX_ANNOUNCE_BYTES` long, that together say `announcement`.

    Groups above `MAX_GROUPS_PER_NODE` are left out, the highest ids first: they are hints, and there must be a bound.
    """
    assert len(announcement.incarnation) <= MAX_INCARNATION_BYTES, "an incarnation is a short random string"
    groups = sorted(announcement.leaders.items())[:MAX_GROUPS_PER_NODE]
    parts = max(1, math.ceil(len(groups) / _GROUPS_PER_PART))
    commands = []
    for part in range(parts):
        head = _ANNOUNCE_HEAD.pack(
            _ANNOUNCE,
            announcement.node_id,
            announcement.session_id,
            sequence,
            _ttl_ms(announcement.ttl_seconds),
            max(0, announcement.disk_free_bytes),
            announcement.load if math.isfinite(announcement.load) else 0.0,
            part,
            parts,
            len(announcement.incarnation),
        )
        rows = groups[part * _GROUPS_PER_PART : (part + 1) * _GROUPS_PER_PART]
        body = b"".join([_GROUP_AND_TERM.pack(group_id, term) for group_id, term in rows])
        commands.append(head + announcement.incarnation + body)
    return commands


def encode_claim(claim: LockClaim) -> bytes:
    """Return the command for `claim`.

    Raises:
        ValueError: the name is empty or longer than `MAX_LOCK_NAME_BYTES` in UTF-8.
    """
    name = claim.name.encode()
    if not 0 < len(name) <= MAX_LOCK_NAME_BYTES:
        raise ValueError(f"lock name {claim.name!r}: it needs 1 to {MAX_LOCK_NAME_BYTES} bytes of UTF-8")
    ttl_ms = _ttl_ms(claim.ttl_seconds)
    return _CLAIM_HEAD.pack(_CLAIM, claim.node_id, claim.session_id, ttl_ms, claim.expected_version, len(name)) + name


def decode_command(command: bytes) -> AnnouncementPart | LockClaim:
    """Return what `command` says.

    Raises:
        Malformed: it is not a command of this version.
    """
    if len(command) > MAX_COMMAND_BYTES:
        raise Malformed(f"command of {len(command)} bytes, the limit is {MAX_COMMAND_BYTES}")
    try:
        if command[0] == _ANNOUNCE:
            return _decode_announcement(command)
        if command[0] == _CLAIM:
            return _decode_claim(command)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"command of {len(command)} bytes: {error}") from error
    raise Malformed(f"command of unknown kind {command[0]}")


def _decode_announcement(command: bytes) -> AnnouncementPart:
    _, node_id, session_id, sequence, ttl_ms, disk_free_bytes, load, part, parts, incarnation_bytes = (
        _ANNOUNCE_HEAD.unpack_from(command)
    )
    rows_at = _ANNOUNCE_HEAD.size + incarnation_bytes
    rows = memoryview(command)[rows_at:]
    well_formed = (
        part < parts <= MAX_ANNOUNCE_PARTS
        and 0 < ttl_ms <= MAX_TTL_MS
        and math.isfinite(load)
        and rows_at <= len(command) <= MAX_ANNOUNCE_BYTES
        and incarnation_bytes <= MAX_INCARNATION_BYTES
        and len(rows) % _GROUP_AND_TERM.size == 0
    )
    if not well_formed:
        raise Malformed("announcement with a value out of range")
    leaders = {group_id: Term(term) for group_id, term in _GROUP_AND_TERM.iter_unpack(rows)}
    announcement = Announcement(
        node_id=NodeId(node_id),
        incarnation=command[_ANNOUNCE_HEAD.size : rows_at],
        session_id=session_id,
        leaders=leaders,
        disk_free_bytes=disk_free_bytes,
        load=load,
        ttl_seconds=ttl_ms / 1000,
    )
    return AnnouncementPart(announcement, sequence, part, parts)


def _decode_claim(command: bytes) -> LockClaim:
    _, node_id, session_id, ttl_ms, expected_version, name_bytes = _CLAIM_HEAD.unpack_from(command)
    name = command[_CLAIM_HEAD.size :]
    if len(name) != name_bytes or not 0 < name_bytes <= MAX_LOCK_NAME_BYTES or not 0 < ttl_ms <= MAX_TTL_MS:
        raise Malformed("lock claim with a value out of range")
    return LockClaim(name.decode(), NodeId(node_id), session_id, ttl_ms / 1000, expected_version)


def _ttl_ms(ttl_seconds: float) -> int:
    return min(MAX_TTL_MS, max(1, round(ttl_seconds * 1000)))

"""Advisory locks: a compare-and-set on a version, so that the result is the same on every node whatever its clock.

The *claimer* decides that a lock has run out, by its own clock, and names the version it saw. Applying the claim
compares versions and reads no clock, so all nodes agree on the owner. Time enters only in asking: others count the
lease from when they received the claim, the owner from when it sent it, hence it stops before anyone else may start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from quorumlog.node.coordination.commands import MAX_LOCK_NAME_BYTES, MAX_TTL_MS, LockClaim, Malformed
from quorumlog.raft.types import NodeId

MAX_LOCKS = 64
"""Names are constants of the program, so a table that outgrows this is filled by mistake; new names are refused."""

MAX_VERSION = 1 << 62

_ROW = struct.Struct(">IQIQB")  # node, session, ttl_ms, version, length of the name


@dataclass(frozen=True, slots=True)
class _Lock:
    node_id: NodeId
    session_id: int
    ttl_seconds: float
    version: int  # from 1, one more with each claim that was granted
    counted_from: float


@dataclass(slots=True)
class _OwnClaim:
    """Our claim on one version of a lock. `first_at` starts the lease: whichever copy is granted, none was earlier."""

    expected_version: int
    first_at: float
    last_at: float


class LockTable:
    """The locks by name.

    Args:
        node_id: this node.
        session_id: of this process. A lock of an earlier session of this node is somebody else's.
    """

    def __init__(self, node_id: NodeId, session_id: int) -> None:
        self._node_id = node_id
        self._session_id = session_id
        self._locks: dict[str, _Lock] = {}
        self._claims: dict[str, _OwnClaim] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def owner(self, name: str, now: float) -> NodeId | None:
        """Return who holds `name` at `now`, or None."""
        lock = self._locks.get(name)
        if lock is None or now >= lock.counted_from + lock.ttl_seconds:
            return None
        return lock.node_id

    def held(self, name: str, now: float) -> bool:
        """Whether this process holds `name` at `now`."""
        lock = self._locks.get(name)
        return lock is not None and self._is_ours(lock) and now < lock.counted_from + lock.ttl_seconds

    def next_claim(self, name: str, ttl_seconds: float, now: float, retry_seconds: float) -> LockClaim | None:
        """Return the claim to propose for `name` now, or None where none is due.

        One is due when the lock is free or has run out, or is ours with less than half of its time left, and the same
        claim was not made within the last `retry_seconds`.
        """
        lock = self._locks.get(name)
        if lock is None and len(self._locks) >= MAX_LOCKS:
            return None
        if lock is not None:
            left_seconds = lock.counted_from + lock.ttl_seconds - now
            if left_seconds > (lock.ttl_seconds / 2 if self._is_ours(lock) else 0.0):
                return None
        version = lock.version if lock is not None else 0
        claim = self._claims.get(name)
        if claim is not None and claim.expected_version == version:
            if now < claim.last_at + retry_seconds:
                return None
            claim.last_at = now
        elif claim is None and len(self._claims) >= MAX_LOCKS:
            return None
        else:
            self._claims[name] = _OwnClaim(version, first_at=now, last_at=now)
        return LockClaim(name, self._node_id, self._session_id, ttl_seconds, version)

    def apply(self, claim: LockClaim, now: float) -> bool:
        """Grant `claim` if the lock still has the version it expects. `now` decides nothing, it starts the lease."""
        lock = self._locks.get(claim.name)
        version = lock.version if lock is not None else 0
        if claim.expected_version != version or version >= MAX_VERSION:
            return False
        if lock is None and len(self._locks) >= MAX_LOCKS:
            return False
        counted_from = now
        if claim.node_id == self._node_id and claim.session_id == self._session_id:
            own = self._claims.get(claim.name)
            if own is not None and own.expected_version == version:
                counted_from = own.first_at
            else:  # a claim that we forgot was granted: others may count from earlier than we could, so it is not held
                counted_from = float("-inf")
        self._locks[claim.name] = _Lock(
            claim.node_id, claim.session_id, claim.ttl_seconds, version + 1, counted_from=counted_from
        )
        return True

    def clear(self) -> None:
        """Forget all locks: the log that granted them is gone."""
        self._locks.clear()
        self._claims.clear()

    def encode(self) -> bytes:
        """Return the table for a snapshot: rows of node, session, ttl, version and name, without any time."""
        rows = []
        for name, lock in sorted(self._locks.items()):
            raw = name.encode()
            ttl_ms = round(lock.ttl_seconds * 1000)
            rows.append(_ROW.pack(lock.node_id, lock.session_id, ttl_ms, lock.version, len(raw)) + raw)
        return b"".join(rows)

    def restore(self, table: bytes, now: float) -> None:
        """Replace all locks by `table`; each lease counts in full from `now`, for how old it is cannot be known.

        Raises:
            Malformed: `table` is not what `encode` returns; the locks are unchanged.
        """
        locks: dict[str, _Lock] = {}
        for name, lock in decode_locks(table):
            known = self._locks.get(name)
            counted_from = float("-inf") if self._is_ours(lock) else now
            if known is not None and known.version == lock.version:
                counted_from = known.counted_from
            locks[name] = _Lock(lock.node_id, lock.session_id, lock.ttl_seconds, lock.version, counted_from)
        self._locks = locks

    def _is_ours(self, lock: _Lock) -> bool:
        return lock.node_id == self._node_id and lock.session_id == self._session_id


def decode_locks(table: bytes) -> list[tuple[str, _Lock]]:
    """Return the rows of `table`.

    Raises:
        Malformed: a row is cut off or has a value out of range, or there are too many.
    """
    rows: list[tuple[str, _Lock]] = []
    at = 0
    try:
        while at < len(table):
            node_id, session_id, ttl_ms, version, name_bytes = _ROW.unpack_from(table, at)
            at += _ROW.size + name_bytes
            raw = table[at - name_bytes : at]
            if not (0 < name_bytes == len(raw) <= MAX_LOCK_NAME_BYTES and 0 < ttl_ms <= MAX_TTL_MS):
                raise Malformed("lock row with a value out of range")
            if not 0 < version <= MAX_VERSION or len(rows) == MAX_LOCKS:
                raise Malformed("lock table with a version out of range or too many rows")
            rows.append((raw.decode(), _Lock(NodeId(node_id), session_id, ttl_ms / 1000, version, counted_from=0.0)))
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"lock table of {len(table)} bytes: {error}") from error
    return rows

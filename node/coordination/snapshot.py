"""What a peer gets that needs entries the leader has already dropped.

It holds the last two entries that were applied, by which the receiver's log continues, and the locks. It holds no
announcements: every node says its own again within seconds, so sending them would cost much and save little.

    index u64 | previous_term u64 | term u64 | length of previous u32 | length of last u32 | previous | last | locks

The receiver takes it whole in one message. PySyncObj also knows snapshots in parts and empty ones; while such a one is
under way a follower would commit entries that no majority has, so they are neither sent nor let in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from quorumlog.node.coordination.commands import MAX_COMMAND_BYTES, Malformed
from quorumlog.node.coordination.locks import decode_locks

LogRow = tuple[bytes, int, int]
"""An entry as PySyncObj holds it: command with its type byte, index, term."""

_HEAD = struct.Struct(">QQQII")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state up to and including the entry `last`; `previous` is the entry before it."""

    previous: LogRow
    last: LogRow
    locks: bytes

    def encode(self) -> bytes:
        """Return the bytes that `decode_snapshot` reads."""
        head = _HEAD.pack(self.last[1], self.previous[2], self.last[2], len(self.previous[0]), len(self.last[0]))
        return head + self.previous[0] + self.last[0] + self.locks


def decode_snapshot(data: bytes) -> Snapshot:
    """Return the snapshot in `data`, with its locks known to be well formed.

    Raises:
        Malformed: `data` is not a snapshot of this version.
    """
    try:
        index, previous_term, term, previous_bytes, last_bytes = _HEAD.unpack_from(data)
    except struct.error as error:
        raise Malformed(f"snapshot of {len(data)} bytes: {error}") from error
    last_at = _HEAD.size + previous_bytes
    locks_at = last_at + last_bytes
    lengths_hold = 0 < previous_bytes <= MAX_COMMAND_BYTES + 1 and 0 < last_bytes <= MAX_COMMAND_BYTES + 1
    if index < 2 or previous_term > term or not lengths_hold or locks_at > len(data):
        raise Malformed("snapshot with a value out of range")
    locks = data[locks_at:]
    decode_locks(locks)
    return Snapshot(
        (data[_HEAD.size : last_at], index - 1, previous_term), (data[last_at:locks_at], index, term), locks
    )


class SnapshotStore:
    """Stands in for PySyncObj's serializer, method by method, without its pickles, files and forks.

    Args:
        take: returns the locks as bytes.
        restore: replaces the locks by such bytes.
    """

    def __init__(self, take: Callable[[], bytes], restore: Callable[[bytes], None]) -> None:
        self._take = take
        self._restore = restore
        self._current: Snapshot | None = None  # the one by which the log was cut
        self._next: Snapshot | None = None  # taken, the log is not yet cut by it

    def serialize(self, data: tuple[object, LogRow, LogRow, object], upto: int) -> None:
        """Take a snapshot of everything applied; PySyncObj gives the last two entries, `upto` is the first it keeps."""
        _, last, previous, _ = data
        assert previous[1] == upto == last[1] - 1, (
            f"a snapshot of the entries {previous[1]}, {last[1]} cannot cut at {upto}"
        )
        self._next = Snapshot(previous, last, self._take())

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802 - PySyncObj calls it so
        """Return (SUCCESS, index to cut at) once after `serialize`, else (NOT_SERIALIZING, None)."""
        if self._next is None:
            return _NOT_SERIALIZING, None
        self._current, self._next = self._next, None
        return _SUCCESS, self._current.previous[1]

    def getTransmissionData(self, node: object) -> tuple[bytes, bool, bool]:  # noqa: N802 - PySyncObj calls it so
        """Return the snapshot for `node` as (bytes, first part, last part): always whole."""
        assert self._current is not None, "the log begins above index 1, so there is the snapshot that cut it"
        return self._current.encode(), True, True

    def setTransmissionData(self, data: tuple[bytes, bool, bool]) -> bool:  # noqa: N802 - PySyncObj calls it so
        """Take a snapshot from the leader; True: it is complete and may be loaded."""
        self._current, self._next = decode_snapshot(data[0]), None
        return True

    def deserialize(self) -> tuple[None, LogRow, LogRow, None]:
        """Load the snapshot taken by `setTransmissionData`: restores the locks, returns the two entries."""
        assert self._current is not None, "loaded only after it was taken"
        self._restore(self._current.locks)
        return None, self._current.last, self._current.previous, None

    def cancelTransmisstion(self, node: object) -> None:  # noqa: N802 - PySyncObj calls it so, and spells it so
        """Nothing to cancel: a snapshot is one message."""


# The values of pysyncobj.config.SERIALIZER_STATE, which only engine.py may import; a test compares them.
_NOT_SERIALIZING = 0
_SUCCESS = 2

"""The APPENDs sent to one peer and not yet answered."""

from __future__ import annotations

from collections import deque

from quorumlog.raft.types import LogIndex


class Inflights:
    """A bounded window over unanswered APPENDs, by number and by bytes.

    Invariant: last indexes rise strictly from head to tail; `size_bytes` is the sum over the window.
    """

    __slots__ = ("_messages_max", "_size_bytes_max", "_window", "size_bytes")

    def __init__(self, messages_max: int, size_bytes_max: int) -> None:
        self._messages_max = messages_max
        self._size_bytes_max = size_bytes_max
        self._window: deque[tuple[LogIndex, int]] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._window)

    @property
    def full(self) -> bool:
        """True when no further APPEND may be sent. One message may pass the limit of bytes."""
        return len(self._window) >= self._messages_max or self.size_bytes >= self._size_bytes_max

    def add(self, last_index: LogIndex, size_bytes: int) -> None:
        """Records an APPEND whose last entry is `last_index`. Must not be full."""
        assert not self.full, "an APPEND was sent beyond the inflight limit"
        assert not self._window or self._window[-1][0] < last_index, f"inflights out of order at {last_index}"
        self._window.append((last_index, size_bytes))
        self.size_bytes += size_bytes

    def free_through(self, index: LogIndex) -> None:
        """Forgets every APPEND whose last entry is at or below `index`."""
        window = self._window
        while window and window[0][0] <= index:
            self.size_bytes -= window.popleft()[1]

    def clear(self) -> None:
        """Forgets all: what was sent is taken for lost."""
        self._window.clear()
        self.size_bytes = 0

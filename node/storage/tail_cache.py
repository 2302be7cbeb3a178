"""The newest entries of a log in memory: what replication and consumers at the end of the log read."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from quorumlog.raft.types import Entry, LogIndex


class TailCache:
    """Consecutive entries from `first_index` to the end of the log, with the offset and the record time behind each."""

    __slots__ = (
        "_entries",
        "_max_timestamps_ms",
        "_next_offsets",
        "first_index",
        "max_timestamp_before_ms",
        "offset_before",
        "size_bytes",
    )

    def __init__(self, first_index: int, offset_before: int, max_timestamp_before_ms: int) -> None:
        self.first_index = first_index
        self.offset_before = offset_before
        """Next offset before the first cached entry."""
        self.max_timestamp_before_ms = max_timestamp_before_ms
        """Largest record timestamp before the first cached entry."""
        self.size_bytes = 0
        self._entries: list[Entry] = []
        self._next_offsets: list[int] = []
        self._max_timestamps_ms: list[int] = []

    def append(self, entry: Entry, next_offset: int, max_timestamp_ms: int) -> None:
        """Add the next entry; `next_offset` and `max_timestamp_ms` (running maximum) are those behind it."""
        self._entries.append(entry)
        self._next_offsets.append(next_offset)
        self._max_timestamps_ms.append(max_timestamp_ms)
        self.size_bytes += len(entry.data)

    def slice(self, first: int, last: int, size_bytes_max: int) -> list[Entry]:
        """Entries from `first` (cached) to `last`, both inclusive: one, and then no more than `size_bytes_max`."""
        start = first - self.first_index
        taken = self._entries[start : last - self.first_index + 1]
        size_bytes = 0
        for position, entry in enumerate(taken):
            size_bytes += len(entry.data)
            if size_bytes > size_bytes_max and position:
                return taken[:position]
        return taken

    def next_offset_behind(self, index: int) -> int:
        """Next offset behind the cached entry at `index`."""
        return self._next_offsets[index - self.first_index]

    def find_offset(self, offset: int) -> LogIndex:
        """Index of the first cached entry with records at or after `offset`, which is not below `offset_before`."""
        return LogIndex(self.first_index + bisect_right(self._next_offsets, offset))

    def find_time(self, timestamp_ms: int) -> LogIndex:
        """Index of the first cached entry with a record at or after the time, which is above
        `max_timestamp_before_ms`.
        """
        return LogIndex(self.first_index + bisect_left(self._max_timestamps_ms, timestamp_ms))

    def records(self, offset: int, limit_offset: int, size_bytes_max: int) -> list[Entry]:
        """Entries with records from `offset` (not below `offset_before`) up to `limit_offset` (exclusive).

        One entry, and then no more than `size_bytes_max` bytes of data; the first may begin below `offset`.
        """
        taken: list[Entry] = []
        next_offsets, size_bytes, reached = self._next_offsets, 0, offset
        for position in range(bisect_right(next_offsets, offset), len(next_offsets)):
            next_offset = next_offsets[position]
            if next_offset == reached:
                continue  # an entry without records
            if next_offset > limit_offset:
                break
            reached = next_offset
            entry = self._entries[position]
            size_bytes += len(entry.data)
            if size_bytes > size_bytes_max and taken:
                break
            taken.append(entry)
        return taken

    def truncate(self, since: int) -> None:
        """Drop the entries from `since` (inclusive) on; `since` is not below `first_index`."""
        keep = since - self.first_index
        self.size_bytes -= sum(len(entry.data) for entry in self._entries[keep:])
        del self._entries[keep:], self._next_offsets[keep:], self._max_timestamps_ms[keep:]

    def drop_before(self, index: int) -> None:
        """Drop the entries before `index`."""
        self._drop(min(index - self.first_index, len(self._entries)))

    def trim(self, size_bytes_max: int) -> None:
        """Drop the oldest entries above `size_bytes_max`, and a quarter more, so that it is rarely done."""
        if self.size_bytes <= size_bytes_max:
            return
        excess, count = self.size_bytes - size_bytes_max * 3 // 4, 0
        for entry in self._entries:
            if excess <= 0:
                break
            excess -= len(entry.data)
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        if count <= 0:
            return
        self.first_index += count
        self.offset_before = self._next_offsets[count - 1]
        self.max_timestamp_before_ms = self._max_timestamps_ms[count - 1]
        self.size_bytes -= sum(len(entry.data) for entry in self._entries[:count])
        del self._entries[:count], self._next_offsets[:count], self._max_timestamps_ms[:count]

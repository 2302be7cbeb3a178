"""Where a consumer stands in one partition, and the records that are on their way to the user."""

from collections import deque
from collections.abc import Iterator
from itertools import repeat
from typing import Literal, NamedTuple, TypeAlias

from quorumlog.errors import BatchCorrupt, Fatal, QuorumlogError
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import CONTROL, BatchInvalid, BatchLimits, RecordColumns, open_batch
from quorumlog.proto.compression import CodecUnavailable
from quorumlog.proto.errors import kind_of
from quorumlog.records import Offset, Record, TopicPartition

Start: TypeAlias = Literal["earliest", "latest"] | int
"""Where to begin: a word, or milliseconds since 1970-01-01 UTC."""

# A node accepts far smaller batches; these keep a broken or hostile one from filling the memory.
LIMITS = BatchLimits(size_bytes_max=64 << 20, inflated_size_bytes_max=64 << 20, ratio_max=10_000.0)


class Mark(NamedTuple):
    """The last record of something that was handed out whole; has what is needed of a `Record` to commit it."""

    offset: int
    leader_epoch: int


class Cursor:
    """One partition of one consumer.

    `generation` grows when the position is moved or the partition is given away: what was fetched or handed out
    before is void then. `handed` is the last record the user was given, `done` the last one the user is done with;
    both are written by the user's thread and read by the loop's, each as one value.
    """

    __slots__ = (
        "active",
        "buffered",
        "buffered_bytes",
        "committed",
        "done",
        "error",
        "failures",
        "fetch_epoch",
        "fetch_offset",
        "fetching",
        "generation",
        "handed",
        "high_watermark",
        "in_hand",
        "paused",
        "position",
        "retry_at",
        "start",
        "stop",
        "topic_id",
        "tp",
    )

    def __init__(self, tp: TopicPartition, topic_id: bytes, position: Offset | None, start: Start) -> None:
        self.tp = tp
        self.topic_id = topic_id
        self.start: Start | None = start
        self.stop: int | None = None
        self.generation = 0
        self.active = True
        self.paused = False
        self.committed = -1
        self.high_watermark = -1
        self.error: QuorumlogError | None = None
        self.failures = 0
        self.retry_at = 0.0
        self.fetching = False
        self.in_hand = False
        self.handed: Record | Mark | None = None
        self.done: Record | Mark | None = None
        self.buffered: deque[pb.RecordBatch] = deque()
        self.buffered_bytes = 0
        self.position = -1
        self.fetch_offset = -1
        self.fetch_epoch: int | None = None
        if position is not None:
            self.start = None
            self.position = self.fetch_offset = position.offset
            self.fetch_epoch = position.leader_epoch

    @property
    def resolved(self) -> bool:
        """Whether it is known where to fetch from."""
        return self.fetch_offset >= 0

    @property
    def at_stop(self) -> bool:
        """Whether everything up to the stop was handed out."""
        return self.stop is not None and self.resolved and self.next_offset() >= self.stop

    def next_offset(self) -> int:
        """Return the offset of the next record to hand out."""
        return self.handed.offset + 1 if self.handed is not None else self.position

    def move(self, position: Offset) -> None:
        """Go on from another position; everything on its way is void."""
        self.generation += 1
        self.position = self.fetch_offset = position.offset
        self.fetch_epoch = position.leader_epoch
        self.start = None
        self.handed = None
        self.done = None
        self.error = None
        self.failures = 0
        self.retry_at = 0.0
        self.fetching = False
        self.buffered.clear()
        self.buffered_bytes = 0

    def rewind(self) -> None:
        """Fetch again what was fetched but not handed out."""
        handed, done = self.handed, self.done
        epoch = handed.leader_epoch if handed is not None else None
        self.move(Offset(self.next_offset(), epoch))
        self.handed, self.done = handed, done

    def drop(self) -> None:
        """Give the partition away: nothing more of it is handed out."""
        self.active = False
        self.generation += 1
        self.buffered.clear()
        self.buffered_bytes = 0


class Chunk:
    """Batches of one partition on their way to the user, opened one by one."""

    __slots__ = ("_batches", "_generation", "_records", "cursor")

    def __init__(self, cursor: Cursor, batches: deque[pb.RecordBatch]) -> None:
        self.cursor = cursor
        self._batches = batches
        self._generation = cursor.generation
        self._records: list[Record] = []

    @property
    def valid(self) -> bool:
        """Whether the position has not been moved and the partition not been given away."""
        return self._generation == self.cursor.generation

    @property
    def unfinished(self) -> bool:
        """Whether there is more to hand out."""
        return self.valid and (bool(self._batches) or self._unhanded())

    def records(self) -> Iterator[Record]:
        """Hand out record by record: asking for the next one marks the one before as done."""
        cursor = self.cursor
        generation = self._generation
        while self._fill():
            for record in self._records:
                if cursor.generation != generation:
                    return
                cursor.handed = record
                yield record
                if cursor.generation == generation or not cursor.active:
                    cursor.done = record

    def next_list(self, max_records: int | None = None) -> list[Record]:
        """Hand out the next records, at most a batch of them; an empty list at the end. The caller marks them done."""
        if not self._fill():
            return []
        records = self._records if max_records is None else self._records[:max_records]
        self.cursor.handed = records[-1]
        return records

    def next_values(self) -> list[bytes | None]:
        """Hand out the values of the next batch; an empty list at the end. The caller marks them done."""
        if self._unhanded():
            return [record.value for record in self.next_list()]
        while self.valid and self._batches:
            batch = self._batches.popleft()
            columns, first, last = self._open(batch)
            if first < last:
                self.cursor.handed = Mark(batch.base_offset + last - 1, batch.leader_epoch)
                values = columns.values
                return values if last - first == len(values) else values[first:last]
        return []

    def _unhanded(self) -> bool:
        """Keep of the opened batch what was not handed out, and return whether that is anything."""
        records = self._records
        if records and self.valid:
            start = self.cursor.next_offset() - records[0].offset
            self._records = records[max(0, start) :]
            return bool(self._records)
        self._records = []
        return False

    def _fill(self) -> bool:
        if self._unhanded():
            return True
        while self.valid and self._batches:
            batch = self._batches.popleft()
            columns, first, last = self._open(batch)
            if first < last:
                self._records = _records(self.cursor.tp, batch, columns, first, last)
                return True
        return False

    def _open(self, batch: pb.RecordBatch) -> tuple[RecordColumns, int, int]:
        """Open a batch: its columns, and the range of them between the position and the stop."""
        cursor = self.cursor
        if batch.flags & CONTROL:
            return RecordColumns([], [], [], []), 0, 0
        try:
            columns = open_batch(batch, LIMITS)
        except BatchInvalid as error:
            cursor.rewind()
            cls = BatchCorrupt if kind_of(error.code).retriable else Fatal
            raise cls(
                f"{cursor.tp}: the batch at offset {batch.base_offset} cannot be read: {error.message}",
                hint=error.hint or "read it from another replica; run quorumlog doctor on the node that leads",
                code=kind_of(error.code).name,
            ) from error
        except CodecUnavailable as error:
            cursor.rewind()
            raise Fatal(f"{cursor.tp}: {error}", hint=error.hint) from error
        count = len(columns.values)
        first = max(0, cursor.next_offset() - batch.base_offset)
        last = count if cursor.stop is None else min(count, cursor.stop - batch.base_offset)
        return columns, first, last


def _records(tp: TopicPartition, batch: pb.RecordBatch, columns: RecordColumns, first: int, last: int) -> list[Record]:
    values, keys, timestamps_ms, headers = columns
    if first > 0 or last < len(values):
        values, keys = values[first:last], keys[first:last]
        timestamps_ms, headers = timestamps_ms[first:last], headers[first:last]
    base = batch.base_offset
    rows = zip(
        repeat(tp.topic),
        repeat(tp.partition),
        range(base + first, base + last),
        [stamp / 1000 for stamp in timestamps_ms],
        keys,
        values,
        headers,
        repeat(batch.leader_epoch),
        strict=False,
    )
    # Record(*row) would run a Python frame per record; this runs none.
    return list(map(tuple.__new__, repeat(Record), rows))

"""A batch on its way: the records that were put into it, and what its attempts have said so far."""

from collections.abc import Sequence

from quorumlog.errors import DeliveryFailed, FailedBatch, Outcome, QuorumlogError
from quorumlog.futures import BatchCompletion

Headers = tuple[tuple[str, bytes | None], ...]

# What a record costs beside its key and value, in the buffer and on the wire: tags, lengths, a timestamp.
RECORD_OVERHEAD_BYTES = 16


class PendingBatch(BatchCompletion):
    """Records of one partition that travel together.

    `size_bytes` estimates their size on the wire, uncompressed. `deadline`: monotonic seconds at which they are given
    up. `order` numbers the batches of a partition as they were first sent (-1: never yet); unlike `base_sequence` it
    never wraps or restarts. `maybe_appended`: an attempt ended without saying that it did not append. `payload` keeps
    the encoded records (and the compression they have) from the first attempt to the last.
    """

    __slots__ = (
        "attempts",
        "base_sequence",
        "compression",
        "created",
        "deadline",
        "epoch",
        "headers",
        "keys",
        "maybe_appended",
        "order",
        "payload",
        "size_bytes",
        "values",
    )

    def __init__(self, topic: str, partition: int, created: float, deadline: float) -> None:
        super().__init__(topic, partition)
        self.created = created
        self.deadline = deadline
        self.values: list[bytes | None] = []
        self.keys: list[bytes | None] | None = None
        self.headers: dict[int, Headers] | None = None
        self.size_bytes = 0
        self.order = -1
        self.base_sequence = 0
        self.epoch = 0
        self.attempts = 0
        self.maybe_appended = False
        self.payload: bytes | None = None
        self.compression = 0

    @property
    def count(self) -> int:
        """Number of records."""
        return len(self.values)

    def add(self, value: bytes | None, key: bytes | None, headers: Headers, timestamp_ms: int, size_bytes: int) -> int:
        """Append one record and return its position."""
        values = self.values
        index = len(values)
        values.append(value)
        self.timestamps_ms.append(timestamp_ms)
        if self.keys is not None:
            self.keys.append(key)
        elif key is not None:
            self.keys = [None] * index
            self.keys.append(key)
        if headers:
            if self.headers is None:
                self.headers = {}
            self.headers[index] = headers
        self.size_bytes += size_bytes
        return index

    def extend(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        timestamps_ms: list[int],
        size_bytes: int,
    ) -> int:
        """Append many records without headers and return the position of the first."""
        index = len(self.values)
        self.values.extend(values)
        self.timestamps_ms.extend(timestamps_ms)
        if keys is not None:
            if self.keys is None:
                self.keys = [None] * index
            self.keys.extend(keys)
        elif self.keys is not None:
            self.keys.extend([None] * len(values))
        self.size_bytes += size_bytes
        return index

    def split(self) -> "tuple[PendingBatch, PendingBatch]":
        """Let two halves, which were never sent, carry the records instead; this one is done when both are."""
        middle = self.count // 2
        assert middle, "one record cannot be split"
        first, second = (PendingBatch(self.topic, self.partition, self.created, self.deadline) for _ in range(2))
        for half, start, stop in ((first, 0, middle), (second, middle, self.count)):
            half.values = self.values[start:stop]
            half.timestamps_ms = self.timestamps_ms[start:stop]
            half.keys = None if self.keys is None else self.keys[start:stop]
            if self.headers is not None:
                half.headers = {i - start: pairs for i, pairs in self.headers.items() if start <= i < stop}
        first.size_bytes = min(self.size_bytes, _size_bytes(first))
        second.size_bytes = self.size_bytes - first.size_bytes
        self.halves = (first, second)
        self._let_go()
        first.on_done(self._half_done)
        second.on_done(self._half_done)
        return first, second

    def _half_done(self) -> None:
        assert self.halves is not None
        first, second = self.halves
        if first.done and second.done:
            self.finish(first.error or second.error)

    def complete(self, base_offset: int) -> None:
        """Finish it as appended at `base_offset`; -1 where that is no longer known."""
        self.base_offset = base_offset
        self._let_go()
        self.finish()

    def fail(self, cause: QuorumlogError) -> FailedBatch:
        """Finish it as given up because of `cause`, and return what there is to report."""
        outcome = Outcome.UNKNOWN if self.maybe_appended else Outcome.NOT_APPENDED
        failed = FailedBatch(
            self.topic, self.partition, self.count, outcome, cause, tuple(self.values), tuple(self.keys or ())
        )
        error = DeliveryFailed([failed])
        error.__cause__ = cause
        self._let_go()
        self.finish(error)
        return failed

    def _let_go(self) -> None:
        # Futures of records may live long; what they were about need not.
        self.values = []
        self.keys = None
        self.headers = None
        self.payload = None


def _size_bytes(batch: PendingBatch) -> int:
    """Return the estimate of a batch's size on the wire, as it was made record by record."""
    size = RECORD_OVERHEAD_BYTES * batch.count
    size += sum(len(value or b"") for value in batch.values)
    size += sum(len(key or b"") for key in batch.keys or ())
    return size + sum(headers_size_bytes(pairs) for pairs in (batch.headers or {}).values())


def headers_size_bytes(headers: Headers) -> int:
    """Return what the headers of one record add to that estimate."""
    return sum(len(name) + len(content or b"") + 8 for name, content in headers)

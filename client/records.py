"""What producers get back and consumers get: plain, small values."""

from dataclasses import dataclass
from typing import NamedTuple


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Record(NamedTuple):
    """One record as it was read.

    A named tuple, because it is made hundreds of thousands of times a second and `tuple.__new__` needs no Python frame.

    `timestamp` is seconds since 1970-01-01 UTC with a resolution of a millisecond. `value` None is a tombstone.
    `headers` keeps the order and the repetitions of what was sent. `leader_epoch` is the leadership period the record
    was appended in.
    """

    topic: str
    partition: int
    offset: int
    timestamp: float
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    leader_epoch: int

    def __repr__(self) -> str:
        key = "no key" if self.key is None else f"key {len(self.key)} B"
        value = "no value" if self.value is None else f"value {len(self.value)} B"
        return f"Record({self.topic}[{self.partition}]@{self.offset}, {key}, {value}, {len(self.headers)} headers)"


class RecordMetadata(NamedTuple):
    """Where a record was appended.

    `offset` is -1 where the record is certainly in the log but its offset is no longer known: a retry came so late
    that the leader remembered only that it had the batch. `timestamp` is seconds since 1970-01-01 UTC.
    """

    topic: str
    partition: int
    offset: int
    timestamp: float


@dataclass(frozen=True, slots=True)
class AppendedRange:
    """Where consecutive records of one `send_many` were appended.

    They have the offsets `base_offset` to `base_offset + count - 1`. `base_offset` is -1 as in `RecordMetadata`.
    """

    topic: str
    partition: int
    base_offset: int
    count: int


class Offset(NamedTuple):
    """A position to consume from.

    The next offset, and the leader epoch of the record before it where one was consumed.
    """

    offset: int
    leader_epoch: int | None = None

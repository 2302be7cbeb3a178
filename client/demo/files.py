"""The files in which producers note acknowledgements and consumers records: a line each, appended."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quorumlog.demo.samples import Identity


class Ack(NamedTuple):
    """One acknowledged record. Times are monotonic seconds, which all processes of this machine share."""

    partition: int
    offset: int
    identity: Identity
    sent_at: float
    acked_at: float

    def line(self) -> str:
        """Return it as a line of the file."""
        producer, sequence = self.identity
        return f"{self.partition} {self.offset} {producer} {sequence} {self.sent_at:.6f} {self.acked_at:.6f}\n"


class Consumed(NamedTuple):
    """One record that a member was given."""

    partition: int
    offset: int
    identity: Identity

    def line(self) -> str:
        """Return it as a line of the file."""
        return f"{self.partition} {self.offset} {self.identity.producer} {self.identity.sequence}\n"


def acks_path(folder: Path, producer: int) -> Path:
    """Where a producer notes what was acknowledged."""
    return folder / f"acked-by-producer-{producer}"


def consumed_path(folder: Path, member: int) -> Path:
    """Where a member notes what it was given."""
    return folder / f"consumed-by-member-{member}"


def read_acks(folder: Path) -> Iterator[Ack]:
    """Yield what all producers noted."""
    for path in sorted(folder.glob("acked-by-producer-*")):
        with path.open() as lines:
            for line in lines:
                partition, offset, producer, sequence, sent_at, acked_at = line.split()
                identity = Identity(int(producer), int(sequence))
                yield Ack(int(partition), int(offset), identity, float(sent_at), float(acked_at))


def read_consumed(folder: Path) -> Iterator[Consumed]:
    """Yield what all members noted."""
    for path in sorted(folder.glob("consumed-by-member-*")):
        with path.open() as lines:
            for line in lines:
                partition, offset, producer, sequence = map(int, line.split())
                yield Consumed(partition, offset, Identity(producer, sequence))

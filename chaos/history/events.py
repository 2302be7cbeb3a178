"""Operations as they are judged: what was asked, when, what was told, when."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

NEVER: Final = 1 << 63
"""When what was never completed was completed."""


class Outcome(Enum):
    """How an operation ended."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Record(NamedTuple):
    """One record as a read returned it. What is not known is None."""

    offset: int
    value: str
    term: int | None = None
    producer_id: int | None = None
    epoch: int | None = None
    sequence: int | None = None
    digest: str | int | None = None


class Delivered(NamedTuple):
    """One record as a member of a group was given it."""

    tp: str
    offset: int
    value: str


class Position(NamedTuple):
    """A committed offset (the next to be consumed) and the tag that names its commit."""

    offset: int
    tag: str


@dataclass(slots=True)
class Operation:
    """One operation of one process. `completed` is NEVER for an operation that has no completion."""

    process: str
    number: int
    invoked: int
    completed: int
    outcome: Outcome

    @property
    def ok(self) -> bool:
        """Whether it was certainly done."""
        return self.outcome is Outcome.OK

    @property
    def failed(self) -> bool:
        """Whether it was certainly not done."""
        return self.outcome is Outcome.FAIL


@dataclass(slots=True)
class Produce(Operation):
    """Records to be appended. `base_offset`, `term` and `node` are those of an acknowledgement.

    `batch` says that the records are one batch, which is appended as a whole.
    """

    tp: str
    values: list[str]
    batch: bool
    idempotent: bool
    producer_id: int | None
    epoch: int | None
    base_sequence: int | None
    base_offset: int | None
    term: int | None
    duplicate: bool
    node: int | str | None


@dataclass(slots=True)
class Fetch(Operation):
    """Records read from one replica of one partition. `high_watermark` is exclusive, `start` inclusive."""

    tp: str
    wanted: int
    leader: bool
    session: str
    node: int | str | None
    records: list[Record]
    high_watermark: int
    start: int
    term: int | None


@dataclass(slots=True)
class ListOffsets(Operation):
    """Where a log begins and ends, as its leader says."""

    tp: str
    node: int | str | None
    start: int
    high_watermark: int
    term: int | None


@dataclass(slots=True)
class Poll(Operation):
    """What a member of a group was given."""

    group: str
    member: str
    generation: int
    partitions: list[str]
    records: list[Delivered]


@dataclass(slots=True)
class Ownership(Operation):
    """A member learned that partitions are given to it, or taken from it."""

    group: str
    member: str
    generation: int
    partitions: list[str]
    given: bool


@dataclass(slots=True)
class Commit(Operation):
    """Positions that a member commits for its group."""

    group: str
    member: str
    generation: int
    positions: dict[str, Position]


@dataclass(slots=True)
class Committed(Operation):
    """Positions of a group as they were read."""

    group: str
    positions: dict[str, Position]


@dataclass(slots=True)
class InitProducer(Operation):
    """A producer id that was given out."""

    producer_id: int
    epoch: int


@dataclass(slots=True)
class Meta(Operation):
    """A change of the cluster's metadata."""

    command: str
    identity: str
    arguments: dict[str, Any]
    result: str | None


@dataclass(slots=True)
class FinalRead(Operation):
    """All that one replica has of a partition after everything was healed; failed where it could not be read.

    Of `records`, those below `committed` (exclusive) are known to the replica as committed.
    """

    node: int | str | None
    tp: str
    records: list[Record]
    start: int
    high_watermark: int
    committed: int


@dataclass(slots=True)
class Nemesis(Operation):
    """A fault, from its beginning to its end. `bit` has what shows its effect; empty: nothing was seen of it."""

    kind: str
    targets: list[Any]
    parameters: dict[str, Any]
    bit: dict[str, Any]


@dataclass(slots=True)
class History:
    """Everything that was recorded in a run, each list in the order of invocation.

    `run` is what run.json says. `planned` are the faults of schedule.json.
    """

    run: dict[str, Any]
    planned: list[dict[str, Any]] = field(default_factory=list)
    produces: list[Produce] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    listings: list[ListOffsets] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    ownerships: list[Ownership] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    committed_reads: list[Committed] = field(default_factory=list)
    producers: list[InitProducer] = field(default_factory=list)
    metas: list[Meta] = field(default_factory=list)
    final_reads: list[FinalRead] = field(default_factory=list)
    faults: list[Nemesis] = field(default_factory=list)
    successes: list[int] = field(default_factory=list)
    """When operations of clients were acknowledged, in order; final reads and faults do not count."""

"""Every error a user of the client can meet, as one tree.

    QuorumlogError
    ├── Retriable                 the same call may succeed later; it was already tried for as long as allowed
    │   ├── NotLeader             another node leads the partition
    │   ├── NoLeader              nobody leads it just now
    │   ├── NotYetAvailable       the replica asked is behind
    │   ├── NotCoordinator        another node coordinates the group
    │   ├── Throttled             the node asks for patience
    │   ├── BatchCorrupt          a checksum is wrong; sent or fetched again it may be right
    │   ├── ConnectionFailed      names the address, the stage (dns, tcp, tls, auth, protocol) and the likely fix
    │   └── TimedOut              also a TimeoutError
    └── Fatal                     the same call fails again; something has to change first
        ├── InvalidRequest        arguments that contradict themselves or the cluster
        ├── UnknownTopic, UnknownPartition, TopicExists, UnknownGroup, GroupNotEmpty
        ├── RecordTooLarge
        ├── Fenced                a newer incarnation of this producer or member has taken over
        ├── OffsetOutOfRange      the position was deleted or never existed
        ├── Diverged              the log this position came from is not the log that is there now
        ├── WrongCluster
        ├── DeliveryFailed        records that were not delivered, each batch with its outcome
        ├── Closed                used after close()
        └── ForkedProcess         used in a child process after fork()

Each carries `.code` (the name in the contract, or "CLIENT" for what only the client can know), `.hint` (what to do
about it) and `.outcome`. Whether to retry is decided by the flag that came with the error, never by its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from quorumlog.proto import client_pb2


class Outcome(Enum):
    """What became of the records an error is about."""

    NONE = "NONE"
    """Nothing was to be appended."""
    NOT_APPENDED = "NOT_APPENDED"
    """Certainly not in the log, and never will be."""
    UNKNOWN = "UNKNOWN"
    """May be in the log, or may yet be."""


class QuorumlogError(Exception):
    """The root of the tree; never raised itself.

    Args:
        message: what happened, naming the thing.
        hint: what to do about it.
        code: name of the error in the contract; "CLIENT" where the cluster never spoke.
        outcome: what became of the records this error is about.
        leader: address of the node that leads, where the error named one.
        retry_after_seconds: how long the node asked to wait; 0.0 where it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str = "CLIENT",
        outcome: Outcome = Outcome.NONE,
        leader: str = "",
        retry_after_seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.outcome = outcome
        self.leader = leader
        self.retry_after_seconds = retry_after_seconds

    @property
    def retriable(self) -> bool:
        """Whether the same call may succeed later."""
        return isinstance(self, Retriable)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Retriable(QuorumlogError):
    """The same call may succeed later."""


class Fatal(QuorumlogError):
    """The same call fails again until something changes."""


class NotLeader(Retriable):
    """Another node leads the partition; `.leader` is its address where known."""


class NoLeader(Retriable):
    """Nobody leads the partition just now."""


class NotYetAvailable(Retriable):
    """The replica asked does not have it yet."""


class NotCoordinator(Retriable):
    """Another node coordinates the group; `.leader` is its address where known."""


class Throttled(Retriable):
    """The node asks to wait for `.retry_after_seconds`."""


class TimedOut(Retriable, TimeoutError):
    """The time given was not enough. What was asked may still happen."""


class ConnectionFailed(Retriable, ConnectionError):
    """No connection to a node, or to none of several.

    Args:
        message: what happened.
        hint: the likely fix.
        address: host:port that could not be reached; several are separated by commas.
        stage: how far it came: dns, tcp, tls, auth or protocol.
        code: as in `QuorumlogError`.
        refused: nothing listens at any address named.
    """

    def __init__(
        self, message: str, *, hint: str, address: str, stage: str, code: str = "CLIENT", refused: bool = False
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.address = address
        self.stage = stage
        self.refused = refused


class InvalidRequest(Fatal, ValueError):
    """Arguments that contradict themselves or the cluster."""


class UnknownTopic(Fatal):
    """No topic of this name or id."""


class UnknownPartition(Fatal):
    """The topic has no such partition."""


class TopicExists(Fatal):
    """A topic of this name is there already."""


class UnknownGroup(Fatal):
    """No consumer group of this name."""


class GroupNotEmpty(Fatal):
    """The group has members; what was asked is only for groups without."""


class RecordTooLarge(Fatal):
    """A record, or the batch around it, is over the limit."""


class BatchCorrupt(Retriable):
    """The checksum of a batch is wrong: what was written is not what is read."""


class Fenced(Fatal):
    """A newer incarnation of this producer or group member has taken over."""


class WrongCluster(Fatal):
    """The address answers for another cluster."""


class Closed(Fatal):
    """Used after close()."""


class ForkedProcess(Fatal):
    """Used in a child process after fork(): connections, threads and sequences belong to the parent."""


class OffsetOutOfRange(Fatal):
    """The position asked for is not in the log: deleted by retention, or never written.

    Args:
        message: what happened.
        hint: what to do.
        log_start_offset: oldest offset there is; -1 where that was not asked.
        log_end_offset: the high watermark, exclusive.
        code: as in `QuorumlogError`.
    """

    def __init__(
        self, message: str, *, hint: str = "", log_start_offset: int, log_end_offset: int, code: str = "OUT_OF_RANGE"
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.log_start_offset = log_start_offset
        self.log_end_offset = log_end_offset


class Diverged(Fatal):
    """The log contradicts the position: records that were read are no longer in it.

    Args:
        message: what happened.
        hint: what to do.
        end_offset: first offset after the last record that both logs share; the safe place to go on from.
        leader_epoch: the highest epoch this log knows at or below the one asked.
        code: as in `QuorumlogError`.
    """

    def __init__(
        self, message: str, *, hint: str = "", end_offset: int, leader_epoch: int, code: str = "DIVERGED"
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.end_offset = end_offset
        self.leader_epoch = leader_epoch


@dataclass(frozen=True, slots=True)
class FailedBatch:
    """Records of one partition that were given up together."""

    topic: str
    partition: int
    count: int
    outcome: Outcome
    error: QuorumlogError
    values: Sequence[bytes | None] = ()
    keys: Sequence[bytes | None] = ()

    def __repr__(self) -> str:
        place = f"{self.topic}[{self.partition}]"
        return f"FailedBatch({place}, {self.count} records, {self.outcome.value}, {self.error.code})"


class DeliveryFailed(Fatal):
    """Records that were not delivered.

    Args:
        batches: what failed, each with its own outcome and cause. `.outcome` of the whole is NOT_APPENDED only if
            every one is.
    """

    def __init__(self, batches: Sequence[FailedBatch]) -> None:
        assert batches, "a failed delivery names what was not delivered"
        self.batches = tuple(batches)
        first = self.batches[0]
        places = sorted({f"{b.topic}[{b.partition}]" for b in self.batches})
        shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        certain = all(b.outcome is Outcome.NOT_APPENDED for b in self.batches)
        outcome = Outcome.NOT_APPENDED if certain else Outcome.UNKNOWN
        count = sum(b.count for b in self.batches)
        certainty = "none of them was appended" if certain else "some of them may have been appended"
        super().__init__(
            f"{count} record(s) for {shown} were not delivered; {certainty}; first cause: {first.error.message}",
            hint=first.error.hint,
            code=first.error.code,
            outcome=outcome,
        )

    @property
    def count(self) -> int:
        """Number of records that were not delivered."""
        return sum(b.count for b in self.batches)


_CLASSES: dict[str, type[QuorumlogError]] = {
    "INVALID_REQUEST": InvalidRequest,
    "INVALID_NAME": InvalidRequest,
    "INVALID_CONFIG": InvalidRequest,
    "INVALID_REPLICATION": InvalidRequest,
    "WRONG_CLUSTER": WrongCluster,
    "UNKNOWN_TOPIC": UnknownTopic,
    "UNKNOWN_PARTITION": UnknownPartition,
    "TOPIC_EXISTS": TopicExists,
    "NOT_LEADER": NotLeader,
    "NOT_YET_AVAILABLE": NotYetAvailable,
    "NO_LEADER": NoLeader,
    "RECORD_TOO_LARGE": RecordTooLarge,
    "BATCH_CORRUPT": BatchCorrupt,
    "PRODUCER_FENCED": Fenced,
    "UNKNOWN_MEMBER": Fenced,
    "STALE_MEMBER_EPOCH": Fenced,
    "PARTITION_NOT_OWNED": Fenced,
    "NOT_COORDINATOR": NotCoordinator,
    "GROUP_NOT_EMPTY": GroupNotEmpty,
    "UNKNOWN_GROUP": UnknownGroup,
    "THROTTLED": Throttled,
    "TIMED_OUT": TimedOut,
}

_OUTCOMES = {
    client_pb2.OUTCOME_UNSPECIFIED: Outcome.NONE,
    client_pb2.NOT_APPENDED: Outcome.NOT_APPENDED,
    client_pb2.OUTCOME_UNKNOWN: Outcome.UNKNOWN,
}


def code_name(code: int) -> str:
    """Return the name of an error code, or `CODE_<n>` for one that is newer than this client."""
    known = client_pb2.ErrorCode.DESCRIPTOR.values_by_number.get(code)
    return str(known.name) if known is not None else f"CODE_{code}"


def outcome_of(error: client_pb2.Error) -> Outcome:
    """Return the outcome an error carries; one this client does not know counts as UNKNOWN."""
    return _OUTCOMES.get(error.outcome, Outcome.UNKNOWN)


def from_wire(error: client_pb2.Error) -> QuorumlogError:
    """Turn an error of the contract into its exception.

    A code without a class of its own, or one that is newer than this client, becomes a plain `Retriable` or `Fatal`
    by its flag. The flag also wins where it disagrees with the class.
    """
    code = code_name(error.code)
    if error.code == client_pb2.OUT_OF_RANGE:
        return OffsetOutOfRange(
            error.message,
            hint=error.hint,
            log_start_offset=error.log_start_offset,
            log_end_offset=error.log_end_offset,
        )
    if error.code == client_pb2.DIVERGED:
        return Diverged(error.message, hint=error.hint, end_offset=error.end_offset, leader_epoch=error.leader_epoch)
    base: type[QuorumlogError] = Retriable if error.retriable else Fatal
    cls = _CLASSES.get(code, base)
    if not issubclass(cls, base):
        cls = base
    return cls(
        error.message or code,
        hint=error.hint,
        code=code,
        outcome=outcome_of(error),
        leader=error.leader.address,
        retry_after_seconds=error.retry_after_ms / 1000,
    )


def unexpected(doing: str, error: Exception, outcome: Outcome = Outcome.NONE) -> Fatal:
    """Return what tells those who wait of an exception that nobody has foreseen, and that ended `doing`; the exception
    is its cause."""
    failed = Fatal(
        f"{doing} ended with {type(error).__name__}: {error}",
        hint="see its cause; unless the program is ending or a callback raised it, please report it",
        outcome=outcome,
    )
    failed.__cause__ = error
    return failed

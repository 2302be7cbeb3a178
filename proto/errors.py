"""The one table of error codes: what a client may do about each, and what it means for the records of the attempt.

Data only. The node builds wire errors from it with `make_error`; node and client map its rows to their own exceptions.
Retry logic reads the flags of an error, never a list of codes, so a code added here needs no change in a client.
"""

from dataclasses import dataclass
from typing import Final

from quorumlog.proto import client_pb2 as pb

_NONE: Final = pb.OUTCOME_UNSPECIFIED
_NOT: Final = pb.NOT_APPENDED
_MAYBE: Final = pb.OUTCOME_UNKNOWN


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table.

    `retriable`: the same request may succeed later, perhaps at another node. `refresh_metadata`: what the client
    believes about topics and leaders is out of date. `outcome`: what became of the records unless the error says
    otherwise; where both are possible it is OUTCOME_UNKNOWN, since the other answer would be a promise. `grpc_status`:
    name of the grpc.StatusCode of an RPC that fails with this code. `hint`: the usual fix.
    """

    code: pb.ErrorCode.ValueType
    name: str
    retriable: bool
    refresh_metadata: bool
    outcome: pb.Outcome.ValueType
    grpc_status: str
    hint: str


def _kind(
    code: pb.ErrorCode.ValueType,
    grpc_status: str,
    outcome: pb.Outcome.ValueType,
    hint: str,
    *,
    retriable: bool = False,
    refresh: bool = False,
) -> ErrorKind:
    return ErrorKind(code, pb.ErrorCode.Name(code), retriable, refresh, outcome, grpc_status, hint)


_ROWS: Final = (
    _kind(pb.OK, "OK", _NONE, ""),
    _kind(pb.UNKNOWN, "UNKNOWN", _MAYBE, "this is a bug: look into the log of the node that answered, and report it"),
    _kind(pb.INVALID_REQUEST, "INVALID_ARGUMENT", _NOT, "correct the field named in the message"),
    _kind(pb.INVALID_NAME, "INVALID_ARGUMENT", _NOT, "use 1 to 249 of the characters a-z A-Z 0-9 . _ -"),
    _kind(pb.UNSUPPORTED_VERSION, "UNIMPLEMENTED", _NOT, "upgrade the older side, or turn the new feature off"),
    _kind(pb.WRONG_CLUSTER, "FAILED_PRECONDITION", _NOT, "check the bootstrap address: another cluster answers there"),
    # Not retriable, so that a misspelt name fails at once. A node that may merely be behind says NOT_YET_AVAILABLE.
    _kind(pb.UNKNOWN_TOPIC, "NOT_FOUND", _NOT, "create it: quorumlog topic create NAME", refresh=True),
    _kind(
        pb.UNKNOWN_PARTITION,
        "NOT_FOUND",
        _NOT,
        "partitions count from 0: see quorumlog topic describe NAME",
        refresh=True,
    ),
    _kind(
        pb.TOPIC_EXISTS,
        "ALREADY_EXISTS",
        _NONE,
        "choose another name, or take the one there is: if_not_exists=True, --if-not-exists",
    ),
    _kind(pb.INVALID_CONFIG, "INVALID_ARGUMENT", _NONE, "see quorumlog topic describe NAME for every config there is"),
    _kind(pb.INVALID_REPLICATION, "INVALID_ARGUMENT", _NONE, "ask for at most as many replicas as there are nodes"),
    _kind(pb.NOT_LEADER, "UNAVAILABLE", _NOT, "send it to the leader named in the error", retriable=True, refresh=True),
    _kind(pb.NOT_YET_AVAILABLE, "UNAVAILABLE", _NOT, "try again shortly: this replica is catching up", retriable=True),
    _kind(
        pb.NO_LEADER,
        "UNAVAILABLE",
        _NOT,
        "try again; if it stays so, too few replicas are up: quorumlog doctor",
        retriable=True,
        refresh=True,
    ),
    _kind(pb.OUT_OF_RANGE, "OUT_OF_RANGE", _NONE, "seek to earliest, latest or an offset between the two named"),
    _kind(
        pb.DIVERGED,
        "DATA_LOSS",
        _NONE,
        "the log was recovered without records that were read before: seek to `end_offset` to go on from there",
    ),
    _kind(pb.RECORD_TOO_LARGE, "INVALID_ARGUMENT", _NOT, "send smaller records or batches, or raise the topic's limit"),
    _kind(
        pb.BATCH_CORRUPT, "DATA_LOSS", _NOT, "send it again; if it repeats, memory or network is bad", retriable=True
    ),
    _kind(pb.BATCH_INVALID, "INVALID_ARGUMENT", _NOT, "encode the batch again with the current client"),
    _kind(
        pb.COMPRESSION_BOMB,
        "INVALID_ARGUMENT",
        _NOT,
        "send smaller batches, or send records that compress this well uncompressed",
    ),
    _kind(pb.OUT_OF_ORDER_SEQUENCE, "ABORTED", _NOT, "resend the batches in flight in their order", retriable=True),
    # NOT_APPENDED on a batch's first attempt, which the node knows and says; unknown on any later one.
    _kind(
        pb.UNKNOWN_PRODUCER,
        "FAILED_PRECONDITION",
        _MAYBE,
        "settle what is in flight and go on under a higher producer epoch from sequence 0",
    ),
    _kind(
        pb.PRODUCER_FENCED,
        "FAILED_PRECONDITION",
        _NOT,
        "a newer instance of this producer has taken over: close this one",
    ),
    # Appended by an earlier attempt: whoever takes it for a failure must not be told that nothing was written.
    _kind(pb.DUPLICATE_SEQUENCE, "ALREADY_EXISTS", _MAYBE, "it has been appended already: do not send it again"),
    _kind(
        pb.NOT_COORDINATOR,
        "UNAVAILABLE",
        _NONE,
        "ask FindCoordinator, and go to the node it names",
        retriable=True,
        refresh=True,
    ),
    _kind(pb.UNKNOWN_MEMBER, "NOT_FOUND", _NONE, "the member was removed or never joined: join again"),
    _kind(pb.STALE_MEMBER_EPOCH, "ABORTED", _NONE, "the group has moved on: use the epoch of the latest assignment"),
    _kind(pb.GROUP_NOT_EMPTY, "FAILED_PRECONDITION", _NONE, "stop the members of the group first"),
    _kind(pb.UNKNOWN_GROUP, "NOT_FOUND", _NONE, "see quorumlog group list; a group exists once a member has joined"),
    _kind(pb.PARTITION_NOT_OWNED, "FAILED_PRECONDITION", _NONE, "commit only partitions of the current assignment"),
    _kind(pb.THROTTLED, "RESOURCE_EXHAUSTED", _NOT, "wait `retry_after_ms`, then send again", retriable=True),
    _kind(pb.STORAGE_FULL, "RESOURCE_EXHAUSTED", _NOT, "free disk space or shorten the retention", retriable=True),
    _kind(
        pb.SHUTTING_DOWN,
        "UNAVAILABLE",
        _MAYBE,
        "go to another node: this one is stopping",
        retriable=True,
        refresh=True,
    ),
    _kind(pb.TIMED_OUT, "DEADLINE_EXCEEDED", _MAYBE, "try again; quorumlog doctor names what is slow", retriable=True),
    _kind(
        pb.NOT_FOUNDED,
        "UNAVAILABLE",
        _NOT,
        "found a cluster (quorumlog cluster init) or add the node to one",
        retriable=True,
    ),
    _kind(pb.ALREADY_FOUNDED, "ALREADY_EXISTS", _NONE, "nothing to do; a new cluster needs empty data folders"),
    _kind(
        pb.STORAGE_CORRUPT,
        "DATA_LOSS",
        _MAYBE,
        "another replica takes over; on the node named, run quorumlog doctor and check the disk",
        retriable=True,
        refresh=True,
    ),
)

ERRORS: Final[dict[int, ErrorKind]] = {row.code: row for row in _ROWS}
"""Every code of the wire's ErrorCode to its row."""


def kind_of(code: int) -> ErrorKind:
    """Return the row of `code`; for a code of a newer peer, the row of UNKNOWN with that number kept."""
    row = ERRORS.get(code)
    if row is not None:
        return row
    unknown = ERRORS[pb.UNKNOWN]
    hint = "upgrade this client: the node speaks of an error it does not know"
    return ErrorKind(
        pb.ErrorCode.ValueType(code), f"CODE_{code}", False, False, unknown.outcome, unknown.grpc_status, hint
    )


def make_error(
    code: pb.ErrorCode.ValueType,
    message: str,
    *,
    hint: str | None = None,
    outcome: pb.Outcome.ValueType | None = None,
    retriable: bool | None = None,
    leader: pb.Leader | None = None,
    end_offset: int = 0,
    leader_epoch: int = 0,
    retry_after_ms: int = 0,
    log_start_offset: int = 0,
    log_end_offset: int = 0,
) -> pb.Error:
    """Return the wire error: `message` names the thing, everything not given comes from the table."""
    row = ERRORS[code]
    return pb.Error(
        code=code,
        message=message,
        hint=row.hint if hint is None else hint,
        retriable=row.retriable if retriable is None else retriable,
        outcome=row.outcome if outcome is None else outcome,
        leader=leader,
        end_offset=end_offset,
        leader_epoch=leader_epoch,
        retry_after_ms=retry_after_ms,
        log_start_offset=log_start_offset,
        log_end_offset=log_end_offset,
    )

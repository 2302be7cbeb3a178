"""The error table and the wire's enum say the same."""

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import ERRORS, ErrorKind, kind_of, make_error

ROWS = list(ERRORS.values())


def test_every_code_has_a_row_and_every_row_a_code() -> None:
    assert set(ERRORS) == set(pb.ErrorCode.values())
    assert {row.name for row in ROWS} == set(pb.ErrorCode.keys())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_complete(row: ErrorKind) -> None:
    assert row.grpc_status in grpc.StatusCode.__members__
    assert (row.grpc_status == "OK") == (row.code == pb.OK)
    assert bool(row.hint) == (row.code != pb.OK)


def test_what_may_have_been_appended_is_never_called_not_appended() -> None:
    maybe = {row.name for row in ROWS if row.outcome == pb.OUTCOME_UNKNOWN}
    assert maybe == {
        "UNKNOWN",
        "UNKNOWN_PRODUCER",
        "DUPLICATE_SEQUENCE",
        "SHUTTING_DOWN",
        "TIMED_OUT",
        "STORAGE_CORRUPT",
    }


def test_an_error_carries_its_row() -> None:
    leader = pb.Leader(node_id=2, address="b:7070", leader_epoch=5)
    error = make_error(pb.NOT_LEADER, "node 1 does not lead orders/0", leader=leader)
    assert error.retriable
    assert error.outcome == pb.NOT_APPENDED
    assert error.hint == ERRORS[pb.NOT_LEADER].hint
    assert error.leader == leader


def test_what_is_given_wins_over_the_row() -> None:
    error = make_error(
        pb.UNKNOWN_PRODUCER, "producer 7", hint="wait", outcome=pb.NOT_APPENDED, retriable=True, log_end_offset=3
    )
    assert (error.hint, error.outcome, error.retriable, error.log_end_offset) == ("wait", pb.NOT_APPENDED, True, 3)
    assert not error.HasField("leader")


def test_a_code_of_a_newer_node_keeps_its_number() -> None:
    row = kind_of(999)
    assert (row.code, row.name, row.retriable, row.outcome) == (999, "CODE_999", False, pb.OUTCOME_UNKNOWN)
    assert kind_of(pb.THROTTLED) is ERRORS[pb.THROTTLED]

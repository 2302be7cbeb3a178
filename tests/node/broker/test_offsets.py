"""ListOffsets: by position and by time, on a node that cannot be brought down by asking."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quorumlog.node.broker import offsets
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.compression import CodecUnavailable
from tests.node.broker.lone_broker import LoneBroker, batch

BASE_MS = 1_700_000_000_000
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


@pytest.fixture(scope="module")
def node() -> LoneBroker:
    node = LoneBroker()
    node.create("t")
    node.create("empty")
    node.produce("t", *(batch([b"a", b"b"], timestamp_ms=BASE_MS + 10 * number) for number in range(3)))
    return node


def ask(node: LoneBroker, wanted: pb.ListOffsetsPartition) -> pb.ListedOffset:
    answers: list[pb.ListOffsetsResponse] = []
    node.broker.offsets.list_offsets(pb.ListOffsetsRequest(partitions=[wanted]), answers.append)
    node.pass_time(3)
    return answers[0].offsets[0]


@pytest.mark.parametrize(
    ("timestamp_ms", "offset"),
    [
        (INT64_MIN, 0),
        (-1, 0),
        (0, 0),
        (BASE_MS, 0),
        (BASE_MS + 1, 2),
        (BASE_MS + 20, 4),
        (BASE_MS + 21, 6),
        (INT64_MAX, 6),
    ],
)
def test_a_time_is_the_first_record_at_or_after_it(node: LoneBroker, timestamp_ms: int, offset: int) -> None:
    assert ask(node, pb.ListOffsetsPartition(topic="t", timestamp_ms=timestamp_ms)).offset == offset


@pytest.mark.parametrize("timestamp_ms", [INT64_MIN, 0, INT64_MAX])
def test_any_time_in_an_empty_partition_is_its_end(node: LoneBroker, timestamp_ms: int) -> None:
    assert ask(node, pb.ListOffsetsPartition(topic="empty", timestamp_ms=timestamp_ms)).offset == 0


def test_earliest_and_latest(node: LoneBroker) -> None:
    assert ask(node, pb.ListOffsetsPartition(topic="t", earliest=True)).offset == 0
    assert ask(node, pb.ListOffsetsPartition(topic="t", latest=True)).offset == 6


def test_an_offset_has_the_epoch_in_which_its_leader_proved_to_lead(
    node: LoneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof and the news of a later term may come in one turn; of that term the node is no leader."""
    group = node.broker.catalogue.topics["t"].partitions[0].group_id
    replica = node.broker.multi.replicas[group]
    term = replica.raft.term
    confirm: list[Callable[[bool], None]] = []
    monkeypatch.setattr(replica, "read_index", confirm.append)
    answers: list[pb.ListOffsetsResponse] = []
    wanted = pb.ListOffsetsPartition(topic="t", latest=True)
    node.broker.offsets.list_offsets(pb.ListOffsetsRequest(partitions=[wanted]), answers.append)
    monkeypatch.setattr(type(replica.raft), "term", term + 1)
    confirm[0](True)
    assert (answers[0].offsets[0].offset, answers[0].offsets[0].leader_epoch) == (6, term)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (pb.ListOffsetsPartition(topic="t"), pb.INVALID_REQUEST),
        (pb.ListOffsetsPartition(topic="t", partition=(1 << 32) - 1, latest=True), pb.UNKNOWN_PARTITION),
        (pb.ListOffsetsPartition(topic="none", latest=True), pb.UNKNOWN_TOPIC),
        (pb.ListOffsetsPartition(topic_id=b"x", latest=True), pb.UNKNOWN_TOPIC),
    ],
)
def test_what_is_not_there_is_named(node: LoneBroker, wanted: pb.ListOffsetsPartition, code: int) -> None:
    assert ask(node, wanted).error.code == code


def test_a_batch_that_cannot_be_opened_is_an_error_of_its_partition(
    node: LoneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> object:
        raise CodecUnavailable("ZSTD")

    monkeypatch.setattr(offsets, "open_batch", unavailable)
    answer = ask(node, pb.ListOffsetsPartition(topic="t", timestamp_ms=BASE_MS))
    assert answer.error.code == pb.UNSUPPORTED_VERSION
    assert "zstd" in answer.error.message

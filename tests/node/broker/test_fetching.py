"""Fetches: what is answered, when, and how much of a node's memory one of them may take."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quorumlog.node.broker import reading
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.compression import CodecUnavailable
from tests.node.broker.lone_broker import LoneBroker, batch


def compressible(size_bytes: int) -> bytes:
    """Bytes that gzip makes some hundred times smaller, which is less than what is taken for a bomb."""
    return (random.Random(1).randbytes(300) * (size_bytes // 300 + 1))[:size_bytes]


@pytest.fixture
def node() -> LoneBroker:
    return LoneBroker()


def fetch(node: LoneBroker, *partitions: pb.FetchPartition, **fields: Any) -> list[pb.FetchResponse]:
    """The answers to one fetch so far: none while it waits, or one."""
    answers: list[pb.FetchResponse] = []
    node.broker.fetching.fetch(pb.FetchRequest(partitions=partitions, **fields), answers.append)
    node.settle()
    return answers


def test_one_answer_stays_below_the_limit_of_a_message_whatever_is_asked_for(node: LoneBroker) -> None:
    node.create("t")
    for _ in range(20):
        node.produce("t", batch([b"x" * 900_000]))
    greedy = [pb.FetchPartition(topic="t")] * 40
    (answer,) = fetch(node, *greedy, max_bytes=(1 << 32) - 1)
    assert 8 << 20 < answer.ByteSize() < 24 << 20


def test_rows_of_batches_that_compress_well_come_a_few_at_a_time(node: LoneBroker) -> None:
    node.create("t")
    for _ in range(8):
        node.produce("t", batch([compressible(6 << 20)], compression=pb.GZIP))
    (answer,) = fetch(node, pb.FetchPartition(topic="t"), format=pb.ROWS)
    assert len(answer.partitions[0].rows.records) == 2, "as many as pass 8 MiB"


def test_a_batch_whose_rows_do_not_fit_into_an_answer_is_to_be_fetched_as_a_batch(node: LoneBroker) -> None:
    node.create("t")
    node.produce("t", batch([compressible(30 << 20)], compression=pb.GZIP))
    (answer,) = fetch(node, pb.FetchPartition(topic="t"), format=pb.ROWS)
    assert answer.partitions[0].error.code == pb.RECORD_TOO_LARGE
    assert "BATCHES" in answer.partitions[0].error.hint


def test_a_batch_that_this_node_cannot_open_fails_the_partition_and_not_the_node(
    node: LoneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.create("t")
    answers = fetch(node, pb.FetchPartition(topic="t"), format=pb.ROWS, max_wait_ms=1000)

    def unavailable(*_: object) -> list[pb.Record]:
        raise CodecUnavailable("ZSTD")

    monkeypatch.setattr(reading, "batch_to_rows", unavailable)
    node.produce("t", batch([b"x"]))
    assert answers[0].partitions[0].error.code == pb.UNSUPPORTED_VERSION
    assert "zstd" in answers[0].partitions[0].error.message


def test_a_budget_of_a_few_bytes_is_no_reason_to_read_nothing(node: LoneBroker) -> None:
    node.create("t", partitions=3)
    node.produce("t", batch([b"x" * 1000]), partition=2)
    wanted = [pb.FetchPartition(topic="t", partition=number) for number in range(3)]
    (answer,) = fetch(node, *wanted, max_bytes=1)
    assert [len(one.batches) for one in answer.partitions] == [0, 0, 1]


def test_every_partition_has_its_turn_when_one_answer_does_not_hold_them_all(node: LoneBroker) -> None:
    node.create("t", partitions=3)
    for number in range(3):
        node.produce("t", batch([b"x" * 1000]), partition=number)
    wanted = [pb.FetchPartition(topic="t", partition=number) for number in range(3)]
    served = set()
    for _ in range(3):
        (answer,) = fetch(node, *wanted, max_bytes=1)
        served |= {one.partition for one in answer.partitions if one.batches}
    assert served == {0, 1, 2}


def test_a_fetch_at_the_end_waits_for_a_record_and_not_longer_than_it_said(node: LoneBroker) -> None:
    node.create("t")
    at_end = pb.FetchPartition(topic="t")
    early, late = fetch(node, at_end, max_wait_ms=1000), fetch(node, at_end, max_wait_ms=5000)
    node.pass_time(0.9)
    assert not early
    node.pass_time(0.2)
    assert [len(one.partitions[0].batches) for one in early] == [0]
    assert not late
    node.produce("t", batch([b"x"]))
    assert [len(one.partitions[0].batches) for one in late] == [1]


def test_a_fetch_waits_for_min_bytes(node: LoneBroker) -> None:
    node.create("t")
    answers = fetch(node, pb.FetchPartition(topic="t"), max_wait_ms=5000, min_bytes=2000)
    node.produce("t", batch([b"x" * 1000]))
    assert not answers
    node.produce("t", batch([b"x" * 1000]))
    assert [len(one.partitions[0].batches) for one in answers] == [2]


def test_a_fetch_does_not_wait_for_more_than_an_answer_holds(node: LoneBroker) -> None:
    node.create("t")
    node.produce("t", *(batch([b"x" * 1000]) for _ in range(3)))
    (answer,) = fetch(node, pb.FetchPartition(topic="t"), max_wait_ms=60_000, min_bytes=1 << 31, max_bytes=2000)
    assert 1 <= len(answer.partitions[0].batches) <= 2


def test_no_fetch_waits_longer_than_a_minute(node: LoneBroker) -> None:
    node.create("t")
    answers = fetch(node, pb.FetchPartition(topic="t"), max_wait_ms=(1 << 32) - 1)
    node.pass_time(59)
    assert not answers
    node.pass_time(2)
    assert len(answers) == 1


def test_a_fetch_that_was_given_up_is_never_answered(node: LoneBroker) -> None:
    node.create("t")
    answers: list[pb.FetchResponse] = []
    request = pb.FetchRequest(partitions=[pb.FetchPartition(topic="t")], max_wait_ms=1000)
    give_up = node.broker.fetching.fetch(request, answers.append)
    give_up()
    node.produce("t", batch([b"x"]))
    node.pass_time(2)
    assert not answers


def test_a_topic_that_is_deleted_answers_who_waits_for_it(node: LoneBroker) -> None:
    topic_id = node.create("t")
    answers = fetch(node, pb.FetchPartition(topic_id=topic_id), max_wait_ms=60_000)
    node.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), lambda _: None)
    node.pass_time(1)
    assert [one.partitions[0].error.code for one in answers] == [pb.UNKNOWN_TOPIC]


def test_a_topic_that_is_deleted_while_its_records_are_read_from_disk_is_not_called_corrupt(node: LoneBroker) -> None:
    topic_id = node.create("t")
    for _ in range(4):
        node.produce("t", batch([b"x" * 900_000]))
    node.cold_reads.held = True
    answers = fetch(node, pb.FetchPartition(topic_id=topic_id))
    node.broker.admin.delete_topic(pb.DeleteTopicRequest(name="t"), lambda _: None)
    node.pass_time(1)
    assert answers == []
    node.cold_reads.release()
    node.settle()
    assert [one.partitions[0].error.code for one in answers] == [pb.UNKNOWN_TOPIC]


@pytest.mark.parametrize(
    ("offset", "code"), [(0, pb.OK), (1, pb.OK), (2, pb.OUT_OF_RANGE), ((1 << 63) - 1, pb.OUT_OF_RANGE)]
)
def test_what_is_beyond_the_end_is_out_of_range(node: LoneBroker, offset: int, code: int) -> None:
    node.create("t")
    node.produce("t", batch([b"x"]))
    (answer,) = fetch(node, pb.FetchPartition(topic="t", offset=offset))
    assert answer.partitions[0].error.code == code
    if code:
        assert (answer.partitions[0].error.log_start_offset, answer.partitions[0].error.log_end_offset) == (0, 1)


@pytest.mark.parametrize("epoch", [-(1 << 63), -1, 0, (1 << 63) - 1])
def test_no_leader_epoch_that_a_client_invents_harms_a_node(node: LoneBroker, epoch: int) -> None:
    node.create("t")
    node.produce("t", batch([b"x"]))
    (answer,) = fetch(node, pb.FetchPartition(topic="t", offset=1, last_leader_epoch=epoch))
    assert answer.partitions[0].error.code in (pb.OK, pb.DIVERGED)


def test_rows_begin_at_the_offset_asked_for_and_batches_come_whole(node: LoneBroker) -> None:
    node.create("t")
    node.produce("t", batch([b"a", b"b", b"c"]))
    (rows,) = fetch(node, pb.FetchPartition(topic="t", offset=1), format=pb.ROWS)
    assert [(row.offset, row.value) for row in rows.partitions[0].rows.records] == [(1, b"b"), (2, b"c")]
    (batches,) = fetch(node, pb.FetchPartition(topic="t", offset=1))
    assert [(one.base_offset, one.count) for one in batches.partitions[0].batches] == [(0, 3)]

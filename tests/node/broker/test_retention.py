"""Retention: what readers still find, what is cut, and whose space is given back."""

from __future__ import annotations

import pytest

from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import log_key
from quorumlog.proto import client_pb2 as pb
from tests.node.broker.lone_broker import LoneBroker, batch

MEBI = 1 << 20


@pytest.fixture
def node() -> LoneBroker:
    return LoneBroker()


def only_replica(node: LoneBroker) -> Replica:
    (partition,) = node.broker.catalogue.topics["t"].partitions
    return node.broker.multi.replicas[partition.group_id]


def fill(node: LoneBroker, batches: int) -> None:
    for _ in range(batches):
        node.produce("t", batch([b"x" * 1_000_000]))


def test_a_partition_keeps_its_size_and_gives_the_space_back_that_it_cut(node: LoneBroker) -> None:
    node.create("t", retention_bytes=str(2 * MEBI))
    fill(node, 16)
    node.pass_time(20)
    replica = only_replica(node)
    assert replica.partition is not None
    assert 10 <= replica.partition.log_start_offset <= 14
    first = replica.log.first_index()
    assert first > 1
    assert (Family.LOG, log_key(replica.group_id, 0), log_key(replica.group_id, first)) in node.reclaimed
    answers: list[pb.FetchResponse] = []
    node.broker.fetching.fetch(pb.FetchRequest(partitions=[pb.FetchPartition(topic="t")]), answers.append)
    node.settle()
    assert answers[0].partitions[0].error.code == pb.OUT_OF_RANGE
    assert answers[0].partitions[0].error.log_start_offset == replica.partition.log_start_offset


def test_records_go_when_they_are_too_old(node: LoneBroker) -> None:
    node.create("t", retention_ms="10000")
    fill(node, 3)
    replica = only_replica(node)
    assert replica.partition is not None
    node.pass_time(5)
    assert replica.partition.log_start_offset == 0
    node.pass_time(12)
    assert replica.partition.log_start_offset == replica.high_watermark == 3


def test_without_a_limit_nothing_is_trimmed(node: LoneBroker) -> None:
    node.create("t", retention_ms="-1")
    fill(node, 12)
    node.pass_time(3600)
    replica = only_replica(node)
    assert replica.partition is not None
    assert (replica.partition.log_start_offset, replica.log.first_index()) == (0, 1)


def test_an_idle_node_writes_no_trims(node: LoneBroker) -> None:
    node.create("t", retention_bytes=str(2 * MEBI))
    fill(node, 8)
    node.pass_time(60)
    last = only_replica(node).raft.last_index
    node.pass_time(600)
    assert only_replica(node).raft.last_index == last

"""Which replica a partition is read from where any of them may answer."""

import random

import pytest

from quorumlog.errors import TimedOut
from quorumlog.fetching import Fetch, FetchCore, FetchSettings
from quorumlog.metadata import MetadataCache
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from quorumlog.records import Offset, TopicPartition

TP = TopicPartition("orders", 0)
ID = b"i" * 16


def core(*, hosts: tuple[str, ...] = ("a", "b", "c"), down: tuple[int, ...] = (), seed: int = 1) -> FetchCore:
    """A consumer on host `here` that reads one partition from any of its three replicas; node 1 leads."""
    cache = MetadataCache()
    nodes = [
        pb.NodeInfo(node_id=n, address=f"node-{n}:7070", host=host, up=n not in down) for n, host in enumerate(hosts, 1)
    ]
    topic = pb.TopicMetadata(name="orders", topic_id=ID)
    leader = pb.Leader(node_id=1, address="node-1:7070", leader_epoch=1)
    topic.partitions.add(partition=0, leader=leader, replicas=[1, 2, 3])
    cache.update(pb.MetadataResponse(nodes=nodes, topics=[topic]))
    consumer = FetchCore(FetchSettings(any_replica=True), cache, random.Random(seed), "here")
    consumer.add(TP, ID, Offset(0))
    return consumer


def only(consumer: FetchCore, now: float = 0.0) -> Fetch:
    (fetch,) = consumer.fetches(now)
    return fetch


def refuse(consumer: FetchCore, fetch: Fetch, code: pb.ErrorCode.ValueType) -> None:
    part = pb.FetchedPartition(topic="orders", topic_id=ID, error=make_error(code, "not here"))
    consumer.fetched(fetch, pb.FetchResponse(partitions=[part]), 0.0)


def test_consumers_spread_over_the_replicas() -> None:
    assert {only(core(seed=seed)).address for seed in range(50)} == {"node-1:7070", "node-2:7070", "node-3:7070"}


def test_a_replica_on_the_same_machine_is_preferred() -> None:
    assert {only(core(hosts=("a", "b", "here"), seed=seed)).address for seed in range(20)} == {"node-3:7070"}


def test_a_node_that_is_down_is_not_chosen() -> None:
    assert {only(core(hosts=("a", "b", "here"), down=(1, 3), seed=seed)).address for seed in range(20)} == {
        "node-2:7070"
    }


def test_a_partition_stays_with_its_replica() -> None:
    consumer = core()
    fetch = only(consumer)
    consumer.fetched(fetch, pb.FetchResponse(partitions=[pb.FetchedPartition(topic="orders", topic_id=ID)]), 0.0)
    assert only(consumer).address == fetch.address


@pytest.mark.parametrize("code", [pb.NOT_LEADER, pb.NOT_YET_AVAILABLE])
def test_every_other_replica_is_asked_at_once_when_one_refuses(code: pb.ErrorCode.ValueType) -> None:
    consumer = core(hosts=("a", "here", "c"))
    asked = []
    for _ in range(3):
        fetch = only(consumer)
        asked.append(fetch.address)
        refuse(consumer, fetch, code)
    assert asked[0] == "node-2:7070"
    assert sorted(asked) == ["node-1:7070", "node-2:7070", "node-3:7070"]
    assert consumer.fetches(0.0) == [], "all have refused: only time helps"
    assert only(consumer, 10.0).address == asked[0]


def test_a_node_that_does_not_answer_is_left_and_asked_about() -> None:
    consumer = core(hosts=("a", "here", "c"))
    consumer.failed(only(consumer), TimedOut("no answer"), 0.0)
    assert consumer.leaderless == {"orders"}
    assert only(consumer, 10.0).address != "node-2:7070"

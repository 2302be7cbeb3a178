"""What is told of partitions that nobody leads, and what to do about it."""

import asyncio
import random

import pytest

from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import Cluster
from quorumlog.cli.waiting import Waiting
from quorumlog.clock import monotonic
from quorumlog.errors import ConnectionFailed, NoLeader
from quorumlog.proto import client_pb2 as pb
from quorumlog.waiting import Wait

ELECTION = "an election is under way"


def address_of(node_id: int) -> str:
    """Where nothing listens."""
    return f"127.0.0.1:{node_id}"


async def presence(connection: Connection, seconds: float) -> None:
    """Ask whether a node is there."""
    await connection.log.Metadata(pb.MetadataRequest(no_topics=True), timeout=seconds)


def hint_of(*, leaderless: int = 1, down: tuple[int, ...] = (), silent: tuple[int, ...] = ()) -> tuple[str, str]:
    """Message and hint for a topic of which nobody leads the first partitions; they have their replicas on the nodes 1
    to 3 of four."""
    told: list[Wait] = []
    cluster = Cluster([address_of(1)], "test", random.Random(0), told.append)
    partitions = [pb.PartitionMetadata(partition=number, replicas=[1, 2, 3]) for number in range(leaderless)]
    nodes = [pb.NodeInfo(node_id=n, address=address_of(n), up=n not in down) for n in range(1, 5)]
    topic = pb.TopicMetadata(name="orders", topic_id=b"t" * 16, partitions=partitions)
    cluster.cache.update(pb.MetadataResponse(cluster_id=b"c" * 16, nodes=nodes, topics=[topic]))

    async def wait() -> None:
        for number in silent:
            with pytest.raises(ConnectionFailed):
                await cluster.ask(address_of(number), presence, 20.0)
        cluster.waiting_for_leaders(["orders", "unknown"], monotonic())
        await cluster.close()

    asyncio.run(wait())
    (only,) = told
    assert isinstance(only.cause, NoLeader)
    return only.cause.message, only.cause.hint


def test_without_a_node_that_is_down_an_election_is_under_way() -> None:
    assert hint_of() == ("nobody leads orders[0]", ELECTION)
    assert hint_of(down=(4,)) == ("nobody leads orders[0]", ELECTION)
    assert hint_of(leaderless=5) == ("nobody leads orders[0], orders[1], orders[2] and 2 more", ELECTION)


def test_nodes_that_are_down_are_named() -> None:
    fix = "start the nodes that are down (2, 3): a majority of the replicas must run"
    assert hint_of(down=(2, 3)) == ("nobody leads orders[0]", fix)
    assert hint_of(down=(3,), silent=(2,)) == ("nobody leads orders[0]", fix)


def test_the_same_wait_is_told_again_when_there_is_something_else_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting()
    for hint in (ELECTION, ELECTION, "start the nodes that are down (2)", ELECTION):
        waiting(Wait(NoLeader("nobody leads orders[0]", hint=hint), 2.0, hopeless=False))
    assert capsys.readouterr().err.splitlines() == [
        "quorumlog: waiting: nobody leads orders[0] (an election is under way)",
        "quorumlog: waiting: nobody leads orders[0] (start the nodes that are down (2))",
    ]

"""Processes die or freeze in the middle of a stream: nothing acknowledged is lost, doubled or out of order.

SIGKILL takes the process and leaves the kernel's page cache alone: what a node had written is there when it comes back,
synced or not. So these tests say nothing about a power cut. That an acknowledged record outlives one rests on the tests
named `test_sync_before_ack.py` (here with processes whose syncs are held back, in `tests/simulation` on storage whose
`crash()` drops what was not synced) and on the seeds of `tests/simulation/test_cluster.py`, which crash nodes that way.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.integration.cluster import LocalCluster, eventually
from tests.integration.stream import Stream, check_everywhere

PARTITIONS = 3
SOME = 50
"""Acks per partition between two events."""


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that every test here leaves up again."""
    cluster = LocalCluster(tmp_path_factory.mktemp("kill"))
    try:
        yield cluster.up()
    finally:
        cluster.clean_up()
    assert cluster.bugs() == []


def test_leader_killed_in_the_middle_of_a_stream(trio: LocalCluster) -> None:
    trio.create_topic("leader-killed", PARTITIONS)
    with Stream(trio, "leader-killed", PARTITIONS) as stream:
        stream.until_more(SOME)
        victim = trio.leader("leader-killed")
        before = victim.replica("leader-killed", 0)
        victim.kill()
        stream.until_more(SOME)
        after = trio.leader("leader-killed").replica("leader-killed", 0)
        assert before is not None
        assert after is not None
        assert after.leader_epoch > before.leader_epoch
        victim.start()
        stream.until_more(SOME)
    print(f"longest stall of a partition {stream.longest_stall_seconds:.2f} s")
    check_everywhere(trio, "leader-killed", PARTITIONS, stream.acks)


def test_follower_killed_in_the_middle_of_a_stream(trio: LocalCluster) -> None:
    trio.create_topic("follower-killed", 1)
    with Stream(trio, "follower-killed", 1) as stream:
        stream.until_more(SOME)
        leader = trio.leader("follower-killed")
        victim = next(node for node in trio.nodes if node is not leader)
        victim.kill()
        stream.until_more(SOME)
        victim.start()
        stream.until_more(SOME)
    check_everywhere(trio, "follower-killed", 1, stream.acks)


def test_all_nodes_killed_at_once_and_started_again(trio: LocalCluster) -> None:
    trio.create_topic("all-killed", PARTITIONS)
    with Stream(trio, "all-killed", PARTITIONS) as stream:
        stream.until_more(SOME)
        for node in trio.nodes:
            node.signal(signal.SIGKILL)
        for node in trio.nodes:
            node.wait()
        trio.start()
        stream.until_more(SOME)
    trio.until_ready()
    check_everywhere(trio, "all-killed", PARTITIONS, stream.acks)
    for node in trio.nodes:
        status = node.status()
        assert status is not None
        assert status.state == "member", "a killed process alone never leads to REPAIR"


def test_frozen_leader_is_replaced_and_follows_when_it_thaws(trio: LocalCluster) -> None:
    trio.create_topic("leader-frozen", 1)
    with Stream(trio, "leader-frozen", 1) as stream:
        stream.until_more(SOME)
        frozen = trio.leader("leader-frozen")
        frozen.signal(signal.SIGSTOP)
        stream.until_more(SOME)
        frozen.signal(signal.SIGCONT)
        stream.until_more(SOME)

        def follows() -> bool:
            replica = frozen.replica("leader-frozen", 0)
            return replica is not None and replica.role == "follower" and replica.leader_node_id != 0

        eventually("the thawed leader follows", follows)
    check_everywhere(trio, "leader-frozen", 1, stream.acks)

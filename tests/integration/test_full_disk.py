"""A disk that is nearly full: records are refused in time. One that is full: the node ends, the others go on."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess, eventually
from tests.integration.conftest import MakeCluster
from tests.integration.stream import Stream, check_everywhere

DISK_BYTES = 64 << 20
ROOM_BYTES = 64 << 10
"""By which the longest file may still grow once growth is forbidden."""
SOME = 50


def produce(node: NodeProcess, topic: str) -> pb.ProduceResult:
    rows = pb.Rows(records=[pb.Record(value=b"x")])
    request = pb.ProduceRequest(batches=[pb.PartitionBatch(topic=topic, rows=rows)])
    (result,) = node.log.ProduceOnce(request, timeout=20.0).results
    return result


def test_records_are_refused_before_the_disk_is_full(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=1).up()
    (node,) = cluster.nodes
    cluster.create_topic("nearly-full")
    assert not produce(node, "nearly-full").HasField("error")
    assert node.stop() == 0
    node.configure(disk_free_bytes_min=1 << 60)
    node.start()
    cluster.until_ready()

    error = produce(node, "nearly-full").error
    assert error.code == pb.STORAGE_FULL
    assert error.outcome == pb.NOT_APPENDED
    assert error.retriable
    for word in ("node 1", str(node.data), f"disk_free_bytes_min = {1 << 60}"):
        assert word in error.message
    assert "free disk space or shorten the retention" in error.hint
    assert [record.value for record in node.read("nearly-full", 0, 1)] == [b"x"], "reading goes on"
    cluster.create_topic("another")  # as does everything that may be needed to make room
    status = node.status()
    assert status is not None
    (finding,) = status.findings
    assert (finding.severity, finding.subject, finding.message) == (pb.PROBLEM, "node 1", error.message)
    assert finding.fix == "free disk space, or shorten the retention of topics"
    assert f"the disk of {node.data} has only" in node.output()

    assert node.stop() == 0
    node.configure()
    node.start()
    cluster.until_ready()
    assert not produce(node, "nearly-full").HasField("error")
    assert [record.value for record in node.read("nearly-full", 0, 2)] == [b"x", b"x"], "what was refused is not there"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def cramped(make_cluster: MakeCluster, small_disk: Path) -> LocalCluster:
    """Three nodes, the data of node 1 on the small disk; its own guard is off, as if another program filled it."""
    cluster = make_cluster()
    cluster.node(1).configure(data=str(small_disk / "data"), disk_free_bytes_min=0)
    return cluster.up()


either_role = pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])


@either_role
def test_full_disk_ends_one_node_and_loses_nothing(cramped: LocalCluster, small_disk: Path, leads: bool) -> None:
    filler = small_disk / "filler"

    def lift() -> None:
        filler.unlink()

    fail_writes(cramped, leads, lambda: fill(filler), "No space left on device", lift, data=small_disk / "data")


@either_role
def test_writes_that_fail_end_one_node_and_lose_nothing(cluster: LocalCluster, leads: bool) -> None:
    """As above wherever it runs: files of node 1 may grow no further, which its database meets like a full disk."""
    node = cluster.node(1)

    def forbid_growth() -> None:
        files = [path for path in node.data.rglob("*") if path.is_file()]
        limit = max(path.stat().st_size for path in (*files, node.log_path)) + ROOM_BYTES
        _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (limit, hard))

    # The limit is that of the process, and ends with it.
    fail_writes(cluster, leads, forbid_growth, "File too large", lambda: None, data=node.data)


def fail_writes(
    cluster: LocalCluster,
    leads: bool,
    begin: Callable[[], None],
    reason: str,
    lift: Callable[[], None],
    *,
    data: Path,
) -> None:
    """Let the writes of node 1 fail in the middle of a stream: it ends, the others go on, and it comes back whole."""
    cluster.create_topic("full")
    node = cluster.node(1)
    move_to = node if leads else cluster.node(2)
    request = pb.TransferLeadershipRequest(topic="full", partition=0, to_node_id=move_to.node_id)
    leader = cluster.leader("full")
    if leader is not move_to:
        leader.admin.TransferLeadership(request, timeout=10.0)
        eventually("it leads as wished", lambda: cluster.leader("full") is move_to)

    with Stream(cluster, "full", 1) as stream:
        stream.until_more(SOME)
        begin()
        assert node.wait(60) == 1
        stream.until_more(SOME)
        last = node.output().strip().splitlines()[-1]
        assert last.startswith("quorumlog node: "), node.output()
        assert str(data) in last
        assert reason in last
        assert "start the node again" in last
        acked = max(ack.offset for ack in stream.acks) + 1
        for other in (cluster.node(2), cluster.node(3)):
            assert len(other.read("full", 0, acked)) >= acked, "reading goes on"
        lift()
        node.start()
        stream.until_more(SOME)
    cluster.until_ready()
    check_everywhere(cluster, "full", 1, stream.acks)
    status = node.status()
    assert status is not None
    assert status.state == "member", "a write that failed is no reason for REPAIR"


def fill(path: Path) -> None:
    """Take every byte there is."""
    with path.open("wb", buffering=0) as file:
        block = bytes(1 << 20)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
        os.fsync(file.fileno())

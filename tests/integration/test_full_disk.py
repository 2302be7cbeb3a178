"""A disk that is nearly full: records are refused in time. One that is full: the node ends, the others go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess, eventually
from tests.integration.conftest import MakeCluster
from tests.integration.stream import Stream, check_everywhere

DISK_BYTES = 64 << 20
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
    assert [one for one in status.findings if "disk" in one.message and one.fix]


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


@pytest.mark.parametrize("leads", [True, False], ids=["leader", "follower"])
def test_full_disk_ends_one_node_and_loses_nothing(cramped: LocalCluster, small_disk: Path, leads: bool) -> None:
    cramped.create_topic("full")
    node = cramped.node(1)
    move_to = node if leads else cramped.node(2)
    request = pb.TransferLeadershipRequest(topic="full", partition=0, to_node_id=move_to.node_id)
    leader = cramped.leader("full")
    if leader is not move_to:
        leader.admin.TransferLeadership(request, timeout=10.0)
        eventually("it leads as wished", lambda: cramped.leader("full") is move_to)

    filler = small_disk / "filler"
    with Stream(cramped, "full", 1) as stream:
        stream.until_more(SOME)
        fill(filler)
        assert node.wait(60) == 1
        stream.until_more(SOME)
        last = node.output().strip().splitlines()[-1]
        assert last.startswith("quorumlog node: "), node.output()
        assert str(small_disk / "data") in last
        assert "No space left on device" in last
        filler.unlink()
        node.start()
        stream.until_more(SOME)
    cramped.until_ready()
    check_everywhere(cramped, "full", 1, stream.acks)


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

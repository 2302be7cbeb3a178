"""Programs that start a cluster of their own leave nothing behind, however they end."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import quorumlog
from quorumlog.dev_cluster import DevCluster, DevClusterFailed
from tests.integration.cluster import eventually

SECONDS = 60.0


@pytest.fixture(autouse=True)
def temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made, here and in processes started from here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def processes_of(folder: Path) -> list[int]:
    """The processes that name something in `folder` on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                named = str(folder).encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if named:
                found.append(int(entry.name))
    return found


def test_a_cluster_serves_and_is_gone_afterwards(tmp_path: Path) -> None:
    with DevCluster(1, random.Random()) as cluster:
        assert [node.pid for node in cluster.nodes.values()] != []
        assert set(processes_of(tmp_path)) >= {node.pid for node in cluster.nodes.values()}
        assert cluster.nodes[1].config.is_file()
        with quorumlog.connect(cluster.bootstrap) as client:
            assert client.topics.list() == []
    assert processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_stops_when_a_node_was_killed(tmp_path: Path) -> None:
    with DevCluster(1, random.Random()) as cluster:
        cluster.keep_folder = True
        os.kill(cluster.nodes[1].pid, signal.SIGKILL)
    assert processes_of(tmp_path) == []
    assert cluster.data.is_dir(), "kept, because somebody wants to look at it"


def test_a_cluster_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(DevClusterFailed, match=r"quorumlog dev ended: .*--nodes 99") as caught,
        DevCluster(99, random.Random()),
    ):
        pytest.fail("it has come up")
    assert "pip install 'quorumlog[node]'" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_bench_that_is_ended_leaves_no_nodes(number: signal.Signals, tmp_path: Path) -> None:
    bench = subprocess.Popen(
        [sys.executable, "-m", "quorumlog", "bench", "latency", "--seconds", "600", "-p", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually("its nodes run", lambda: len(list(tmp_path.glob("*/data/node-*/node.pid"))) == 3)
        bench.send_signal(number)
        out, err = bench.communicate(timeout=SECONDS)
    finally:
        bench.kill()
        bench.wait()
    assert (bench.returncode, out, err) == (130, "", "")
    eventually("no process is left", lambda: not processes_of(tmp_path))
    assert list(tmp_path.iterdir()) == []

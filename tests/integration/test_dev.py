"""`quorumlog dev`: the lines it prints, what it does when a node dies, and what it leaves behind when it is stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.client_pb2_grpc import AdminStub
from tests.integration.cluster import eventually, free_ports

NODE_LINE = re.compile(r"node (\d) pid (\d+) (127\.0\.0\.1:\d+)")
LINE_SECONDS = 60.0


class Dev:
    """The program in the foreground of a terminal of its own, and what it prints."""

    def __init__(self, *arguments: object, prefix: Sequence[str] = ()) -> None:
        program = "import sys; from quorumlog.cli.main import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", program, "dev", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.nodes: dict[int, tuple[int, str]] = {}

    def line(self) -> str:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.process.stderr.read() if self.process.stderr else ''}"
        return line.rstrip("\n")

    def until_ready(self, nodes: int = 3) -> str:
        """Read the lines of a start; returns the bootstrap addresses."""
        for number in range(1, nodes + 1):
            found = NODE_LINE.fullmatch(self.line())
            assert found is not None
            assert int(found[1]) == number
            self.nodes[number] = (int(found[2]), found[3])
        ready = self.line()
        assert ready == "ready " + ",".join(address for _, address in self.nodes.values())
        return ready.removeprefix("ready ")

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal that goes to the whole foreground group."""
        os.killpg(self.process.pid, number)
        return self.process.wait(40)

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(40)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


MakeDev = Callable[..., Dev]


@pytest.fixture
def make_dev() -> Iterator[MakeDev]:
    made: list[Dev] = []

    def make(*arguments: object, prefix: Sequence[str] = ()) -> Dev:
        made.append(Dev(*arguments, prefix=prefix))
        return made[-1]

    yield make
    for dev in made:
        dev.clean_up()


def status(address: str) -> pb.StatusResponse | None:
    with grpc.insecure_channel(address) as channel:
        try:
            return AdminStub(channel).Status(pb.StatusRequest(), timeout=5.0)
        except grpc.RpcError:
            return None


def runs(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def ports_in_a_row() -> int:
    """A first port with room for three client ports and, a hundred above, three peer ports."""

    def look() -> int | None:
        (first,) = free_ports(1)
        for port in [*range(first, first + 3), *range(first + 100, first + 103)]:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return None
        return first

    return eventually("six free ports", look)


def test_dev_prints_its_nodes_and_ready_and_never_restarts_one(make_dev: MakeDev, tmp_path: Path) -> None:
    data, port = tmp_path / "data", ports_in_a_row()
    dev = make_dev("--nodes", 3, "--port", port, "--data", data)
    bootstrap = dev.until_ready()
    assert bootstrap == ",".join(f"127.0.0.1:{port + number}" for number in range(3))
    assert all((data / f"node-{number}" / "node.toml").exists() for number in (1, 2, 3))

    pid, address = dev.nodes[1]
    os.kill(pid, signal.SIGKILL)
    config = data / "node-1" / "node.toml"
    assert dev.line() == f"node 1 exited (signal 9); start again: quorumlog node --config {config}"
    other = dev.nodes[2][1]
    eventually(
        "the others go on without it",
        lambda: (found := status(other)) is not None and found.cluster_leader.node_id in (2, 3),
    )
    assert status(address) is None, "dev does not start it again"

    by_hand = subprocess.Popen(
        [sys.executable, "-m", "quorumlog.node", "--config", config], stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        eventually("the node started by hand serves", lambda: (found := status(address)) and found.state == "member")
        assert dev.interrupt() == 0
        assert by_hand.wait(20) == 0, "Ctrl-C stops a node that was started again by hand as well"
    finally:
        by_hand.kill()
        by_hand.wait()
    for pid, _ in dev.nodes.values():
        assert not runs(pid)


def test_dev_starts_again_from_its_data(make_dev: MakeDev, tmp_path: Path) -> None:
    first = make_dev("--port", 0, "--data", tmp_path / "data")
    before = status(first.until_ready().split(",")[0])
    assert first.interrupt() == 0
    second = make_dev("--data", tmp_path / "data")
    after = status(second.until_ready().split(",")[0])
    assert second.nodes.keys() == first.nodes.keys()
    assert [address for _, address in second.nodes.values()] == [address for _, address in first.nodes.values()]
    assert before is not None
    assert after is not None
    assert before.cluster_id == after.cluster_id, "founded once"
    assert second.interrupt() == 0


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_dev_without_data_leaves_nothing_behind(make_dev: MakeDev, ending: signal.Signals) -> None:
    dev = make_dev("--port", 0, "--nodes", 1)
    dev.until_ready(1)
    (pid, _) = dev.nodes[1]
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    folder = Path(command[command.index(b"--config") + 1].decode()).parents[1]
    assert folder.is_dir()
    assert dev.interrupt(ending) == 0
    assert not runs(pid)
    assert not folder.exists()


def test_dev_under_nohup_outlives_its_terminal(make_dev: MakeDev) -> None:
    dev = make_dev("--port", 0, "--nodes", 1, prefix=["nohup"])
    dev.until_ready(1)
    dev.process.send_signal(signal.SIGHUP)
    os.kill(dev.nodes[1][0], signal.SIGKILL)
    assert dev.line().startswith("node 1 exited (signal 9)"), "it still watches"
    assert dev.interrupt() == 0


def test_dev_whose_first_start_was_cut_short_starts_the_second_time(make_dev: MakeDev, tmp_path: Path) -> None:
    in_the_way = tmp_path / "node-2"
    in_the_way.write_text("in the way")
    first = make_dev("--port", 0, "--data", tmp_path)
    said, errors = first.process.communicate(timeout=60)
    assert first.process.returncode == 1
    assert f"the folder {in_the_way} cannot be used" in errors
    assert said == "", "no node was started"

    in_the_way.unlink()
    (tmp_path / "node-1" / "node.toml.new").write_text("node_")
    second = make_dev("--port", 0, "--data", tmp_path)
    second.until_ready()
    assert second.interrupt() == 0


def test_second_dev_on_the_same_data_says_so_and_harms_nothing(make_dev: MakeDev, tmp_path: Path) -> None:
    first = make_dev("--port", 0, "--nodes", 1, "--data", tmp_path / "data")
    address = first.until_ready(1)
    config = (tmp_path / "data/node-1/node.toml").read_text()
    second = make_dev("--port", 0, "--nodes", 1, "--data", tmp_path / "data")
    _, errors = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"in use by process {first.nodes[1][0]}" in errors
    assert "another --data" in errors
    assert status(address) is not None, "the first one goes on"
    assert (tmp_path / "data/node-1/node.toml").read_text() == config, "with its configuration"
    assert first.interrupt() == 0


def test_dev_on_ports_that_are_taken_names_them(make_dev: MakeDev, tmp_path: Path) -> None:
    port = ports_in_a_row()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + 1))
        other.listen()
        dev = make_dev("--port", port, "--data", tmp_path / "data")
        _, errors = dev.process.communicate(timeout=60)
    assert dev.process.returncode == 1
    assert f"127.0.0.1:{port + 1}" in errors
    assert "--port" in errors


def test_dev_does_not_take_the_cluster_that_has_its_ports_for_its_own(make_dev: MakeDev, tmp_path: Path) -> None:
    port = ports_in_a_row()
    first = make_dev("--port", port, "--nodes", 1, "--data", tmp_path / "first")
    first.until_ready(1)
    second = make_dev("--port", port, "--nodes", 1, "--data", tmp_path / "second")
    said, errors = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert "ready" not in said
    assert f"cannot listen on 127.0.0.1:{port}" in errors
    assert "--port" in errors


def test_dev_with_a_folder_that_cannot_be_used_says_so(make_dev: MakeDev, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    dev = make_dev("--port", 0, "--nodes", 1, "--data", tmp_path / "file")
    _, errors = dev.process.communicate(timeout=60)
    assert dev.process.returncode == 1
    assert f"the folder {tmp_path / 'file' / 'node-1'} cannot be used: Not a directory" in errors
    assert "--data" in errors


def test_dev_with_another_number_of_nodes_than_its_data(make_dev: MakeDev, tmp_path: Path) -> None:
    first = make_dev("--port", 0, "--nodes", 1, "--data", tmp_path / "data")
    first.until_ready(1)
    assert first.interrupt() == 0
    for nodes in (2, 3):
        second = make_dev("--port", 0, "--nodes", nodes, "--data", tmp_path / "data")
        _, errors = second.process.communicate(timeout=60)
        assert second.process.returncode == 1
        assert f"holds 1 nodes, --nodes says {nodes}" in errors


def test_dev_on_other_ports_than_its_data(make_dev: MakeDev, tmp_path: Path) -> None:
    port, other = ports_in_a_row(), ports_in_a_row()
    first = make_dev("--port", port, "--nodes", 1, "--data", tmp_path / "data")
    first.until_ready(1)
    assert first.interrupt() == 0
    second = make_dev("--port", other, "--nodes", 1, "--data", tmp_path / "data")
    _, errors = second.process.communicate(timeout=60)
    assert second.process.returncode == 1
    assert f"from port {port} on" in errors
    assert f"--port says {other}" in errors
    assert "leave --port out" in errors


@pytest.mark.parametrize(("option", "value"), [("--nodes", 0), ("--nodes", 12), ("--port", 70000)])
def test_dev_with_numbers_that_cannot_be(make_dev: MakeDev, option: str, value: int) -> None:
    dev = make_dev(option, value)
    _, errors = dev.process.communicate(timeout=60)
    assert dev.process.returncode == 2
    assert f"{option} {value}" in errors

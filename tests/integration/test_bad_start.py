"""A node that cannot start as it is asked to: it ends with a message that names the thing and the fix."""

import shutil
import socket
from pathlib import Path

import pytest

from quorumlog.node.config import ConfigError, load_config
from quorumlog.node.pidfile import serving_pid
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.crc32c import crc32c
from tests.integration.cluster import LocalCluster, NodeProcess, eventually, free_ports


@pytest.fixture
def node(tmp_path: Path) -> NodeProcess:
    """One node that was never started; ended by the tests themselves."""
    ports = free_ports(2)
    return NodeProcess(1, tmp_path / "node-1", (ports[0], ports[1]), {})


def fails_to_start(node: NodeProcess, *words: str) -> int:
    """Start the node, which ends by itself with one last line that has all `words`; returns its exit code."""
    node.start()
    try:
        code = node.wait()
    finally:
        node.clean_up()
    last = node.output().strip().splitlines()[-1]
    assert last.startswith("quorumlog node: "), node.output()
    for word in words:
        assert word in last, last
    return code


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("heartbeat_ticks = 9", ("heartbeat_ticks = 9", "election_ticks = 10", "contradict")),
        ('peer_address = "127.0.0.1:7070"', ("client_address and peer_address", "a port each")),
        ('client_advertised = "example.org"', ("client_advertised", "host:port")),
        ("node_id = 0", ("node_id = 0", "from 1 on")),
        ('cluster_id = "orders"', ("cluster_id", "UUID", "cluster status")),
        ("tick_secs = 1.0", ("'tick_secs'", "did you mean tick_seconds")),
        ('tick_seconds = "fast"', ("tick_seconds = 'fast'", "float")),
        ('log_level = "loud"', ("log_level", "debug, info")),
        ("tick_seconds = ", ("is not TOML",)),
    ],
)
def test_configuration_that_cannot_be(tmp_path: Path, lines: str, words: tuple[str, ...]) -> None:
    settings = {
        "node_id": "1",
        "data": '"data"',
        "client_address": '"127.0.0.1:7070"',
        "peer_address": '"127.0.0.1:7170"',
        lines.partition(" = ")[0]: lines.partition(" = ")[2],
    }
    path = tmp_path / "node.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    with pytest.raises(ConfigError) as refused:
        load_config(path)
    assert str(path) in str(refused.value)
    for word in words:
        assert word in str(refused.value)


def test_configuration_without_a_setting_or_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*node\.toml.*--config"):
        load_config(tmp_path / "node.toml")
    (tmp_path / "node.toml").write_text("node_id = 1\n")
    with pytest.raises(ConfigError, match="'data' is missing"):
        load_config(tmp_path / "node.toml")


def test_contradiction_ends_the_program_before_anything_is_opened(node: NodeProcess) -> None:
    node.configure(heartbeat_ticks=9)
    assert fails_to_start(node, "node.toml", "heartbeat_ticks = 9", "must wait for at least two heartbeats") == 2
    assert not node.data.exists()


@pytest.mark.parametrize("setting", ["client_address", "peer_address"])
def test_port_that_is_taken(node: NodeProcess, setting: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        node.configure(**{setting: address})
        assert fails_to_start(node, setting, address, "taken by another process", "choose another port") == 1


# --------------------------------------------------------------------------------------------------------- data folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> LocalCluster:
    """A founded cluster of one node, stopped."""
    cluster = LocalCluster(tmp_path_factory.mktemp("stopped"), nodes=1)
    try:
        cluster.up()
        assert cluster.nodes[0].stop() == 0
    finally:
        cluster.clean_up()
    return cluster


@pytest.fixture
def member(stopped: LocalCluster, node: NodeProcess) -> NodeProcess:
    """A node with a copy of that cluster's data folder."""
    shutil.copytree(stopped.nodes[0].data, node.data)
    return node


def test_data_folder_of_another_node(member: NodeProcess) -> None:
    member.configure(node_id=2)
    assert fails_to_start(member, str(member.data), "belongs to node 1", "configured as node 2", "node_id = 1") == 1


def test_data_folder_of_another_cluster(member: NodeProcess) -> None:
    other = "00112233445566778899aabbccddeeff"
    member.configure(cluster_id=other)
    assert fails_to_start(member, str(member.data), "belongs to cluster", f"not to {other}", "point the node") == 1


def test_data_folder_of_a_newer_format(member: NodeProcess) -> None:
    path = member.data / "identity"
    text = b'{"format_version": 9, "oldest_version": 9}\n'
    path.write_bytes(text + b"crc32c %08x\n" % crc32c(text))
    assert fails_to_start(member, str(path), "format version 9", "start the newer program again") == 1


def test_data_folder_in_use(member: NodeProcess, tmp_path: Path) -> None:
    member.start()
    try:
        member.until_waiting()
        ports = free_ports(2)
        second = NodeProcess(1, tmp_path / "second", (ports[0], ports[1]), {"data": str(member.data)})
        assert fails_to_start(second, str(member.data), f"in use by process {member.pid}", "another folder") == 1
        assert member.status() is not None, "the first one goes on"
        assert serving_pid(member.data) == member.pid, "and whoever owns the folder still finds it"
    finally:
        member.clean_up()


def test_wiped_folder_of_a_known_node_that_no_majority_admits(cluster: LocalCluster) -> None:
    cluster.create_topic("wiped")
    wiped, down = cluster.node(3), cluster.node(2)
    before = wiped.status()
    assert before is not None
    assert wiped.stop() == 0
    down.kill()

    def stands_still() -> bool:
        replica = cluster.node(1).replica("__cluster", 0)
        return replica is not None and not replica.leader_node_id

    eventually("nobody leads the metadata group", stands_still)
    kept = wiped.folder / "kept"
    wiped.data.rename(kept)
    wiped.start()
    wiped.until_waiting()

    def problems(node: NodeProcess) -> list[pb.Finding]:
        status = node.status()
        found = [one for one in status.findings if one.severity == pb.PROBLEM] if status is not None else []
        return [one for one in found if one.subject == "node 3"]

    # The wiped node says it of itself as the others say it of it: in the same words, which doctor shows once.
    (told,) = eventually("node 1 says what is wrong", lambda: problems(cluster.node(1)))
    (own,) = eventually("the wiped node says what is wrong", lambda: problems(wiped))
    assert own == told
    status = wiped.status()
    assert status is not None
    assert status.state == "waiting"
    for word in (
        f"cluster {before.cluster_id.hex()} knows node 3 under incarnation {before.incarnation.hex()}",
        f"data folder {wiped.data} has incarnation {status.incarnation.hex()}",
        "wiped or exchanged",
    ):
        assert word in own.message
    for word in ("a majority of the others", "admit it as a new incarnation", "an older copy has forgotten"):
        assert word in own.fix
    assert "cluster init" not in own.fix
    warned = [line for line in wiped.output().splitlines() if "WARNING" in line and "wiped or exchanged" in line]
    assert len(warned) == 1, "once per cause, although the record is handed over again and again"
    assert own.fix in warned[0]

    # Either fix is one: its own folder, before it was admitted ...
    assert wiped.stop() == 0
    shutil.rmtree(wiped.data)
    kept.rename(wiped.data)
    wiped.start()
    down.start()
    cluster.until_ready()
    after = wiped.status()
    assert after is not None
    assert after.incarnation == before.incarnation
    # ... or a majority that admits it.
    assert wiped.stop() == 0
    shutil.rmtree(wiped.data)
    wiped.start()
    eventually("it is a member again", lambda: (found := wiped.status()) is not None and found.state == "member")
    assert problems(wiped) == []

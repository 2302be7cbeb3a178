"""Real nodes: processes with a folder each, found by address, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import grpc

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.client_pb2_grpc import AdminStub, GroupsStub, LogStub

T = TypeVar("T")

READY_SECONDS = 30.0
PROBE_SECONDS = 0.02
CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
)
FAST = {"tick_seconds": 0.05, "disk_free_bytes_min": 1 << 20}
"""Settings of every node here: elections within half a second to a second."""


def eventually(what: str, probe: Callable[[], T | None], seconds: float = READY_SECONDS) -> T:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(PROBE_SECONDS)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below those of outgoing connections: a node finds its own free again."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


class NodeProcess:
    """One node: its folder, its configuration, and its process while it runs.

    Args:
        node_id: its number.
        folder: where node.toml, node.log and the data folder go.
        ports: for clients and for peers.
        settings: further settings of node.toml.
        program: what runs it, before `--config`.
    """

    def __init__(
        self,
        node_id: int,
        folder: Path,
        ports: tuple[int, int],
        settings: dict[str, object],
        program: Sequence[str] = ("-m", "quorumlog.node"),
    ) -> None:
        self.node_id = node_id
        self.folder = folder
        self.data = folder / "data"
        self.log_path = folder / "node.log"
        self.client_address = f"127.0.0.1:{ports[0]}"
        self.peer_address = f"127.0.0.1:{ports[1]}"
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program
        self._channel: grpc.Channel | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.configure(**settings)

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    def configure(self, **settings: object) -> None:
        """Write node.toml."""
        lines = {
            "node_id": self.node_id,
            "data": str(self.data),
            "client_address": self.client_address,
            "peer_address": self.peer_address,
            "host": f"host-{self.node_id}",
            **FAST,
            **settings,
        }
        self.config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in lines.items()))

    # ------------------------------------------------------------------------------------------------------- process

    def start(self) -> None:
        assert self.process is None, f"node {self.node_id} runs"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._program, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None, f"node {self.node_id} does not run"
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = READY_SECONDS) -> int:
        """Wait until the process has ended; returns its exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        self._hang_up()
        return code

    def clean_up(self) -> None:
        """End the process whatever state it is in."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        self._hang_up()

    def output(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # --------------------------------------------------------------------------------------------------------- calls

    @property
    def channel(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.client_address, options=CHANNEL_OPTIONS)
        return self._channel

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def log(self) -> LogStub:
        return LogStub(self.channel)

    @property
    def groups(self) -> GroupsStub:
        return GroupsStub(self.channel)

    @property
    def admin(self) -> AdminStub:
        return AdminStub(self.channel)

    def status(self) -> pb.StatusResponse | None:
        """How the node is; None while it does not answer."""
        try:
            return self.admin.Status(pb.StatusRequest(), timeout=5.0)
        except grpc.RpcError:
            return None

    def until_waiting(self) -> None:
        """Wait until the node answers at all."""
        eventually(f"node {self.node_id} answers", self._answers_or_ended)
        assert self.process is not None
        assert self.process.poll() is None, f"node {self.node_id} ended: {self.output()}"

    def _answers_or_ended(self) -> bool:
        return self.status() is not None or (self.process is not None and self.process.poll() is not None)

    def replica(self, topic: str, partition: int) -> pb.ReplicaStatus | None:
        """This node's replica of a partition; None while it has none or does not answer."""
        status = self.status()
        if status is None:
            return None
        found = (one for one in status.replicas if one.topic == topic and one.partition == partition)
        return next(found, None)

    def read(self, topic: str, partition: int, end: int) -> list[pb.Record]:
        """The records of this node's own replica from the first to `end`, exclusive; waits until it has them."""
        records: list[pb.Record] = []
        deadline = time.monotonic() + READY_SECONDS
        while len(records) < end:
            assert time.monotonic() < deadline, (
                f"node {self.node_id} shows {len(records)} of {end} records of {topic}[{partition}]"
            )
            answer = self.log.Fetch(
                pb.FetchRequest(
                    partitions=[pb.FetchPartition(topic=topic, partition=partition, offset=len(records))],
                    any_replica=True,
                    max_wait_ms=500,
                    format=pb.ROWS,
                ),
                timeout=10.0,
                wait_for_ready=True,
            )
            (fetched,) = answer.partitions
            assert not fetched.HasField("error") or fetched.error.retriable, fetched.error
            for record in fetched.rows.records:
                if record.offset >= len(records):
                    assert record.offset == len(records)
                    records.append(record)
        return records


class LocalCluster:
    """Nodes that belong together.

    Args:
        folder: every node gets a folder in it.
        nodes: how many.
        settings: of every node.
        program: what runs a node.
    """

    running: ClassVar[list[LocalCluster]] = []

    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        settings: dict[str, object] | None = None,
        program: Sequence[str] = ("-m", "quorumlog.node"),
    ) -> None:
        ports = free_ports(2 * nodes)
        self.nodes = [
            NodeProcess(number, folder / f"node-{number}", (ports.pop(), ports.pop()), dict(settings or {}), program)
            for number in range(1, nodes + 1)
        ]
        self.bootstrap = ",".join(node.client_address for node in self.nodes)
        LocalCluster.running.append(self)

    def node(self, node_id: int) -> NodeProcess:
        return self.nodes[node_id - 1]

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def found(self) -> bytes:
        """Make a cluster of the nodes, which wait; returns its id."""
        for node in self.nodes:
            node.until_waiting()
        members = [pb.FoundingNode(node_id=node.node_id, address=node.peer_address) for node in self.nodes]
        answer = self.nodes[0].admin.InitCluster(pb.InitClusterRequest(nodes=members), timeout=20.0)
        return answer.cluster_id

    def until_ready(self) -> None:
        """Wait until every running node knows a leader for each of its groups."""
        for node in self.nodes:
            if node.process is not None:
                eventually(f"node {node.node_id} serves", lambda node=node: _serves(node))  # type: ignore[misc]

    def up(self) -> LocalCluster:
        """Start, found, and wait until it serves."""
        self.start()
        self.found()
        self.until_ready()
        return self

    def leader(self, topic: str, partition: int = 0) -> NodeProcess:
        """The running node that leads a partition, as it says itself; the one of the highest term."""

        def look() -> NodeProcess | None:
            best: tuple[int, NodeProcess] | None = None
            for node in self.nodes:
                replica = node.replica(topic, partition) if node.process is not None else None
                if replica is not None and replica.role == "leader":
                    best = max(best or (-1, node), (replica.leader_epoch, node), key=lambda found: found[0])
            return best[1] if best is not None else None

        return eventually(f"{topic}[{partition}] has a leader", look)

    def create_topic(
        self, name: str, partitions: int = 1, replicas: int = 0, configs: dict[str, str] | None = None
    ) -> bytes:
        """Make a topic through the leader of `__cluster`, wait for its leaders, and return its id."""
        request = pb.CreateTopicRequest(
            name=name, partitions=partitions, replicas=replicas or len(self.nodes), configs=configs
        )

        def create() -> bytes | None:
            try:
                return self.leader("__cluster").admin.CreateTopic(request, timeout=10.0).topic.topic_id
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return None
                raise

        topic_id = eventually(f"topic {name} is created", create)
        for partition in range(partitions):
            self.leader(name, partition)
        return topic_id

    def coordinator(self, group: str) -> NodeProcess:
        """The running node that coordinates a group."""

        def look() -> NodeProcess | None:
            for node in self.nodes:
                if node.process is None:
                    continue
                with contextlib.suppress(grpc.RpcError):
                    answer = node.groups.FindCoordinator(pb.FindCoordinatorRequest(group=group), timeout=5.0)
                    if answer.coordinator.node_id:
                        found = self.node(answer.coordinator.node_id)
                        return found if found.process is not None else None
            return None

        return eventually(f"group {group} has a coordinator", look)

    def clean_up(self) -> None:
        for node in self.nodes:
            node.clean_up()
        LocalCluster.running.remove(self)

    def bugs(self) -> list[str]:
        """What the nodes have logged that only a bug can bring about. Bytes that are no message are not one."""
        lines = [line for node in self.nodes for line in node.output().splitlines()]
        return [
            line for line in lines if " CRITICAL " in line or ("Unexpected [" in line and "DecodeError" not in line)
        ]

    def logs(self) -> Iterator[tuple[str, str]]:
        """(title, last lines) of every node's log."""
        for node in self.nodes:
            yield f"log of node {node.node_id}", "\n".join(node.output().splitlines()[-60:])


def _serves(node: NodeProcess) -> bool:
    assert node.process is not None
    assert node.process.poll() is None, f"node {node.node_id} ended: {node.output()}"
    status = node.status()
    return (
        status is not None
        and status.state == "member"
        and len(status.nodes) > 0
        and len(status.replicas) > 0
        and all(replica.leader_node_id for replica in status.replicas)
    )


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)

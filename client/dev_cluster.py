"""A cluster of one's own: `quorumlog dev` as a child process, for the benchmark and the demo."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Self

from quorumlog.errors import Fatal

START_SECONDS = 90.0
STOP_SECONDS = 40.0
PEER_PORT_DISTANCE = 100
"""From a node's port for clients to its port for peers."""


@dataclass(frozen=True, slots=True)
class DevNode:
    """One node as `dev` printed it."""

    node_id: int
    pid: int
    address: str
    config: Path


class DevClusterFailed(Fatal):
    """The child process did not bring its cluster up."""


class DevCluster:
    """Nodes on this machine, in a temporary folder; a context manager, so that none is left running.

    Args:
        nodes: how many.
        rng: choice of the ports.
        prefix: the temporary folder's name begins so.
    """

    def __init__(self, nodes: int, rng: random.Random, prefix: str = "quorumlog-") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self.keep_folder = False
        self.nodes: dict[int, DevNode] = {}
        self.bootstrap = ""
        self._count = nodes
        self._port = free_ports(nodes, rng)
        self._errors = self.folder / "dev.err"
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._ready = threading.Event()
        self._said: list[str] = []

    @property
    def data(self) -> Path:
        """The folder with a folder for each node."""
        return self.folder / "data"

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            DevClusterFailed: it ended, or was not ready in time; the message has its last words.
        """
        command = [sys.executable, "-m", "quorumlog", "dev"]
        command += ["--nodes", str(self._count), "--port", str(self._port), "--data", str(self.data)]
        with self._errors.open("wb") as errors:
            # A process group of its own: Ctrl-C is for this program, which then stops the cluster in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0
            )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        in_time = self._ready.wait(START_SECONDS)
        if not self.bootstrap:
            said = self._errors.read_text(errors="replace").strip().splitlines() or self._said or ["it said nothing"]
            cause = f"ended: {said[-1]}" if in_time else f"is not ready after {START_SECONDS:g} s: {said[-1]}"
            raise DevClusterFailed(
                f"quorumlog dev {cause}", hint="it needs: pip install 'quorumlog[node]'; or name a cluster with -b"
            )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._hear(line)
        self._ready.set()

    def _hear(self, line: str) -> None:
        words = line.split()
        self._said.append(line.strip())
        if words[:1] == ["ready"]:
            self.bootstrap = words[1]
            self._ready.set()
        elif words[:1] == ["node"] and words[2:3] == ["pid"]:
            node_id = int(words[1])
            config = self.data / f"node-{node_id}" / "node.toml"
            self.nodes[node_id] = DevNode(node_id, int(words[3]), words[4], config)

    def stop(self) -> None:
        """Stop the nodes in order and remove the folder, unless `keep_folder`."""
        process = self._process
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode != 0:  # it could not stop them itself
                for node in self.nodes.values():
                    _kill_node(node)
        if self._listener is not None:
            self._listener.join(STOP_SECONDS)
        if not self.keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that whoever ends this program leaves no nodes behind.

    For programs, in their main thread: it sets signal handlers of the process.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _kill_node(node: DevNode) -> None:
    """End a node whose `dev` did not; its pid may belong to another process by now, so that is looked up first."""
    with contextlib.suppress(OSError):
        if str(node.config).encode() in Path(f"/proc/{node.pid}/cmdline").read_bytes():
            os.kill(node.pid, signal.SIGKILL)


def free_ports(nodes: int, rng: random.Random) -> int:
    """Return a port from which `nodes` client ports and their peer ports are free.

    They are below those that the system gives to outgoing connections: a node that was killed finds its own again.
    """
    while True:
        port = rng.randrange(12_000, 32_000 - PEER_PORT_DISTANCE - nodes)
        if all(map(_is_free, _ports(port, nodes))):
            return port


def _ports(first: int, nodes: int) -> Iterator[int]:
    for number in range(nodes):
        yield first + number
        yield first + PEER_PORT_DISTANCE + number


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

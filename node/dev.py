"""`quorumlog dev`: a local cluster, every node a process of its own, kept in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from quorumlog.node.clock import Clock, SystemClock
from quorumlog.node.config import load_config, split_address
from quorumlog.node.errors import NodeError
from quorumlog.node.pidfile import serving_pid

CLIENT_PORT: Final = 7070
PEER_PORT_DISTANCE: Final = 100
READY_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 20.0


class DevFailed(NodeError):
    """The local cluster does not come up."""


class _DevNode:
    """One node of the local cluster."""

    def __init__(self, node_id: int, folder: Path, client_port: int, peer_port: int) -> None:
        self.node_id = node_id
        self.folder = folder
        self.config = folder / "node.toml"
        self.prepared = folder / "node.toml.new"
        self.log = folder / "node.log"
        self.client_address = f"127.0.0.1:{client_port}"
        self.peer_address = f"127.0.0.1:{peer_port}"
        self.process: subprocess.Popen[bytes] | None = None

    def prepare_config(self) -> None:
        """Write what becomes node.toml beside it. Raises DevFailed."""
        try:
            self._prepare_config()
        except OSError as error:
            raise DevFailed(
                f"the folder {self.folder} cannot be used: {error.strerror}; make it writable for this user, or choose "
                "another one with --data"
            ) from error

    def _prepare_config(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.prepared.open("w") as file:
            # A host of its own, or placement would see one machine and could not spread replicas.
            file.write(
                f"node_id = {self.node_id}\n"
                f'data = "."\n'
                f'client_address = "{self.client_address}"\n'
                f'peer_address = "{self.peer_address}"\n'
                f'host = "dev-{self.node_id}"\n'
            )
            file.flush()
            # A rename that reached the disk before the bytes would leave an empty node.toml after a power cut.
            os.fsync(file.fileno())

    def adopt_config(self) -> None:
        """Let what was prepared be node.toml."""
        self.prepared.rename(self.config)

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "quorumlog.node", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches the whole foreground group; the nodes are stopped by this program, in order.
                process_group=0,
            )

    def exit_status(self) -> str | None:
        """How the process ended, None while it runs or after it was said once."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self.process = None
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def is_run_by(self, pid: int) -> bool:
        """Whether the process still runs the node; one that was started by hand is told by its hold on the folder."""
        if self.process is not None and self.process.pid == pid:
            return self.process.poll() is None
        return serving_pid(self.folder) == pid

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


class DevCluster:
    """Starts nodes, founds a cluster from them the first time, and watches over them until it is interrupted."""

    def __init__(self, nodes: int, port: int | None, data: Path | None, say: Callable[[str], None]) -> None:
        self._say = say
        self._clock: Clock = SystemClock()
        self._temporary = data is None
        self._ready = False
        self._data = Path(tempfile.mkdtemp(prefix="quorumlog-dev-")) if data is None else data.resolve()
        folders = [self._data / f"node-{number}" for number in range(1, nodes + 1)]
        ports = _kept_ports(self._data, folders, port) or _ports(nodes, CLIENT_PORT if port is None else port)
        self._nodes = [_DevNode(number, folders[number - 1], *ports[number - 1]) for number in range(1, nodes + 1)]

    def run(self) -> int:
        """Run until SIGINT, SIGTERM or SIGHUP. Raises DevFailed when the cluster does not come up."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in _stopping_signals():
            loop.add_signal_handler(number, stopping.set)
        try:
            for node in self._nodes:
                pid = serving_pid(node.folder)
                if pid is not None:
                    raise DevFailed(
                        f"node {node.node_id} in {node.folder} is in use by process {pid}: stop the program that "
                        "started it, or use another --data"
                    )
            _check_ports(self._nodes)
            self._write_configs()
            for node in self._nodes:
                node.start()
                assert node.process is not None
                self._say(f"node {node.node_id} pid {node.process.pid} {node.client_address}")
            if await self._until_ready(stopping):
                self._ready = True
                self._say(f"ready {','.join(node.client_address for node in self._nodes)}")
                await self._watch(stopping)
        finally:
            await self._stop()
        return 0

    def _write_configs(self) -> None:
        """Write every node.toml that is not there, and none if one of them cannot be written. Raises DevFailed.

        A start that is cut short would otherwise leave some of them, which look like a cluster of fewer nodes.
        """
        # One that is there is the operator's, with what was changed in it.
        missing = [node for node in self._nodes if not node.config.exists()]
        for node in missing:
            node.prepare_config()
        for node in missing:
            node.adopt_config()

    async def _until_ready(self, stopping: asyncio.Event) -> bool:
        """Wait until every node serves and every group has a leader; False when interrupted."""
        # Imported here, when the nodes are on their way: gRPC takes as long to load as they take to start.
        from quorumlog.node.rpc.probe import found_cluster, is_serving
        from quorumlog.proto import client_pb2

        deadline = self._clock.now() + READY_SECONDS
        founded = False
        addresses = [node.client_address for node in self._nodes]
        members = [client_pb2.FoundingNode(node_id=node.node_id, address=node.peer_address) for node in self._nodes]
        while not stopping.is_set():
            for node in self._nodes:
                status = node.exit_status()
                if status is not None:
                    raise DevFailed(
                        f"node {node.node_id} ended ({status}): {node.last_words()}; other ports are chosen with "
                        f"--port, another folder with --data; its log is {node.log}"
                    )
            if not founded:
                founded = await found_cluster(addresses[0], members)
            elif await is_serving(addresses):
                return True
            if self._clock.now() >= deadline:
                raise DevFailed(f"the cluster is not ready after {READY_SECONDS:g} s; see {self._data}/node-*/node.log")
            await asyncio.sleep(POLL_SECONDS)
        return False

    async def _watch(self, stopping: asyncio.Event) -> None:
        """Say when a node ends. It is never started again from here: whoever killed it wants to see what happens."""
        while not stopping.is_set():
            for node in self._nodes:
                status = node.exit_status()
                if status is not None:
                    self._say(
                        f"node {node.node_id} exited ({status}); start again: quorumlog node --config {node.config}"
                    )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await stopping.wait()

    async def _stop(self) -> None:
        """Stop the nodes, those that were started again by hand as well."""
        deadline = self._clock.now() + STOP_SECONDS
        pids = {}
        for node in self._nodes:
            pid = node.process.pid if node.process is not None and node.process.poll() is None else None
            if pid is None and self._ready:
                pid = serving_pid(node.folder)
            if pid is not None:
                pids[node.node_id] = pid
                _signal(pid, signal.SIGTERM)
        while pids and self._clock.now() < deadline:
            for node in self._nodes:
                if node.node_id in pids and not node.is_run_by(pids[node.node_id]):
                    del pids[node.node_id]
            await asyncio.sleep(POLL_SECONDS)
        for pid in pids.values():
            _signal(pid, signal.SIGKILL)
        if self._temporary:
            shutil.rmtree(self._data, ignore_errors=True)


def _stopping_signals() -> list[signal.Signals]:
    """What ends the cluster: Ctrl-C, a polite kill, and the end of the terminal unless it is ignored, as by nohup."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def _check_ports(nodes: list[_DevNode]) -> None:
    """Before anything is started, or a cluster that listens there would be taken for this one. Raises DevFailed."""
    for node in nodes:
        for address in (node.client_address, node.peer_address):
            host, port = split_address(address, "address")
            with socket.socket() as probe:
                # As gRPC binds: connections of a former process that linger do not matter, a listener does.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    raise DevFailed(
                        f"node {node.node_id} cannot listen on {address}: {error.strerror}; stop the program that has "
                        "the port (perhaps another quorumlog dev), or choose other ports with --port"
                    ) from error


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kept_ports(data: Path, folders: list[Path], port: int | None) -> list[tuple[int, int]] | None:
    """The ports of a cluster that is there already: its nodes know each other by them. None when there is none.

    Raises DevFailed when it has another number of nodes, or other ports than `port` asks for.
    """
    count = len(list(data.glob("node-*/node.toml")))
    if count == 0:
        return None
    if count != len(folders):
        raise DevFailed(
            f"{data} holds {count} nodes, --nodes says {len(folders)}: a cluster keeps the nodes it was founded with; "
            "use the same number, or another --data"
        )
    ports = []
    for folder in folders:
        config = load_config(folder / "node.toml")
        client = split_address(config.client_address, "client_address")[1]
        ports.append((client, split_address(config.peer_address, "peer_address")[1]))
    if port and port != ports[0][0]:
        raise DevFailed(
            f"the nodes in {data} listen from port {ports[0][0]} on and know each other there, --port says {port}: "
            "leave --port out, or use another --data"
        )
    return ports


def _ports(nodes: int, port: int) -> list[tuple[int, int]]:
    """(client port, peer port) of each node."""
    if port:
        return [(port + number, port + PEER_PORT_DISTANCE + number) for number in range(nodes)]
    with contextlib.ExitStack() as stack:
        # All are held at once, so that none is given twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * nodes)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        numbers = [free.getsockname()[1] for free in sockets]
    return list(zip(numbers[:nodes], numbers[nodes:], strict=True))

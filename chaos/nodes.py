"""The nodes of a run: real processes with a folder each, kept running by a supervisor, stopped by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from quorumlog.clock import monotonic
from quorumlog.errors import Fatal

POLL_SECONDS = 0.02
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""How long the supervisor waits before it starts a node again that ended by itself, by how often it did so."""
STEADY_SECONDS = 10.0
"""A node that ran for so long is not in a loop of failing starts."""
STOP_SECONDS = 20.0
BUG_MARKS = (" CRITICAL ", "Unexpected [", "Traceback (most recent call last)")
"""What a node's log has of an exception that nobody has foreseen."""


class NodeFailed(Fatal):
    """A node of a run does not do what every run stands on."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of one node process. `expected`: a fault or the end of the run brought it about. `status` is as
    `subprocess` has it: below 0 a signal."""

    node: int
    pid: int
    status: int
    at_seconds: float
    expected: bool


class Node:
    """One node: its folder, its addresses, and its process while it runs.

    Args:
        number: its node id.
        folder: where node.toml and the data go.
        log: the file that what it says is appended to.
        client_address: where clients reach it.
        peer_address: where it listens for peers.
        advertised: what it tells its peers; a proxy listens there.
        settings: further settings of node.toml.
        program: what runs it, before `--config`.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        log: Path,
        *,
        client_address: str,
        peer_address: str,
        advertised: str,
        settings: Mapping[str, object],
        program: tuple[str, ...] = ("-m", "quorumlog.node"),
    ) -> None:
        self.number = number
        self.client_address = client_address
        self.peer_address = peer_address
        self.advertised = advertised
        self.data = folder / "data"
        self.log = log
        self.exits: list[Exit] = []
        self.starts = 0
        self._config = folder / "node.toml"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._early_ends = 0
        self._start_at = 0.0
        self._holds = 0
        self._expected_end = False
        folder.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        own = {
            "node_id": number,
            "data": str(self.data),
            "client_address": client_address,
            "peer_address": peer_address,
            "peer_advertised": advertised,
            "host": f"host-{number}",
        }
        self._config.write_text("".join(f"{name} = {_toml(value)}\n" for name, value in {**own, **settings}.items()))

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def held(self) -> bool:
        """Whether somebody wants it to stay down."""
        return self._holds > 0

    def hold(self) -> None:
        """Keep it from being started again; each hold is released once."""
        self._holds += 1

    def release(self) -> None:
        """Take a hold back; with the last one the supervisor starts it again at once."""
        assert self._holds > 0, f"node {self.number} is not held"
        self._holds -= 1
        self._start_at = 0.0

    def start(self) -> None:
        """Start the process."""
        assert self._process is None, f"node {self.number} runs"
        self.starts += 1
        self._expected_end = False
        self._started_at = monotonic()
        with self.log.open("ab") as log:
            # A process group of its own: Ctrl-C is for this program, which then stops everybody in order.
            self._process = subprocess.Popen(
                [sys.executable, *self._program, "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when nothing runs."""
        pid = self.pid
        if pid is None:
            return False
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._expected_end = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def supervise(self) -> None:
        """Note that the process has ended, and start it again when that is due."""
        if self._process is not None and self._process.poll() is not None:
            self._note_end(self._process)
        if self._process is None and not self.held and monotonic() >= self._start_at:
            self.start()

    def _note_end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        now = monotonic()
        self.exits.append(Exit(self.number, process.pid, process.returncode, now, self._expected_end))
        if self._expected_end:
            self._early_ends = 0
            self._start_at = 0.0
            return
        self._early_ends = self._early_ends + 1 if now - self._started_at < STEADY_SECONDS else 1
        self._start_at = now + BACKOFF_SECONDS[min(self._early_ends, len(BACKOFF_SECONDS)) - 1]

    async def until_ended(self, seconds: float = STOP_SECONDS) -> Exit:
        """Wait until the process that runs now has ended, and return how.

        Raises:
            NodeFailed: it has not within `seconds`.
        """
        process = self._process
        deadline = monotonic() + seconds
        # The supervisor may see the end first, and start another process.
        while process is not None and self._process is process:
            if process.poll() is not None:
                self._note_end(process)
            elif monotonic() >= deadline:
                raise NodeFailed(
                    f"node {self.number} (pid {process.pid}) did not end in {seconds:g} s",
                    hint=f"its log is {self.log}",
                )
            else:
                await asyncio.sleep(POLL_SECONDS)
        return self.exits[-1]

    def end(self) -> None:
        """End the process whatever it does."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._note_end(self._process)

    def bugs(self) -> list[str]:
        """The lines of its log that only a bug can bring about."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [line for line in lines if any(mark in line for mark in BUG_MARKS)]

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it said nothing"


class Supervisor:
    """Starts nodes again that have ended, as an operator's process manager would; a context manager.

    Args:
        nodes: all of them, by ascending number from 1 on.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self._task: asyncio.Task[None] | None = None

    def node(self, number: int) -> Node:
        """The node of this id."""
        return self.nodes[number - 1]

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            node.start()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.leave_alone()
        finally:
            for node in self.nodes:
                node.end()

    async def leave_alone(self) -> None:
        """Start nothing again from now on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def stop(self) -> None:
        """Stop every node as an operator would, and wait."""
        await self.leave_alone()
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        await asyncio.gather(*(node.until_ended() for node in self.nodes if node.pid is not None))

    async def _watch(self) -> None:
        while True:
            for node in self.nodes:
                node.supervise()
            await asyncio.sleep(POLL_SECONDS)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)

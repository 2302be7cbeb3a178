"""The client programs of a run: started, watched, stopped by pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from quorumlog.clock import monotonic
from quorumlog.errors import Fatal

POLL_SECONDS = 0.05
STOP_SECONDS = 30.0


class ClientFailed(Fatal):
    """A client program ended although nobody told it to, or did not end when it was told to."""


class ClientProgram:
    """One workload in a process of its own.

    Args:
        name: how messages and its log call it.
        log: the file that what it says is appended to.
        command: its module and arguments.
    """

    def __init__(self, name: str, log: Path, *command: str) -> None:
        self.name = name
        self._log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def check(self) -> None:
        """Raise ClientFailed if it has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise self._failed(f"ended with exit code {self._process.returncode}")

    async def stop(self) -> None:
        """Tell it to finish what it has begun, and wait.

        Raises:
            ClientFailed: it ended with an error, or not in time.
        """
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        deadline = monotonic() + STOP_SECONDS
        while process.poll() is None:
            if monotonic() >= deadline:
                raise self._failed(f"(pid {process.pid}) did not end in {STOP_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)
        if process.returncode:
            raise self._failed(f"ended with exit code {process.returncode}")

    def end(self) -> None:
        """End it whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _failed(self, how: str) -> ClientFailed:
        said = self._log.read_text(errors="replace").strip().splitlines()
        return ClientFailed(f"the workload {self.name} {how}: {said[-1] if said else ''}", hint=f"see {self._log}")

"""The processes of the demo: started, listened to, stopped by pid."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quorumlog.errors import Fatal

STOP_SECONDS = 45.0


class ChildFailed(Fatal):
    """A process of the demo ended with an error."""


class Child:
    """One process, and the last thing it said.

    Args:
        name: how messages call it.
        folder: where what it writes to standard error goes.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.last: Mapping[str, Any] = {}
        self._errors = folder / f"{name.replace(' ', '-')}.err"
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None

    async def start(self, *command: str) -> None:
        """Start `python -m ...`."""
        with self._errors.open("ab") as errors:
            # A process group of its own: Ctrl-C is for the demo, which then stops everybody in order.
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                process_group=0,
            )
        self._listener = asyncio.create_task(self._listen(self._process))

    @property
    def pid(self) -> int:
        """Its process id; it has been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.returncode is None

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.last = json.loads(line)

    def check(self) -> None:
        """Raise ChildFailed if it has ended although nobody told it to."""
        if self._process is not None and self._process.returncode is not None:
            raise self._failure()

    async def wait(self) -> Mapping[str, Any]:
        """Wait until it ends by itself, and return the last thing it said.

        Raises:
            ChildFailed: with an error, or not in time.
        """
        process, listener = self._process, self._listener
        assert process is not None
        assert listener is not None
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await listener
                await process.wait()
        except TimeoutError:
            raise ChildFailed(f"{self.name} (pid {process.pid}) did not end in {STOP_SECONDS:g} s") from None
        if process.returncode != 0:
            raise self._failure()
        return self.last

    def tell_to_stop(self) -> None:
        """Send SIGTERM."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    async def stop(self) -> Mapping[str, Any]:
        """Tell it to finish, and wait as `wait` does."""
        self.tell_to_stop()
        return await self.wait()

    async def end(self) -> None:
        """End it whatever it does."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    def _failure(self) -> ChildFailed:
        assert self._process is not None
        said = self._errors.read_text(errors="replace").strip().splitlines()
        last = f": {said[-1]}" if said else ""
        return ChildFailed(f"{self.name} ended with exit code {self._process.returncode}{last}", hint=str(self._errors))

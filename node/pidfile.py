"""A file in the data folder that names the process which serves it, so that whoever owns the folder can stop it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PID_NAME = "node.pid"


@contextmanager
def pid_file(data: Path) -> Iterator[None]:
    """Keep the file while the body runs. It is a hint, not a lock: the data folder has one of its own."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / PID_NAME
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def serving_pid(data: Path) -> int | None:
    """The process that serves the folder, None when there is none: the file may be of a process that was killed."""
    try:
        pid = int((data / PID_NAME).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"quorumlog" in command and b"node" in command else None

"""A file in the data folder that names the process which serves it, so that whoever owns the folder can stop it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOCK_NAME: Final = "lock"
"""The file that the storage of a node locks while it has the folder open."""

PID_NAME: Final = "node.pid"


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
    """The process that serves the folder; None when there is none.

    The file alone proves nothing: its process may have been killed, and another one may have its number by now. So the
    lock that a node holds on its folder is looked at as well.
    """
    try:
        pid = int((data / PID_NAME).read_text())
        descriptor = os.open(data / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    finally:
        os.close(descriptor)
    return None

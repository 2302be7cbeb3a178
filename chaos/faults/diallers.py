"""Which process holds the other end of a connection on this machine, as /proc tells."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_LOCAL, _REMOTE, _INODE = 1, 2, 9
"""Columns of /proc/net/tcp."""


def dialler(own_port: int, remote_port: int, pids: Iterable[int]) -> int | None:
    """Return which of `pids` dialled `own_port` from `remote_port` of the loopback interface; None when none did."""
    inode = _inode(f":{remote_port:04X}", f":{own_port:04X}")
    if inode is None:
        return None
    link = f"socket:[{inode}]"
    return next((pid for pid in pids if _holds(pid, link)), None)


def _inode(local: str, remote: str) -> str | None:
    # gRPC dials IPv4 from sockets of IPv6.
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with Path(table).open() as lines:
            next(lines)
            for line in lines:
                words = line.split()
                if words[_LOCAL].endswith(local) and words[_REMOTE].endswith(remote):
                    return words[_INODE]
    return None


def _holds(pid: int, link: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}") == link:
                return True
        except OSError:
            continue  # closed meanwhile
    return False

"""Which process this is, and on which machine: connections, threads and sequences of a parent are not for its forked
child."""

import os
import socket

from quorumlog.errors import ForkedProcess


class _Process:
    """Counts the forks that led here, because asking the system for the process id costs more on every record."""

    __slots__ = ("connected", "generation", "orphaned")

    def __init__(self) -> None:
        self.generation = 0
        self.connected = False
        self.orphaned = False


PROCESS = _Process()


def _forked() -> None:
    PROCESS.generation += 1
    PROCESS.orphaned = PROCESS.connected


os.register_at_fork(after_in_child=_forked)


def check_process(generation: int, what: str) -> None:
    """Raise ForkedProcess unless `what` was made in this process, when `PROCESS.generation` was `generation`."""
    if generation != PROCESS.generation:
        raise ForkedProcess(f"this {what} belongs to the process that forked this one", hint=_FORK_HINT)


def before_connecting() -> None:
    """Note that this process uses gRPC, whose threads do not survive a fork.

    Raises:
        ForkedProcess: the parent was connected when it forked this one, so nothing asked here would ever be answered.
    """
    if PROCESS.orphaned:
        raise ForkedProcess("the process that forked this one was connected already", hint=_FORK_HINT)
    PROCESS.connected = True


_FORK_HINT = "connect after the fork only, or start children by spawn: multiprocessing.get_context('spawn')"


def machine_name() -> str:
    """Return the name of this machine, the one a node on it gives as its host unless its configuration says another."""
    return socket.gethostname()

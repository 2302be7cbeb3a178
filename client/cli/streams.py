"""Standard streams that are closed, or cannot be written to."""

import errno
import io
import os
import sys
from typing import Any, Literal, TextIO

from quorumlog.cli.errors import CommandFailed


def guard_streams() -> None:
    """Give the process streams that say what is wrong with them when they are used.

    One that is closed is opened again, on something that can only be used the other way round: it fails when it is
    needed, and not before.
    """
    if sys.stdin is None:
        sys.stdin = _null("r", os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = _null("w", os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _null("w", os.O_WRONLY)  # nobody can be told
    given = sys.stdout
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(given.fileno(), "w", closefd=False)),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=given.isatty(),
    )


def _null(mode: Literal["r", "w"], access: int) -> TextIO:
    return open(os.open(os.devnull, access), mode)


class _Output(io.FileIO):
    """Standard output that fails once, and by name. What follows is dropped: the interpreter flushes once more when it
    ends, and would complain."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            self._failed = True
            raise
        except OSError as error:
            self._failed = True
            raise CommandFailed(
                f"cannot write to standard output: {reason(error)}",
                "redirect it to a file where there is room, or to /dev/null",
            ) from error


def reason(error: OSError) -> str:
    """Return why a standard stream failed, for people."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)

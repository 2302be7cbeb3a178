"""How the program begins and ends.

Nothing large is imported before `main` runs: Ctrl-C while the rest is loaded ends it like any later one, and a standard
stream that is closed is seen to before a library opens something under its number.
"""

import sys
from collections.abc import Sequence

from quorumlog.cli.errors import BROKEN_PIPE, FAILED, INTERRUPTED, CommandFailed, describe
from quorumlog.cli.streams import guard_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code. `arguments` None: those of the process, whose standard streams it takes
    over."""
    try:
        if arguments is None:
            guard_streams()
            arguments = sys.argv[1:]
        from quorumlog.cli.program import run

        try:
            return run(arguments)
        finally:
            sys.stdout.flush()
    except CommandFailed as error:
        sys.stderr.write(describe(error.message, error.hint))
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE

"""What a command waits for, on standard error."""

import sys

from quorumlog.waiting import Wait

PATIENCE_SECONDS = 1.0
"""What is over sooner is nobody's business."""


class Waiting:
    """Told why calls wait, it says so: each cause once, in one line. A call that waits although nothing listens at any
    address is ended: whoever types a command wants to hear of a wrong port, not wait for a cluster to come.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, wait: Wait) -> None:
        """Take over one cause; raises it where waiting is no use."""
        if wait.seconds < PATIENCE_SECONDS:
            return
        if wait.hopeless:
            raise wait.cause
        said = str(wait.cause)  # with the hint: what to do about the same thing may change
        if said not in self._told:
            self._told.add(said)
            # A line of progress may stand there.
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{clear}quorumlog: waiting: {said}\n")
            sys.stderr.flush()

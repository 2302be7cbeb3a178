"""What can be wrong with a run, and the exit code of each class. 1 and 2 are left to what goes wrong around it."""

from __future__ import annotations

from enum import IntEnum


class Verdict(IntEnum):
    """How a run ended; its value is the program's exit code."""

    GREEN = 0
    CRASH = 3
    """The shipped code raised what it never may."""
    LIVENESS = 4
    """A healed quorum did not converge."""
    CORRECTNESS = 5
    """Something that must always hold did not."""
    INVALID = 6
    """Nothing was wrong, but too little happened for that to mean anything."""


class SimulationFailed(AssertionError):
    """A run found something. `group_id` is the group concerned, 0 where it is the cluster as a whole."""

    verdict = Verdict.CRASH

    def __init__(self, message: str, group_id: int = 0) -> None:
        super().__init__(message)
        self.group_id = group_id


class Violation(SimulationFailed):
    """Something that must always hold did not."""

    verdict = Verdict.CORRECTNESS


class NotConverged(SimulationFailed):
    """Something that must happen did not, in time."""

    verdict = Verdict.LIVENESS


def verdict_of(error: BaseException) -> Verdict:
    """The class of what a run raised."""
    return error.verdict if isinstance(error, SimulationFailed) else Verdict.CRASH

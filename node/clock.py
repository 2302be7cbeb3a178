"""The clock of a node: the only module of `quorumlog.node` that asks the machine for the time.

Everything else takes a `now` argument or a `Clock`, so that a simulator can run a whole cluster under virtual time and
a test can let ten minutes pass without waiting for them.
"""

import time
from typing import Protocol

# `SystemClock.now()` is shifted by this many seconds (about 31 years). A reading of another clock - time.monotonic(),
# loop.time(), a wall clock - that slips into a comparison is then wrong by decades in the first test instead of by a
# little in production. A float still resolves better than a microsecond at this size.
MONOTONIC_OFFSET_SECONDS = 1.0e9


class Clock(Protocol):
    """What the parts of a node may know about time."""

    def now(self) -> float:
        """Return monotonic seconds. Only differences mean something; readings of two clocks must not be mixed."""
        ...

    def wall_ms(self) -> int:
        """Return milliseconds since 1970-01-01 UTC. It may jump either way: for timestamps, never for waiting."""
        ...


class SystemClock:
    """The time of this machine."""

    __slots__ = ()

    def now(self) -> float:
        """Return the machine's monotonic seconds plus `MONOTONIC_OFFSET_SECONDS`."""
        return time.monotonic() + MONOTONIC_OFFSET_SECONDS

    def wall_ms(self) -> int:
        """Return the machine's wall clock in milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when it is told to, for tests and simulation.

    Args:
        now: first monotonic reading, in seconds.
        wall_ms: first wall reading, in milliseconds since 1970-01-01 UTC.
    """

    __slots__ = ("_now", "_started", "_wall_started_ms")

    def __init__(self, now: float = 0.0, wall_ms: int = 1_700_000_000_000) -> None:
        self._now = now
        self._started = now
        self._wall_started_ms = wall_ms

    def now(self) -> float:
        """Return the present reading in seconds."""
        return self._now

    def wall_ms(self) -> int:
        """Return the present wall reading in milliseconds; it moves with `advance` and `set_wall_ms`."""
        return self._wall_started_ms + round((self._now - self._started) * 1000)

    def advance(self, seconds: float) -> None:
        """Move both readings forward by `seconds`, which must not be negative: monotonic time never goes back."""
        assert seconds >= 0, f"a monotonic clock cannot go back by {-seconds} s"
        self._now += seconds

    def set_wall_ms(self, wall_ms: int) -> None:
        """Let the wall clock jump to `wall_ms`, as a time service may do, without moving the monotonic reading."""
        self._wall_started_ms = wall_ms - round((self._now - self._started) * 1000)

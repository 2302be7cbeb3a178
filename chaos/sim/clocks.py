"""The clock of one node: it may run at another rate than the world's, leap ahead, and tell a wrong time of day."""

from __future__ import annotations

from quorumlog.node.clock import ManualClock


class NodeClock:
    """What a node takes for the time.

    The monotonic reading never goes back; its rate may be wrong, and it leaps as a machine's does that was suspended.
    The wall reading may jump either way. Both survive the process: they are the machine's.
    """

    __slots__ = ("_began", "_rate", "_reading", "_wall_offset_ms", "_world")

    def __init__(self, world: ManualClock) -> None:
        self._world = world
        self._rate = 1.0
        self._began = self._reading = world.now()
        self._wall_offset_ms = 0

    def now(self) -> float:
        """Return this node's monotonic seconds."""
        if self._rate == 1.0:
            return self._reading + (self._world.now() - self._began)
        return self._reading + (self._world.now() - self._began) * self._rate

    def wall_ms(self) -> int:
        """Return this node's idea of milliseconds since 1970."""
        return self._world.wall_ms() + self._wall_offset_ms

    def world_time(self, reading: float) -> float:
        """When, on the world's clock, this one will show `reading` if nothing happens to it before."""
        return self._began + (reading - self._reading) / self._rate

    def set_rate(self, rate: float) -> None:
        """Run at `rate` seconds per second from now on."""
        assert rate > 0, f"a clock runs forward, not at {rate}"
        self._reading, self._began = self.now(), self._world.now()
        self._rate = rate

    def leap(self, seconds: float) -> None:
        """Show `seconds` more, all at once."""
        assert seconds >= 0, f"a monotonic clock cannot go back by {-seconds} s"
        self._reading += seconds

    def set_wall_offset(self, seconds: float) -> None:
        """Let the wall clock be wrong by `seconds`, either way."""
        self._wall_offset_ms = round(seconds * 1000)

"""Deadlines under whatever clock drives the node: a heap that the server's loop or a simulator asks for the next
one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timer:
    """One deadline. `cancel` may be called at any time, any number of times."""

    __slots__ = ("action", "due")

    def __init__(self, due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make sure the action does not run (again)."""
        self.action = None


class Timers:
    """A set of deadlines, in seconds of the node's clock. Equal deadlines run in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, due: float, action: Callable[[], None]) -> Timer:
        """Run `action` when `run` is called with `now >= due`."""
        timer = Timer(due, action)
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, timer))
        return timer

    def next_due(self) -> float | None:
        """The earliest deadline, None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> int:
        """Run what is due; deadlines set meanwhile wait for the next call. Returns how many ran."""
        due: list[Timer] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        count = 0
        for timer in due:
            action, timer.action = timer.action, None
            if action is not None:
                count += 1
                action()
        return count

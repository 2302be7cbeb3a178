"""Deadlines under whatever clock drives the node: a heap that the server's loop or a simulator asks for the next
one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Final

CANCELLED_SHARE_MAX: Final = 0.5
"""Of the heap; beyond it the cancelled deadlines are taken out."""

CANCELLED_MIN: Final = 1024
"""So few are not worth a walk over the heap."""


class Timer:
    """One deadline. `cancel` may be called at any time, any number of times."""

    __slots__ = ("_owner", "action", "due")

    def __init__(self, owner: Timers, due: float, action: Callable[[], None]) -> None:
        self._owner = owner
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Make sure the action does not run (again)."""
        if self.action is not None:
            self.action = None
            self._owner._on_cancelled()


class Timers:
    """A set of deadlines, in seconds of the node's clock. Equal deadlines run in the order they were set.

    A cancelled deadline costs memory for a while only: most of a node's deadlines are cancelled, and far away.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._cancelled = 0
        """At least as many as are in the heap; some of them may have left it on their own."""

    def __len__(self) -> int:
        return len(self._heap)

    def _on_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled >= CANCELLED_MIN and self._cancelled > CANCELLED_SHARE_MAX * len(self._heap):
            self._heap = [row for row in self._heap if row[2].action is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def at(self, due: float, action: Callable[[], None]) -> Timer:
        """Run `action` when `run` is called with `now >= due`."""
        assert not math.isnan(due), "a deadline that is no number"
        timer = Timer(self, due, action)
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

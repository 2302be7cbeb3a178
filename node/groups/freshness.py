"""Whether the local catalogue may be believed when it does not know a topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CatchUp = Callable[[Callable[[bool], None]], None]
"""Calls back with True once this node has applied all of `__cluster` that was committed before the call, with False
when nobody said in time how far that is. It may call back before it returns."""

_NEVER: Final = float("-inf")


class Freshness:
    """Finds out how fresh the catalogue is, for one reign of a coordinator after the other.

    A node that has begun to lead a partition of `__groups` may be behind in `__cluster`, and a topic that it has not
    heard of looks like one that was deleted. That ends once it has applied what was committed when its reign began:
    whatever topic id stands in a group's state was in the catalogue when it was written there, so one that is not there
    now was deleted.

    Where `__cluster` has no majority nothing is proved, and the coordinator goes on with what it knows after the first
    question has been in vain. Groups then share the topics known here, and keep what they have of others.

    Args:
        catch_up: see `CatchUp`.
        on_proved: called when the catalogue has caught up with the beginning of the reign.

    `now` is monotonic seconds, in every method.
    """

    def __init__(self, catch_up: CatchUp, on_proved: Callable[[], None]) -> None:
        self._catch_up = catch_up
        self._on_proved = on_proved
        self._reign = 0
        self._begun_at = 0.0
        self._wanted_at = _NEVER
        self._proved_at = _NEVER
        self._asking = False
        self.answered = False
        """Whether the first question of this reign has been answered, if only by silence."""

    def begin(self, now: float) -> None:
        """A reign begins."""
        self.end()
        self._begun_at = self._wanted_at = now
        self.tick(now)

    def end(self) -> None:
        """The reign is over: nothing more is asked, and answers on their way concern nobody."""
        self._reign += 1
        self._wanted_at = self._proved_at = _NEVER
        self._asking = self.answered = False

    def want(self, asked_at: float) -> None:
        """Somebody needs to know whether a topic existed at `asked_at`."""
        self._wanted_at = max(self._wanted_at, asked_at)

    def tick(self, now: float) -> None:
        """Ask what has to be asked, and ask again what was not answered."""
        if self._asking or self.covers(self._wanted_at):
            return
        self._asking = True
        reign = self._reign

        def on_answer(up_to_date: bool) -> None:
            if reign != self._reign:
                return
            self._asking = False
            was_proved = self.proved
            self.answered = True
            if up_to_date:
                self._proved_at = now
                if not was_proved:
                    self._on_proved()

        self._catch_up(on_answer)

    @property
    def proved(self) -> bool:
        """Whether a topic id of the group's state that the catalogue does not know is that of a deleted topic."""
        return self.covers(self._begun_at)

    def covers(self, asked_at: float) -> bool:
        """Whether a topic that the catalogue does not know did not exist at `asked_at`."""
        return self._proved_at >= asked_at

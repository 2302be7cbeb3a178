"""Operations in the order of time: what was completed before something else was invoked comes before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from quorumlog.chaos.history.events import NEVER, Operation

T = TypeVar("T")


class Moment(NamedTuple, Generic[T]):
    """The invocation or the completion of something."""

    what: T
    completes: bool


def sweep(things: Iterable[T], operation_of: Callable[[T], Operation]) -> Iterator[Moment[T]]:
    """Yield invocations and completions in the order of time.

    What happens at one moment is taken as concurrent, so invocations come first. What was never completed has none.
    """
    moments = []
    for place, thing in enumerate(things):
        operation = operation_of(thing)
        moments.append((operation.invoked, False, place, thing))
        if operation.completed != NEVER:
            moments.append((operation.completed, True, place, thing))
    moments.sort(key=lambda moment: moment[:3])
    for _, completes, _, thing in moments:
        yield Moment(thing, completes)

"""For how long a member of a group has a partition without interruption, and what it is given meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.history.events import Ownership, Poll


@dataclass(slots=True)
class Stint:
    """One process of a member with one partition in one generation. `given` has the offsets of each poll."""

    group: str
    member: str
    tp: str
    given: list[tuple[Poll, list[int]]] = field(default_factory=list)


def stints(evidence: Evidence) -> Iterator[Stint]:
    """Yield every stint in which something was given.

    A stint ends when the member learns that partitions are given to it or taken from it, when its generation changes,
    and with its process.
    """
    history = evidence.history
    events: list[Poll | Ownership] = [*history.polls, *history.ownerships]
    events.sort(key=lambda event: (event.completed, isinstance(event, Poll)))
    current: dict[tuple[str, str], tuple[tuple[str, int], dict[str, Stint]]] = {}
    for event in events:
        key = (event.group, event.member)
        if isinstance(event, Ownership):
            yield from current.pop(key, (None, {}))[1].values()
            continue
        now = (event.process, event.generation)
        if key in current and current[key][0] != now:
            yield from current.pop(key)[1].values()
        _, open_stints = current.setdefault(key, (now, {}))
        offsets: dict[str, list[int]] = {}
        for record in event.records:
            offsets.setdefault(record.tp, []).append(record.offset)
        for tp, given in offsets.items():
            open_stints.setdefault(tp, Stint(event.group, event.member, tp)).given.append((event, given))
    for _, open_stints in current.values():
        yield from open_stints.values()

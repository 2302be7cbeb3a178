"""Who owns partitions, and what groups are given: K29 to K32."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.checkers.stints import stints
from quorumlog.chaos.history.events import Commit, Operation, Ownership, Poll


def fenced_commits(evidence: Evidence) -> Iterator[Anomaly]:
    """K29: a commit of a partition is acknowledged under a generation although, before it was invoked, another member
    had been told that the partition is its own under a later one.

    A member may speak for an earlier generation than the group's as long as it has kept the partition, so a later
    generation alone fences nobody. O(n log n).
    """
    given: dict[tuple[str, str], list[Ownership]] = {}
    for ownership in evidence.history.ownerships:
        if ownership.given:
            for tp in ownership.partitions:
                given.setdefault((ownership.group, tp), []).append(ownership)
    for commit in evidence.history.commits:
        if not commit.ok:
            continue
        for tp in commit.positions:
            later = _latest_other(given.get((commit.group, tp), []), commit)
            if later is not None:
                text = (
                    f"{commit.member} committed {tp} under generation {commit.generation} after {later.member} had "
                    f"got it under generation {later.generation}"
                )
                yield anomaly(evidence, "K29", commit.group, text, later, commit)


def _latest_other(given: list[Ownership], commit: Commit) -> Ownership | None:
    """The last time that someone else got the partition before a commit, if it was under a later generation."""
    before = bisect_left(given, commit.invoked, key=lambda one: one.invoked)
    for ownership in reversed(given[:before]):
        if ownership.generation > commit.generation:
            if ownership.member != commit.member:
                return ownership
        else:
            return None
    return None


def double_owners(evidence: Evidence) -> Iterator[Anomaly]:
    """K30: a member is told that a partition is its own while another one, in the same generation, has it and has not
    learned that it lost it.

    Across generations a member that was expelled may not know it yet; that it may not commit any more is K29.
    O(n log n).
    """
    holders: dict[tuple[str, str], dict[str, Ownership]] = {}
    for ownership in evidence.history.ownerships:
        for tp in ownership.partitions:
            held = holders.setdefault((ownership.group, tp), {})
            if not ownership.given:
                held.pop(ownership.member, None)
                continue
            for member, other in held.items():
                if member != ownership.member and other.generation == ownership.generation:
                    text = f"{member} and {ownership.member} both own {tp} in generation {ownership.generation}"
                    yield anomaly(evidence, "K30", ownership.group, text, other, ownership)
            held[ownership.member] = ownership


def commit_skips(evidence: Evidence) -> Iterator[Anomaly]:
    """K31: an offset is committed although a visible record below it had been given to no member of the group.

    What the group was given first is where it began; what was trimmed need not be given. Commits that failed do not
    count; of what happens at one moment, what is given comes first. O(N log N).
    """
    events: dict[tuple[str, str], list[tuple[int, bool, int, Operation, int]]] = {}
    first: dict[tuple[str, str], int] = {}
    number = 0
    for poll in evidence.history.polls:
        for tp, offset, _ in poll.records:
            key = (poll.group, tp)
            number += 1
            events.setdefault(key, []).append((poll.completed, False, number, poll, offset))
            first[key] = min(offset, first.get(key, offset))
    for commit in evidence.history.commits:
        if not commit.failed:
            for tp, position in commit.positions.items():
                number += 1
                event = (commit.invoked, True, number, commit, position.offset)
                events.setdefault((commit.group, tp), []).append(event)
    for key, begin in sorted(first.items()):
        yield from _skips_of(evidence, key, begin, sorted(events[key], key=lambda event: event[:3]))


def _skips_of(
    evidence: Evidence, key: tuple[str, str], begin: int, events: list[tuple[int, bool, int, Operation, int]]
) -> Iterator[Anomaly]:
    group, tp = key
    log = evidence.log(tp)
    visible = log.visible
    place = bisect_left(visible, max(begin, log.trimmed))
    given: set[int] = set()
    for _, commits, _, operation, offset in events:
        if not commits:
            given.add(offset)
            while place < len(visible) and visible[place] in given:
                place += 1
        elif place < len(visible) and visible[place] < offset:
            text = f"offset {offset} of {tp} was committed, and nobody had been given the record at {visible[place]}"
            yield anomaly(evidence, "K31", group, text, operation)


def redeliveries(evidence: Evidence) -> Iterator[Anomaly]:
    """K32: a member is given a record, or one before it, again, though nothing happened between the polls: neither did
    its process end, nor its generation or what it owns change. O(N).
    """
    for stint in stints(evidence):
        position: tuple[int, Poll] | None = None
        for poll, offsets in stint.given:
            if position is not None and offsets[0] <= position[0]:
                text = f"{stint.member} was given offset {offsets[0]} of {stint.tp} after offset {position[0]}"
                yield anomaly(evidence, "K32", stint.group, text, position[1], poll)
            position = (max(offsets), poll)

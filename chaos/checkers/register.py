"""Committed offsets as linearizable registers: K28."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.history.events import Commit, Committed, Operation, Position


class Zone(NamedTuple):
    """All operations of one value, on the line of time.

    `begin` is the first completion of any of them, `end` the last invocation of any. Where `begin < end` the value is
    certainly in the register from `begin` to `end` (a forward zone); otherwise it need only be at some moment from
    `end` to `begin` (a backward zone).
    """

    begin: int
    end: int
    first: Operation
    last: Operation

    @property
    def forward(self) -> bool:
        """Whether there is a time at which the register certainly has this value."""
        return self.begin < self.end


class Misread(NamedTuple):
    """Why a register is not linearizable, with the operations that show it."""

    explanation: str
    operations: tuple[Operation, ...]


@dataclass(slots=True)
class Register:
    """One group's offset of one partition: its commits, and its reads, None where there was no offset."""

    commits: dict[str, tuple[Commit, Position]] = field(default_factory=dict)
    reads: list[tuple[Committed, Position | None]] = field(default_factory=list)


def group_registers(evidence: Evidence) -> Iterator[Anomaly]:
    """K28: the committed offset of a group and partition behaves like one register.

    Every commit has a tag of its own, so each value is written once, and zones decide (Gibbons and Korach, Testing
    shared memories): no read ends before its commit began, no two forward zones overlap, no backward zone lies within
    a forward one. Commits of unknown outcome take part where their tag was read; a commit that failed was never to be
    read; what nobody has committed was there before everything. O(n log n).
    """
    for (group, tp), register in sorted(_registers(evidence).items()):
        if not evidence.lives(tp):
            continue
        wrong = misread(register)
        if wrong is not None:
            yield anomaly(evidence, "K28", f"{group} {tp}", wrong.explanation, *wrong.operations)


def _registers(evidence: Evidence) -> dict[tuple[str, str], Register]:
    registers: dict[tuple[str, str], Register] = {}
    tps: dict[str, set[str]] = {}
    for commit in evidence.history.commits:
        for tp, position in commit.positions.items():
            registers.setdefault((commit.group, tp), Register()).commits[position.tag] = (commit, position)
            tps.setdefault(commit.group, set()).add(tp)
    for read in evidence.history.committed_reads:
        for tp in sorted(tps.get(read.group, set()) | read.positions.keys()):
            register = registers.setdefault((read.group, tp), Register())
            register.reads.append((read, read.positions.get(tp)))
    return registers


def misread(register: Register) -> Misread | None:
    """Return why a register is not linearizable; None if it is."""
    reads_of: dict[str | None, list[Committed]] = {}
    for read, position in register.reads:
        if position is None:
            reads_of.setdefault(None, []).append(read)
            continue
        written = register.commits.get(position.tag)
        if written is None:
            return Misread(f"offset {position.offset} ({position.tag}) was read, and nobody has committed it", (read,))
        commit, meant = written
        if meant.offset != position.offset:
            text = f"{position.tag} committed offset {meant.offset} and was read as {position.offset}"
            return Misread(text, (commit, read))
        if commit.failed:
            return Misread(f"offset {position.offset} ({position.tag}) was read, and its commit failed", (commit, read))
        if read.completed < commit.invoked:
            return Misread(
                f"offset {position.offset} ({position.tag}) was read before it was committed", (read, commit)
            )
        reads_of.setdefault(position.tag, []).append(read)
    zones = []
    for tag, (commit, _) in register.commits.items():
        if commit.ok or tag in reads_of:
            zones.append(_zone([commit, *reads_of.get(tag, ())]))
    return _before_everything(reads_of.get(None, []), zones) or _conflict(zones)


def _zone(operations: Iterable[Operation]) -> Zone:
    given = list(operations)
    first = min(given, key=lambda one: one.completed)
    last = max(given, key=lambda one: one.invoked)
    return Zone(first.completed, last.invoked, first, last)


def _before_everything(reads: list[Committed], zones: list[Zone]) -> Misread | None:
    """What was there in the beginning is not read after any value has certainly been there."""
    if not reads or not zones:
        return None
    last = max(reads, key=lambda one: one.invoked)
    first = min(zones, key=lambda zone: zone.begin)
    if first.begin < last.invoked:
        return Misread("no offset was read after one had been committed", (first.first, last))
    return None


def _conflict(zones: list[Zone]) -> Misread | None:
    forward = sorted((zone for zone in zones if zone.forward), key=lambda zone: zone.begin)
    for one, two in pairwise(forward):
        if two.begin < one.end:
            return Misread("two offsets would have to be there at once", (one.first, one.last, two.first, two.last))
    # Forward zones are apart from each other now, so the one that may hold a backward zone is the last to begin before.
    place = -1
    for back in sorted((zone for zone in zones if not zone.forward), key=lambda zone: zone.end):
        while place + 1 < len(forward) and forward[place + 1].begin < back.end:
            place += 1
        if place >= 0 and back.begin < forward[place].end:
            zone = forward[place]
            return Misread(
                "an offset was committed and gone again while another one was there all the time",
                (zone.first, zone.last, back.first, back.last),
            )
    return None

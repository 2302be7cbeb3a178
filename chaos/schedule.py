"""Which fault happens when: drawn from a seed, saved, read again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.faults.fault import Layout
from quorumlog.errors import InvalidRequest

WARM_UP_SECONDS = 3.0
"""Before the first fault, so that there is something to lose."""
PERIOD_SECONDS = (5.0, 15.0)
SECONDS_MIN = WARM_UP_SECONDS + PERIOD_SECONDS[0] / 2
QUIET = 0.25
"""How many periods have no fault."""
AT_ONCE_MAX = 3
SHARE = (0.3, 0.8)
"""For how much of its period a fault lasts."""


class ScheduleInvalid(InvalidRequest):
    """A schedule, or what one is to be drawn from, cannot be used."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins, after the beginning of the run, and how long it lasts."""

    at_seconds: float
    fault: str
    parameters: dict[str, Any]
    seconds: float

    @property
    def end_seconds(self) -> float:
        """When it is over."""
        return self.at_seconds + self.seconds


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the names of faults as they are.

    Raises:
        ScheduleInvalid: one of them is not known.
    """
    given = tuple(kinds)
    for kind in given:
        if kind not in FAULTS:
            raise ScheduleInvalid(f"no fault is called {kind!r}", hint="there are " + ", ".join(sorted(FAULTS)))
    return given


def draw(rng: random.Random, layout: Layout, kinds: Sequence[str], seconds: float) -> list[Planned]:
    """Draw the faults of a run of so many seconds: in every period a few of `kinds`, in one of four none.

    At least one fault comes if there is any in `kinds`, whatever else is drawn.

    Raises:
        ScheduleInvalid: a kind is not known, or there is no time for any fault.
    """
    check_kinds(kinds)
    if kinds and seconds < SECONDS_MIN:
        raise ScheduleInvalid(
            f"{seconds:g} seconds have no room for a fault", hint=f"let it take at least {SECONDS_MIN:g}"
        )
    plan: list[Planned] = []
    begin = WARM_UP_SECONDS
    while kinds and begin <= seconds - PERIOD_SECONDS[0] / 2:
        length = min(rng.uniform(*PERIOD_SECONDS), seconds - begin)
        quiet = rng.random() < QUIET
        if plan and quiet:
            begin += length
            continue
        for kind in _together(rng, kinds):
            lasts = length * rng.uniform(*SHARE)
            at = begin + rng.uniform(0.0, length - lasts)
            plan.append(Planned(round(at, 3), kind, FAULTS[kind].draw(rng, layout), round(lasts, 3)))
        begin += length
    return sorted(plan, key=lambda one: one.at_seconds)


def _together(rng: random.Random, kinds: Sequence[str]) -> list[str]:
    """Draw the faults of one period. One of them at most is a fault of disks: two at once would take turns at a node
    that is down already."""
    drawn = rng.sample(sorted(kinds), rng.randint(1, min(AT_ONCE_MAX, len(kinds))))
    lossy = [kind for kind in drawn if not FAULTS[kind].spares_disks]
    return sorted(set(drawn) - set(lossy[1:]))


def victims(rng: random.Random, nodes: int) -> tuple[int, ...]:
    """Draw the nodes whose disks may lose something: a minority."""
    return tuple(sorted(rng.sample(range(1, nodes + 1), (nodes - 1) // 2)))


def save(plan: Iterable[Planned], path: Path) -> None:
    """Write a schedule as JSON, one fault on a line."""
    lines = ",\n  ".join(json.dumps(asdict(one)) for one in plan)
    path.write_text(f"[\n  {lines}\n]\n" if lines else "[]\n")


def load(path: Path, nodes: int) -> list[Planned]:
    """Read a schedule for a cluster of so many nodes.

    Raises:
        ScheduleInvalid: it is none, or not for such a cluster; the message names the file and the entry.
    """
    try:
        entries = json.loads(path.read_text())
    except OSError as error:
        raise ScheduleInvalid(
            f"cannot read {path}: {error.strerror}", hint="give the schedule.json of a run"
        ) from error
    except ValueError as error:
        raise ScheduleInvalid(f"{path} is not JSON: {error}", hint="give the schedule.json of a run") from error
    if not isinstance(entries, list):
        raise ScheduleInvalid(f"{path} is not a list of faults", hint="give the schedule.json of a run")
    plan = [_planned(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]
    lossy = {int(one.parameters["node"]) for one in plan if not FAULTS[one.fault].spares_disks}
    if len(lossy) > (nodes - 1) // 2:
        raise ScheduleInvalid(
            f"{path} takes something from the disks of {len(lossy)} of {nodes} nodes",
            hint="of a majority nothing may be lost: run it with the number of nodes it was drawn for",
        )
    return plan


def _planned(entry: object, where: str) -> Planned:
    wanted = {"at_seconds": (int, float), "fault": (str,), "parameters": (dict,), "seconds": (int, float)}
    if not isinstance(entry, dict) or set(entry) != set(wanted):
        raise ScheduleInvalid(f"{where} is no fault", hint="each has exactly " + ", ".join(wanted))
    for name, types in wanted.items():
        if not isinstance(entry[name], types) or isinstance(entry[name], bool):
            raise ScheduleInvalid(f"{where}: {name} = {entry[name]!r} is not possible", hint="see a schedule.json")
    check_kinds([entry["fault"]])
    return Planned(float(entry["at_seconds"]), entry["fault"], entry["parameters"], float(entry["seconds"]))

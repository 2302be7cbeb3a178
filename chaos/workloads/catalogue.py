"""Every workload by the name that `--workloads` calls it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quorumlog.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Workload:
    """One client program: its module, the topic it makes use of, and how it uses it.

    `rate` is operations per second, `padding` the bytes that each value gets besides.
    """

    name: str
    module: str
    topic: str
    partitions: int
    rate: float
    padding: int = 0


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("log", "quorumlog.chaos.workloads.log", "orders", 4, 200.0),
        Workload("groups", "quorumlog.chaos.workloads.groups", "tasks", 6, 60.0),
        Workload("metadata", "quorumlog.chaos.workloads.metadata", "churn", 1, 2.0),
        Workload("many", "quorumlog.chaos.workloads.log", "many", 64, 100.0),
        Workload("large", "quorumlog.chaos.workloads.log", "large", 2, 4.0, padding=700_000),
    )
}


def check_workloads(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of workloads as they are.

    Raises:
        InvalidRequest: one of them is not known, or there is none.
    """
    given = tuple(names)
    known = ", ".join(sorted(WORKLOADS))
    if not given:
        raise InvalidRequest("no workload is named: a run without clients shows nothing", hint=f"there are {known}")
    for name in given:
        if name not in WORKLOADS:
            raise InvalidRequest(f"no workload is called {name!r}", hint=f"there are {known}")
    return given

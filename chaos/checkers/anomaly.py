"""What a checker finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.history.events import Operation


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that must not be: its code, the partition or group it is about, and the shortest evidence in words.

    `operations` name those involved by process, number and time.
    """

    code: str
    subject: str
    explanation: str
    operations: tuple[str, ...]


Checker = Callable[[Evidence], Iterable[Anomaly]]


def anomaly(evidence: Evidence, code: str, subject: str, explanation: str, *operations: Operation | None) -> Anomaly:
    """Return an anomaly with its operations named, in the order of time, each once."""
    involved = {id(one): one for one in operations if one is not None}
    ordered = sorted(involved.values(), key=lambda one: one.invoked)
    return Anomaly(code, subject, explanation, tuple(evidence.name(one) for one in ordered))

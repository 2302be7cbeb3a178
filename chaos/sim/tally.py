"""What many runs add up to, and whether that is enough to mean anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.kinds import KINDS

ENOUGH_SEEDS: Final = 200
"""From so many on every kind of fault must have struck."""

ACKS_PER_SECOND_MIN: Final = 2.0
"""Records acknowledged per simulated second, over all; less would mean that the clusters mostly stood still."""

ALWAYS: Final = ("packets_lost", "packets_doubled", "packets_held_back", "packets_cut", "exits")
"""Faults that are no strokes."""

MUST_HAPPEN: Final = (
    "elections",
    "snapshot_installs",
    "repair_entered",
    "repair_exits",
    "damage_scrubbed",
    "nodes_removed",
)


@dataclass(slots=True)
class Outcome:
    """What one run gives back to whoever counts."""

    seed: int
    verdict: Verdict
    trace: str
    simulated_seconds: float
    cpu_seconds: float
    acked: int
    counts: dict[str, int]
    message: str = ""
    story: str = ""
    command: str = ""


@dataclass(slots=True)
class Tally:
    """The sum of outcomes."""

    seeds: int = 0
    simulated_seconds: float = 0.0
    cpu_seconds: float = 0.0
    acked: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one run."""
        self.seeds += 1
        self.simulated_seconds += outcome.simulated_seconds
        self.cpu_seconds += outcome.cpu_seconds
        self.acked += outcome.acked
        self.counts.update(outcome.counts)
        if outcome.verdict is not Verdict.GREEN:
            self.failures.append(outcome)

    @property
    def violations(self) -> int:
        """Runs that failed, of whatever class."""
        return len(self.failures)

    @property
    def missing(self) -> list[str]:
        """What should have happened, and did not."""
        missing = []
        if self.seeds >= ENOUGH_SEEDS:
            kinds = [f"fault {name}" for name, kind in KINDS.items() if kind.weight > 0]
            missing = [name for name in (*kinds, *ALWAYS, *MUST_HAPPEN) if not self.counts[name]]
        if self.acked < ACKS_PER_SECOND_MIN * self.simulated_seconds:
            missing.append(f"acks ({self.acked} in {self.simulated_seconds:.0f} s)")
        return missing

    @property
    def verdict(self) -> Verdict:
        """The gravest that there is."""
        verdicts = {failure.verdict for failure in self.failures}
        for verdict in (Verdict.CORRECTNESS, Verdict.CRASH, Verdict.LIVENESS):
            if verdict in verdicts:
                return verdict
        return Verdict.INVALID if self.missing else Verdict.GREEN

    def last_line(self) -> str:
        """Everything that was counted."""
        counts = self.counts
        strokes = _listed(counts, (name for name in sorted(counts) if name.startswith("fault ")))
        packets = _listed(counts, (name for name in ALWAYS if counts[name]))
        line = (
            f"seeds {self.seeds}, simulated hours {self.simulated_seconds / 3600:.2f}, operations "
            f"{counts['operations']}, acks {self.acked}, elections {counts['elections']}, snapshot installs "
            f"{counts['snapshot_installs']}, configuration changes {counts['configuration_changes']}, REPAIR entries "
            f"{counts['repair_entered']} and exits {counts['repair_exits']}, damaged entries found by scrubbing "
            f"{counts['damage_scrubbed']}, faults: {strokes}, {packets}; violations {self.violations}"
        )
        return line + (f"; INVALID, for lack of {', '.join(self.missing)}" if self.missing else "")


def _listed(counts: Counter[str], names: Iterable[str]) -> str:
    return ", ".join(f"{name.removeprefix('fault ')} {counts[name]}" for name in names)

"""Says whether what clients saw in a run is possible: `python -m quorumlog.chaos.judge DIR`.

Offline, on a saved folder, and deterministic: the same history has the same verdict. An anomaly convicts whatever else
is wrong with the run; without one a run passes only if enough succeeded in it, and every fault bit.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from quorumlog.chaos.checkers.all import CHECKERS
from quorumlog.chaos.checkers.anomaly import Anomaly
from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.gates import Gate, gates
from quorumlog.chaos.history.events import History
from quorumlog.chaos.history.reading import HistoryInvalid, read

TOLD_MAX: Final = 20
"""Of each code; one cause may have thousands of effects."""


class Finding(Enum):
    """How a run is judged."""

    PASSED = "passed"
    ANOMALY = "anomaly"
    INVALID = "invalid"

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return {Finding.PASSED: 0, Finding.ANOMALY: 3, Finding.INVALID: 4}[self]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a run.

    `counts` has the number of anomalies of each code that was found; `anomalies` the first ones of each. `gates` has
    every condition of validity, those that hold as well.
    """

    finding: Finding
    counts: dict[str, int]
    anomalies: tuple[Anomaly, ...]
    gates: tuple[Gate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what verdict.json has."""
        return {
            "verdict": self.finding.value,
            "counts": self.counts,
            "anomalies": [asdict(one) for one in self.anomalies],
            "gates": [{**asdict(gate), "open": gate.open} for gate in self.gates],
        }

    def to_text(self) -> str:
        """Return it for people: what is wrong first."""
        lines = [f"verdict: {self.finding.value}"]
        for one in self.anomalies:
            lines += [f"{one.code} {one.subject}: {one.explanation}", *(f"    {name}" for name in one.operations)]
        for code, count in self.counts.items():
            lines.append(f"{code}: {count} in all")
        for gate in self.gates:
            if not gate.open:
                lines.append(f"gate {gate.name}: {gate.measured:g} of {gate.required:g}: {gate.explanation}")
        return "\n".join(lines)


def judge(folder: Path) -> Verdict:
    """Judge a run and write verdict.json into its folder.

    Raises:
        HistoryInvalid: the folder is no run, or its history cannot be read.
    """
    collecting = gc.isenabled()
    gc.disable()  # as in reading: nothing that is made here is garbage
    try:
        verdict = judge_history(read(folder))
    finally:
        if collecting:
            gc.enable()
    (folder / "verdict.json").write_text(json.dumps(verdict.to_json(), indent=2) + "\n")
    return verdict


def judge_history(history: History) -> Verdict:
    """Judge a history that was read."""
    evidence = Evidence(history)
    found = [one for checker in CHECKERS.values() for one in checker(evidence)]
    counts = Counter(one.code for one in found)
    told: Counter[str] = Counter()
    anomalies = []
    for one in found:
        told[one.code] += 1
        if told[one.code] <= TOLD_MAX:
            anomalies.append(one)
    measured = tuple(gates(evidence))
    if found:
        finding = Finding.ANOMALY
    else:
        finding = Finding.PASSED if all(gate.open for gate in measured) else Finding.INVALID
    return Verdict(finding, dict(counts), tuple(anomalies), measured)


def main(arguments: list[str] | None = None) -> int:
    """Judge the folder on the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quorumlog.chaos.judge",
        description="Judge a run of chaos. Exit codes: 0 passed, 3 anomaly, 4 invalid, 2 the folder is no run.",
    )
    parser.add_argument("directory", type=Path, help="folder of the run")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    given = parser.parse_args(arguments)
    try:
        verdict = judge(given.directory)
    except HistoryInvalid as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(verdict.to_json(), indent=2) if given.output == "json" else verdict.to_text())
    return verdict.finding.exit_code


if __name__ == "__main__":
    sys.exit(main())

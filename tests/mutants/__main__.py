"""`python -m tests.mutants`: put each known bug into a copy of the tree and see that it is caught.

First every detector runs on the copy as it is and must find nothing. Then each mutant meets its detectors until the
first one kills it, two mutants at a time. A patch that no longer applies fails the run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import GENERAL, SIMULATED, Mutant, all_mutants
from tests.mutants.detecting import ROOT, SEARCH_SECONDS, Finding, copy_tree, detect, tree_hash
from tests.mutants.patch import DoesNotApply, apply

SOUND_SECONDS: Final = 30.0
"""Detectors with seeds of their own search the tree as it is for so long; they have whole nights elsewhere."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help="classes or beginnings of names (default: all)")
    parser.add_argument("--all", action="store_true", help="run every detector, not only up to the first kill")
    parser.add_argument("--again", action="store_true", help="run also what is known for this tree")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="mutants (default: %(default)s)")
    parser.add_argument(
        "--search", type=float, default=SEARCH_SECONDS, metavar="S", help="per drawing detector (default: %(default)g)"
    )
    options = parser.parse_args(words)
    mutants = [
        one
        for one in all_mutants()
        if not options.only or any(one.bug_class == name or one.name.startswith(name) for name in options.only)
    ]
    known = Results(ROOT / "build" / "mutants" / f"{tree_hash()}.jsonl", every=options.all, again=options.again)
    with tempfile.TemporaryDirectory(prefix="quorumlog-mutants-") as folder:
        sound = Path(folder) / "sound"
        copy_tree(sound)
        with ThreadPoolExecutor(options.at_once) as pool:
            if not all(list(pool.map(lambda one: _is_sound(sound, one, known), _detectors(mutants)))):
                return 1
            print("| class | mutant | killed by | seconds |\n|---|---|---|---|", flush=True)
            survived = 0
            for mutant, findings in zip(
                mutants,
                pool.map(lambda one: _try(one, sound, Path(folder), known, options.search), mutants),
                strict=True,
            ):
                survived += not _tell(mutant, findings)
    print(f"mutants {len(mutants)} killed {len(mutants) - survived} survived {survived}")
    return 1 if survived else 0


class Results:
    """What is known for one state of the tree: lines of JSON, so that a run that was broken off goes on."""

    def __init__(self, path: Path, *, every: bool, again: bool) -> None:
        self.every = every
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() and not again else ()
        self._known = {(one["text"], one["detector"]): Finding(*one["finding"]) for one in map(json.loads, lines)}

    def get(self, text: str, detector: str) -> Finding | None:
        """What the detector found in the tree with this patch, if it ran already."""
        return self._known.get((text, detector))

    def add(self, text: str, finding: Finding) -> None:
        """Remember a finding."""
        with self._path.open("a") as file:
            file.write(json.dumps({"text": text, "detector": finding.detector, "finding": finding}) + "\n")


def _detectors(mutants: Sequence[Mutant]) -> list[str]:
    return list(dict.fromkeys(detector for mutant in mutants for detector in mutant.detectors))


def _is_sound(copy: Path, detector: str, known: Results) -> bool:
    finding = known.get("", detector)
    if finding is None or finding.killed is not False:
        finding = detect(copy, detector, SOUND_SECONDS)
        known.add("", finding)
    if finding.killed is not False:
        print(f"{detector} does not pass without any mutant:\n{finding.output}")
    return finding.killed is False


def _try(mutant: Mutant, sound: Path, folder: Path, known: Results, seconds: float) -> list[Finding] | DoesNotApply:
    copy = folder / mutant.name
    findings: list[Finding] = []
    try:
        for detector in mutant.detectors:
            finding = known.get(mutant.text, detector)
            if finding is None:
                if not copy.exists():
                    copy_tree(copy, sound)
                    apply(mutant.text, copy)
                finding = detect(copy, detector, seconds)
                known.add(mutant.text, finding)
            findings.append(finding)
            if finding.killed and not known.every:
                break
    except DoesNotApply as error:
        return error
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return findings


def _tell(mutant: Mutant, findings: list[Finding] | DoesNotApply) -> bool:
    """Print a row; whether the mutant is dead, by a detector that may kill its class."""
    if isinstance(findings, DoesNotApply):
        print(f"| {mutant.bug_class} | {mutant.name} | DOES NOT APPLY: {findings} | |", flush=True)
        return False
    killers = [one for one in findings if one.killed]
    dead = any(one.detector in GENERAL or mutant.bug_class not in SIMULATED for one in killers)
    by = ", ".join(f"{one.detector} ({one.seconds:.0f} s)" for one in killers)
    unsure = ", ".join(f"{one.detector} cannot tell" for one in findings if one.killed is None)
    row = "; ".join(part for part in (by if dead else f"**SURVIVED** {by}".strip(), unsure) if part)
    seconds = sum(one.seconds for one in findings)
    print(f"| {mutant.bug_class} | {mutant.name} | {row} | {seconds:.0f} |", flush=True)
    return dead


if __name__ == "__main__":
    sys.exit(main())

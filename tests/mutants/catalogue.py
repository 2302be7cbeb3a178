"""The mutants: known bugs of known classes, each a patch with a header that says what it is.

    Class: R4
    Breaks: a leader commits entries of older terms by counting
    Seen: PySyncObj #169
    Detectors: tests/raft/test_scripts.py random

A detector is a file or folder of tests, or one of three programs that draw their seeds when they run: `random` (the
core alone), `groups` (consumer groups alone) and `sim` (whole clusters). Those look at general invariants and know of
no mutant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATCHES: Final = Path(__file__).parent / "patches"

GENERAL: Final = frozenset(("random", "groups", "sim"))
"""Detectors under seeds drawn at run time."""

SIMULATED: Final = (
    *("R1", "R2", "R5", "R9", "R10", "R11", "R12", "R13", "R15", "R17", "R18", "R21", "R23"),
    *("D1", "D3", "L1", "L10", "L12", "L15"),
)
"""Classes whose mutants the general invariants have to kill, each one of them, whatever else kills it."""

OTHERS: Final = ("R3", "R4", "R6", "R7", "R8", "R16", "R22", "D2", "D4", "D5", "D8", "D9", "L4", "X5")
"""Classes that any test may kill."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One patch. `name` is that of its file, which begins with the class."""

    name: str
    bug_class: str
    breaks: str
    detectors: tuple[str, ...]
    text: str


def read_mutant(path: Path) -> Mutant:
    """The mutant of a patch file. Raises KeyError where its header lacks a line."""
    text = path.read_text()
    header, _, _ = text.partition("\n--- a/")
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    return Mutant(path.stem, fields["Class"], fields["Breaks"], tuple(fields["Detectors"].split()), text)


def all_mutants() -> list[Mutant]:
    """All of them, class by class."""
    order = {name: place for place, name in enumerate((*_sorted("R"), *_sorted("D"), *_sorted("L"), *_sorted("X")))}
    return sorted(
        (read_mutant(path) for path in PATCHES.glob("*.patch")), key=lambda one: (order[one.bug_class], one.name)
    )


def _sorted(letter: str) -> list[str]:
    return sorted((one for one in (*SIMULATED, *OTHERS) if one[0] == letter), key=lambda one: int(one[1:]))

"""The record of a long run: one line per seed in a file, so that a run may be broken off and taken up again.

A line says which code it stands for: a hash of everything that decides whether records survive. As long as that is what
it was, a seed that was green need not be run again.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.tally import Outcome

COUNTED: Final = ("raft", "node/storage", "node/replica", "node/groups")
"""Folders whose change makes earlier runs worthless."""


def code_hash(root: Path) -> str:
    """A hash of the code that a run stands for, 16 characters."""
    total = hashlib.sha256()
    for folder in COUNTED:
        for path in sorted((root / folder).rglob("*.py")):
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def commit_of(root: Path) -> str:
    """The commit that is checked out, and whether files differ from it."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class Record:
    """The file. Each line: code hash, commit, seed, verdict, simulated seconds, acks, trace."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._code = code_hash(root)
        self._commit = commit_of(root)

    def _lines(self) -> Iterator[list[str]]:
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                words = line.split()
                if len(words) == 7 and words[0] == self._code:
                    yield words

    def green_seeds(self) -> set[int]:
        """Seeds that need not be run again."""
        return {int(words[2]) for words in self._lines() if words[3] == Verdict.GREEN.name}

    def sums(self) -> tuple[int, float, int]:
        """(seeds, simulated seconds, acks) that are green so far."""
        green = {words[2]: words for words in self._lines() if words[3] == Verdict.GREEN.name}
        seconds = sum(float(words[4]) for words in green.values())
        return len(green), seconds, sum(int(words[5]) for words in green.values())

    def add(self, outcome: Outcome) -> None:
        """Append the outcome of a seed."""
        words = (
            self._code,
            self._commit,
            outcome.seed,
            outcome.verdict.name,
            f"{outcome.simulated_seconds:.1f}",
            outcome.acked,
            outcome.trace,
        )
        with self._path.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

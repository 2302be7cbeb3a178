"""The transcripts of testdata/: each says in its first lines what it shows.

QUORUMLOG_RAFT_REWRITE=1 writes what they print now into their files; commit only changes that you understand.
"""

import os
from pathlib import Path

import pytest

from tests.raft.script import run_script

HERE = Path(__file__).parent
SCRIPTS = sorted((HERE / "testdata").glob("*.txt"))
README = HERE / "README.md"
BEGIN_OF_TABLE = "<!-- the table is written by QUORUMLOG_RAFT_REWRITE=1 -->\n\n"

CLASSES = {
    "R1": "term, vote or entries not durable before the reply",
    "R2": "a replica counts itself before its own sync",
    "R3": "a completion counts for what was cut and came back",
    "R4": "an entry of an older term committed by counting",
    "R5": "a matching suffix truncated",
    "R6": "committed beyond what was verified",
    "R7": "below the compacted prefix taken for a conflict",
    "R8": "match, next or commit index not monotone",
    "R9": "an answer of another term, session or stranger counted, or one counted twice",
    "R10": "success reported though the term changed",
    "R11": "a new leader reads before its first commit",
    "R12": "a stale leader reads",
    "R13": "pre-vote, check-quorum and stickiness lock each other out",
    "R14": "livelock under partial partitions or split votes",
    "R15": "membership: majorities that do not meet, two changes at once, removed ones counted",
    "R16": "learners: promoted too early, silent when asked, forgotten",
    "R17": "removed or wiped replicas disturb, or vote again",
    "R18": "snapshot and log not switched at once",
    "R19": "snapshots that are stale, come twice or get lost",
    "R20": "a healthy replica stays behind for ever",
    "R24": "a transfer leaves two writers or loses proposals",
}  # R21 to R23 are of the shell: applying, and which group a message is for.


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_prints_what_it_says(path: Path) -> None:
    before = path.read_text()
    now = run_script(before)
    if os.environ.get("QUORUMLOG_RAFT_REWRITE"):
        path.write_text(now)
    else:
        assert now == before


def test_every_class_of_bugs_that_is_the_cores_has_scripts() -> None:
    assert set(scripts_by_class()) == set(CLASSES)
    assert len(SCRIPTS) >= 30


def test_the_readme_lists_the_scripts_of_every_class() -> None:
    assert README.read_text().split(BEGIN_OF_TABLE)[1] == table()


def scripts_by_class() -> dict[str, list[str]]:
    """The scripts of each class, as their first lines say: `# R1, R2: what it shows`."""
    found: dict[str, list[str]] = {}
    for path in SCRIPTS:
        marks, _, purpose = path.read_text().partition("\n")[0].removeprefix("# ").partition(": ")
        assert purpose, f"{path.name} begins without classes and purpose"
        for mark in marks.split(", "):
            assert mark in CLASSES, f"{path.name} is of class {mark}"
            found.setdefault(mark, []).append(path.stem)
    return found


def table() -> str:
    rows = [
        f"| {mark} | {CLASSES[mark]} | {', '.join(scripts)} |\n"
        for mark, scripts in sorted(scripts_by_class().items(), key=lambda row: int(row[0][1:]))
    ]
    return "| class | what goes wrong | scripts |\n|---|---|---|\n" + "".join(rows)


if os.environ.get("QUORUMLOG_RAFT_REWRITE"):
    README.write_text(README.read_text().split(BEGIN_OF_TABLE)[0] + BEGIN_OF_TABLE + table())

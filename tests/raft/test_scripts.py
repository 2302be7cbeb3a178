"""The transcripts of testdata/: each says in its first lines what it shows.

QUORUMLOG_RAFT_REWRITE=1 writes what they print now into their files; commit only changes that you understand.
"""

import os
from pathlib import Path

import pytest

from tests.raft.script import run_script

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_prints_what_it_says(path: Path) -> None:
    before = path.read_text()
    now = run_script(before)
    if os.environ.get("QUORUMLOG_RAFT_REWRITE"):
        path.write_text(now)
    else:
        assert now == before


def test_there_are_scripts_and_each_tells_its_purpose() -> None:
    assert len(SCRIPTS) >= 25
    for path in SCRIPTS:
        assert path.read_text().startswith("# "), f"{path.name} begins without saying what it shows"

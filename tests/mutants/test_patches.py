"""Every mutant can be put into the tree as it is today, and every class has one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants.catalogue import GENERAL, OTHERS, SIMULATED, Mutant, all_mutants
from tests.mutants.detecting import ROOT
from tests.mutants.patch import DoesNotApply, apply, hunks_of

MUTANTS = all_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_applies_and_is_still_python(mutant: Mutant, tmp_path: Path) -> None:
    for hunk in hunks_of(mutant.text):
        copy = tmp_path / hunk.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / hunk.path, copy)
    for changed in apply(mutant.text, tmp_path):
        compile(changed.read_text(), str(changed), "exec")
        assert changed.relative_to(tmp_path).parts[0] in {"client", "node", "proto", "raft"}, "shipped code is broken"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_names_its_class_and_detectors_that_exist(mutant: Mutant) -> None:
    assert mutant.name.startswith(f"{mutant.bug_class}_")
    assert mutant.breaks
    for detector in mutant.detectors:
        assert detector in GENERAL or (ROOT / detector).exists()
    if mutant.bug_class in SIMULATED:
        assert mutant.detectors[0] in GENERAL, "it is not enough that a test written for it kills it"


def test_every_class_has_a_mutant() -> None:
    assert {*SIMULATED, *OTHERS} - {mutant.bug_class for mutant in MUTANTS} == set()


PATCH = "--- a/one.py\n+++ b/one.py\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"


def test_a_patch_applies_wherever_its_lines_have_moved(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("x\nx\nab\na\nb\nx\n")
    assert apply(PATCH, tmp_path) == [tmp_path / "one.py"]
    assert (tmp_path / "one.py").read_text() == "x\nx\nab\na\nc\nx\n"


@pytest.mark.parametrize("content", ["a\nx\n", "a\nb\na\nb\n"], ids=["nowhere", "twice"])
def test_a_patch_that_has_no_one_place_does_not_apply(content: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(content)
    with pytest.raises(DoesNotApply):
        apply(PATCH, tmp_path)
    assert (tmp_path / "one.py").read_text() == content

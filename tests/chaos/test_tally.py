"""What many runs add up to, and when that means nothing."""

from pathlib import Path

import pytest

from quorumlog.chaos.sim.__main__ import main
from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.kinds import KINDS
from quorumlog.chaos.sim.record import Record, code_hash
from quorumlog.chaos.sim.tally import ALWAYS, ENOUGH_SEEDS, MUST_HAPPEN, Outcome, Tally


def outcome(
    seed: int = 1, verdict: Verdict = Verdict.GREEN, acked: int = 1000, counts: dict[str, int] | None = None
) -> Outcome:
    """An outcome of a hundred simulated seconds."""
    return Outcome(seed, verdict, "0" * 32, 100.0, 1.0, acked, counts or {})


def everything() -> dict[str, int]:
    """Each fault once."""
    return dict.fromkeys([*(f"fault {name}" for name in KINDS), *ALWAYS, *MUST_HAPPEN], 1)


def test_the_gravest_failure_is_the_verdict() -> None:
    tally, verdicts = Tally(), [Verdict.LIVENESS, Verdict.CRASH, Verdict.CORRECTNESS]
    seen = []
    for verdict in verdicts:
        tally.add(outcome(verdict=verdict))
        seen.append(tally.verdict)
    assert seen == verdicts
    assert tally.violations == 3
    assert tally.last_line().endswith("violations 3")


def test_too_few_acknowledgements_are_not_green() -> None:
    tally = Tally()
    tally.add(outcome(acked=5))
    assert tally.verdict is Verdict.INVALID
    assert "INVALID, for lack of acks (5 in 100 s)" in tally.last_line()


def test_a_kind_of_fault_that_never_struck_in_many_seeds_is_not_green() -> None:
    tally, whole = Tally(), Tally()
    lacking = everything()
    del lacking["fault wiped"]
    for seed in range(ENOUGH_SEEDS):
        tally.add(outcome(seed, counts=lacking))
        whole.add(outcome(seed, counts=everything()))
    assert tally.missing == ["fault wiped"]
    assert tally.verdict is Verdict.INVALID
    assert whole.verdict is Verdict.GREEN


def test_a_record_knows_which_seeds_are_green_on_the_present_code(tmp_path: Path) -> None:
    for folder in ("raft", "node/storage", "node/replica", "node/groups"):
        (tmp_path / folder).mkdir(parents=True)
    code = tmp_path / "raft" / "core.py"
    code.write_text("term = 1\n")
    file = tmp_path / "record.txt"
    record = Record(file, tmp_path)
    record.add(outcome(7))
    record.add(outcome(8, Verdict.LIVENESS))
    record.add(outcome(9, acked=500))
    assert Record(file, tmp_path).green_seeds() == {7, 9}
    assert Record(file, tmp_path).sums() == (2, 200.0, 1500)
    before = code_hash(tmp_path)
    code.write_text("term = 2\n")
    assert code_hash(tmp_path) != before
    assert Record(file, tmp_path).green_seeds() == set()


def test_a_long_run_goes_on_where_it_was_broken_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--seeds",
        "3",
        "--first",
        "50",
        "--seconds",
        "3",
        "--processes",
        "1",
        "--record",
        str(tmp_path / "record"),
    ]
    assert main(words) == Verdict.GREEN
    assert "seeds 3, " in capsys.readouterr().out
    main(words)
    told = capsys.readouterr().out
    assert "seeds 50 to 52, 3 are green already" in told
    assert "green on this code so far: seeds 3" in told

"""The judge: no false alarm over legal histories, its gates, its command."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quorumlog.chaos.checkers.all import CHECKERS
from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.gates import Gate, gates
from quorumlog.chaos.history.reading import gather
from quorumlog.chaos.judge import Finding, judge, judge_history, main
from tests.chaos.model import MS, World
from tests.chaos.model_groups import lawful

HISTORIES = int(os.environ.get("QUORUMLOG_HISTORIES", "100"))
"""How many legal histories are judged; `make judge` takes 10,000."""
PARTS = max(10, HISTORIES // 200)


@pytest.mark.parametrize("part", range(PARTS))
def test_a_legal_history_raises_no_alarm(part: int) -> None:
    for seed in range(part, HISTORIES, PARTS):
        verdict = judge_history(lawful(seed).history())
        assert not verdict.anomalies, f"seed {seed}: {verdict.to_text()}"


def test_legal_histories_have_what_is_hard_to_judge() -> None:
    hard: Counter[str] = Counter()
    for seed in range(10):
        history = lawful(seed).history()
        logs = Evidence(history).all_logs()
        unknown = [one.values[0] in log.found for log in logs for one in log.produces if not one.ok and not one.failed]
        leaders = [one for one in history.fetches if one.leader]
        hard += Counter(
            {
                "unknown and found": sum(unknown),
                "unknown and not found": len(unknown) - sum(unknown),
                "refused": sum(one.failed for one in history.produces),
                "trimmed": sum(log.trimmed for log in logs),
                "deleted": sum(one.result == "deleted" for one in history.metas),
                "written twice": sum(len(log.again) for log in logs),
                "acknowledged as a duplicate": sum(one.duplicate for one in history.produces),
                "commit fenced": sum(one.failed for one in history.commits),
                "commit unknown": sum(not one.ok and not one.failed for one in history.commits),
                "partition released": sum(not one.given for one in history.ownerships),
                "read from a deposed leader": sum(
                    one.tp == two.tp and one.completed < two.invoked and one.high_watermark > two.high_watermark
                    for one, two in pairwise(leaders)
                ),
            }
        )
    assert len(hard) == 11
    assert min(hard.values()) >= 5, hard


def complete() -> World:
    """A legal run in which every final read succeeded."""
    worlds = (lawful(seed) for seed in range(20))
    return next(world for world in worlds if all(read.ok for read in world.history().final_reads))


@pytest.fixture
def world() -> World:
    return complete()


def test_a_legal_run_passes(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(world.save(tmp_path / "run")), "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "passed"
    assert json.loads((tmp_path / "run" / "verdict.json").read_text()) == told


def test_the_same_history_has_the_same_verdict(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "run")
    judge(tmp_path / "run")
    first = (tmp_path / "run" / "verdict.json").read_bytes()
    judge(tmp_path / "run")
    assert (tmp_path / "run" / "verdict.json").read_bytes() == first


def test_an_anomaly_convicts_also_an_invalid_run(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = next(line for line in world.lines if line["f"] == "final_read" and line["recs"])
    line["recs"][0][5] = "nothing that anybody wrote"
    world.save(tmp_path / "run", planned=[{"fault": "kill"}])
    assert main([str(tmp_path / "run")]) == 3
    told = capsys.readouterr().out
    assert told.startswith("verdict: anomaly\nK5 t/0: at offset ")
    assert "    final #1 final_read, " in told
    assert "gate bite kill: 0 of 1" in told


def test_a_run_in_which_a_fault_did_not_bite_is_invalid(world: World, tmp_path: Path) -> None:
    world.save(tmp_path / "run", planned=[{"fault": "kill"}])
    assert main([str(tmp_path / "run")]) == 4


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "run.json" in capsys.readouterr().err


def closed(world: World, planned: list[dict[str, Any]] | None = None, **run: Any) -> dict[str, Gate]:
    history = gather(world.run | run, planned or [], [dict(line) for line in world.lines])
    return {gate.name: gate for gate in gates(Evidence(history)) if not gate.open}


def nemesis(world: World, begin_ms: int, end_ms: int, targets: list[str], bit: dict[str, Any], number: int = 1) -> None:
    began = world.run["began_ns"]
    head = {"p": "nemesis", "s": number, "f": "nemesis"}
    told = {"kind": "kill", "targets": targets, "params": {}, "seed": 1}
    world.lines.append(head | {"t": began + begin_ms * MS, "e": "invoke"} | told)
    world.lines.append(head | {"t": began + end_ms * MS, "e": "ok", "bit": bit})


def test_too_little_succeeded(world: World) -> None:
    assert closed(world) == {}
    gate = closed(world, seconds=1000)["throughput"]
    assert gate.measured < gate.required == 50.0


def test_too_little_succeeded_while_a_fault_lasted(world: World) -> None:
    nemesis(world, 395, 3000, ["node 1"], {"exit_code": -9})
    (gate,) = closed(world).values()
    assert gate.name == "window kill nemesis #1"
    assert gate.measured < gate.required == 100


def test_a_short_window_needs_less() -> None:
    world = complete()
    nemesis(world, 395, 1500, ["node 1"], {"exit_code": -9})
    (gate,) = closed(world).values()
    assert gate.required == 55
    world = complete()
    nemesis(world, 395, 1200, ["node 1"], {"exit_code": -9})
    assert closed(world) == {}


@pytest.mark.parametrize(
    "targets", [["node 1", "node 2"], ["1>2", "3>2", "3>1"], ["node 2", "1>3"], ["node 1", "node 2", "node 3"]]
)
def test_without_a_majority_nothing_need_succeed(targets: list[str]) -> None:
    world = complete()
    world.lines = [{**line, "t": line["t"] + 5000 * MS} for line in world.lines]
    nemesis(world, 0, 4000, targets[:1], {"exit_codes": [-9]})
    nemesis(world, 1000, 3000, targets[1:], {"exit_codes": [-9]}, number=2)
    assert closed(world) == {}


def test_while_faults_together_hit_most_nodes_nothing_need_succeed() -> None:
    world = complete()
    world.lines = [{**line, "t": line["t"] + 5000 * MS} for line in world.lines]
    nemesis(world, 0, 2000, ["node 1"], {"exit_code": -9})
    assert closed(world).keys() == {"window kill nemesis #1"}
    nemesis(world, 1900, 4000, ["node 1"], {"exit_code": -9}, number=2)
    assert closed(world).keys() == {"window kill nemesis #1", "window kill nemesis #2"}
    nemesis(world, 1900, 4000, ["node 2"], {"exit_code": -9}, number=3)
    assert closed(world) == {}


@pytest.mark.parametrize(
    ("fact", "is_closed"),
    [
        ({"exits": [{"node": 1, "pid": 7, "status": -9, "expected": True}]}, False),
        ({"exits": [{"node": 1, "pid": 7, "status": 1, "expected": False}]}, False),
        ({"exits": [{"node": 1, "pid": 7, "status": -11, "expected": False}]}, True),
        ({"exits": [{"node": 1, "pid": 7, "status": 70, "expected": False}]}, True),
        ({"bugs": ["Traceback (most recent call last):"]}, True),
    ],
)
def test_a_node_that_shows_a_bug_makes_a_run_invalid(world: World, fact: dict[str, Any], is_closed: bool) -> None:
    assert ("nodes" in closed(world, **fact)) is is_closed


@pytest.mark.parametrize("targets", [["node 1"], ["1>2", "2>1"], ["orders"]])
def test_with_a_majority_something_must_succeed(targets: list[str]) -> None:
    world = complete()
    world.lines = [{**line, "t": line["t"] + 5000 * MS} for line in world.lines]
    nemesis(world, 0, 4000, targets, {"exit_codes": [-9]})
    assert closed(world).keys() == {"window kill nemesis #1"}


def test_a_fault_that_showed_nothing_did_not_bite(world: World) -> None:
    nemesis(world, 10, 20, ["node 1"], {})
    (gate,) = closed(world, planned=[{"fault": "kill"}]).values()
    assert (gate.name, gate.measured, gate.required) == ("bite kill", 0, 1)


def test_final_reads_are_missing(world: World) -> None:
    finals = [line for line in world.lines if line["f"] == "final_read"]
    for line in finals:
        if line["tp"] == "t/0":
            line["e"] = "fail"
    assert closed(world).keys() == {"final reads", "drained"}
    world.lines = [line for line in world.lines if line["f"] != "final_read"]
    assert closed(world).keys() == {"final reads", "drained"}


def test_a_value_is_written_once(world: World) -> None:
    one, two = [line for line in world.lines if line["f"] == "produce" and line["e"] == "invoke"][:2]
    two["vals"] = one["vals"]
    assert "values" in closed(world)


def test_every_code_has_a_rule() -> None:
    for code, checker in CHECKERS.items():
        assert (checker.__doc__ or "").startswith(f"{code}: ")


def test_every_code_is_told() -> None:
    page = (Path(__file__).resolve().parents[2] / "chaos" / "README.md").read_text()
    assert [code for code in CHECKERS if f"| {code} |" not in page] == []


def test_findings_have_codes_of_their_own() -> None:
    assert {finding: finding.exit_code for finding in Finding} == {
        Finding.PASSED: 0, Finding.ANOMALY: 3, Finding.INVALID: 4,
    }  # fmt: skip

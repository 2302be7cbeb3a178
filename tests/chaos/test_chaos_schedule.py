"""Schedules of faults: drawn from a seed, saved, replayed."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quorumlog.chaos import schedule
from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.faults.fault import Layout

KINDS = tuple(FAULTS)
SEEDS = range(50)


def drawn(seed: int, nodes: int = 3, kinds: tuple[str, ...] = KINDS, seconds: float = 120.0) -> list[schedule.Planned]:
    rng = random.Random(seed)
    return schedule.draw(rng, Layout(nodes, schedule.victims(rng, nodes), "orders", 4), kinds, seconds)


def test_a_seed_draws_the_same_schedule_always() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_stay_within_the_run(seed: int) -> None:
    for one in drawn(seed):
        assert schedule.WARM_UP_SECONDS <= one.at_seconds < one.end_seconds <= 120.0 + 1e-6


@pytest.mark.parametrize("seconds", [15.0, 60.0])
@pytest.mark.parametrize("kind", KINDS)
def test_any_fault_alone_comes_at_least_once(kind: str, seconds: float) -> None:
    for seed in SEEDS:
        assert {one.fault for one in drawn(seed, kinds=(kind,), seconds=seconds)} == {kind}


def test_a_run_without_time_for_a_fault_is_refused() -> None:
    assert len(drawn(1, seconds=schedule.SECONDS_MIN)) > 0
    with pytest.raises(schedule.ScheduleInvalid, match="5 seconds have no room for a fault"):
        drawn(1, seconds=5.0)


def test_without_faults_nothing_is_planned() -> None:
    assert drawn(1, kinds=()) == []


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_a_minority_at_most_loses_something_from_its_disk(nodes: int) -> None:
    for seed in SEEDS:
        plan = drawn(seed, nodes, ("flip", "truncate", "delete", "wipe"))
        assert len({one.parameters["node"] for one in plan}) <= (nodes - 1) // 2


def test_one_fault_of_disks_comes_at_a_time() -> None:
    for seed in SEEDS:
        lossy = [one for one in drawn(seed) if "seed" in one.parameters]
        assert all(one.end_seconds <= two.at_seconds for one, two in pairwise(lossy))


@pytest.mark.parametrize("nodes", [3, 4, 5])
@pytest.mark.parametrize("kind", ["halves", "isolate", "one_way", "ring", "bridge", "flapping"])
def test_partitions_cut_something_and_not_everything(kind: str, nodes: int) -> None:
    for seed in SEEDS:
        for one in drawn(seed, nodes, (kind,)):
            cut = {tuple(way) for way in one.parameters["ways"]}
            everything = {(a, b) for a in range(1, nodes + 1) for b in range(1, nodes + 1) if a != b}
            assert cut
            assert cut < everything


def test_what_was_saved_is_replayed(tmp_path: Path) -> None:
    for seed in SEEDS:
        plan = drawn(seed)
        schedule.save(plan, tmp_path / "schedule.json")
        assert schedule.load(tmp_path / "schedule.json", 3) == plan


def entry(**changes: Any) -> dict[str, Any]:
    return {"at_seconds": 4.0, "fault": "wipe", "parameters": {"node": 1, "seed": 1}, "seconds": 2.0} | changes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("{}", "is not a list of faults"),
        (json.dumps([{}]), "entry 1 is no fault"),
        (json.dumps([entry(), entry(seconds="2")]), "entry 2: seconds = '2'"),
        (json.dumps([entry(fault="sneeze")]), "no fault is called 'sneeze'"),
        (json.dumps([entry(), entry(parameters={"node": 2, "seed": 1})]), "the disks of 2 of 3 nodes"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(schedule.ScheduleInvalid) as refused:
        schedule.load(path, 3)
    assert said in str(refused.value)
    assert refused.value.hint


def test_a_schedule_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(schedule.ScheduleInvalid, match=r"cannot read .*nowhere\.json"):
        schedule.load(tmp_path / "nowhere.json", 3)


def test_unknown_faults_are_answered_with_those_there_are() -> None:
    with pytest.raises(schedule.ScheduleInvalid) as refused:
        schedule.check_kinds(["kill", "tickle"])
    assert "'tickle'" in refused.value.message
    assert "kill" in refused.value.hint

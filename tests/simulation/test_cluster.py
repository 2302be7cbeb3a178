"""Whole clusters in one thread under virtual time: what clients were promised holds for every seed.

A few short seeds; `make sim` runs as many long ones as you like, and `python -m quorumlog.chaos.sim --seed 17` one.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.seeds import Job, perform
from quorumlog.chaos.sim.tally import Tally

SEEDS = 32
SECONDS = 12.0


@pytest.mark.parametrize("first", range(0, SEEDS, 4))
def test_every_acknowledged_record_is_there_once_and_in_order_on_every_replica(first: int) -> None:
    tally = Tally()
    for seed in range(first, first + 4):
        outcome = perform(Job(seed, seconds=SECONDS))
        assert outcome.verdict is Verdict.GREEN, f"{outcome.story}\nagain: {outcome.command}"
        tally.add(outcome)
    # Green runs in which nothing happened would prove nothing.
    assert tally.acked >= 4 * SECONDS * 5
    assert sum(times for name, times in tally.counts.items() if name.startswith("fault ")) >= 8


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_cluster_of_one_or_two_nodes_keeps_its_promises_too(nodes: int) -> None:
    outcome = perform(Job(7, nodes, SECONDS))
    assert outcome.verdict is Verdict.GREEN, f"{outcome.story}\nagain: {outcome.command}"


@pytest.mark.parametrize("seed", [1, 12])
def test_the_same_seed_gives_the_same_trace_whatever_the_hash_seed(seed: int) -> None:
    here = perform(Job(seed, seconds=SECONDS)).trace
    command = [sys.executable, "-m", "quorumlog.chaos.sim", "--seed", str(seed), "--seconds", str(SECONDS)]
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert f"trace {here}" in done.stdout, f"PYTHONHASHSEED={hash_seed}: {done.stdout} {done.stderr}"


def test_different_seeds_give_different_traces() -> None:
    assert perform(Job(3, seconds=3.0)).trace != perform(Job(4, seconds=3.0)).trace

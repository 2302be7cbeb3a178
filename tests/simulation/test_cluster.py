"""Whole clusters in one thread under virtual time: what clients were promised holds for every seed.

`QUORUMLOG_SEED=17 pytest tests/simulation/test_cluster.py` runs one seed; every failure names its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quorumlog.chaos.sim.cluster import Run

SEEDS = 200
CHUNK = 10
ONE_SEED = os.environ.get("QUORUMLOG_SEED")
CHUNKS = [range(first, first + CHUNK) for first in range(0, SEEDS, CHUNK)]


def finished(seed: int) -> Run:
    """Run a seed to its end."""
    run = Run(seed)
    try:
        run.go()
    except BaseException:
        print(f"seed {seed} failed: run it alone with QUORUMLOG_SEED={seed}")
        raise
    return run


def run(seed: int) -> str:
    """The trace of a seed."""
    return finished(seed).world.trace


@pytest.mark.parametrize("seeds", CHUNKS if ONE_SEED is None else [[int(ONE_SEED)]], ids=str)
def test_every_acknowledged_record_is_there_once_and_in_order_on_every_replica(seeds: range | list[int]) -> None:
    acked = faults = 0
    for seed in seeds:
        print(f"seed {seed}")
        done = finished(seed)
        acked += done.acked
        faults += sum(done.struck.values())
    # Green runs in which nothing happened would prove nothing.
    assert acked >= 50 * len(seeds)
    assert faults >= len(seeds) or len(seeds) == 1


@pytest.mark.parametrize("seed", [1, 12])
def test_the_same_seed_gives_the_same_trace_whatever_the_hash_seed(seed: int) -> None:
    here = run(seed)
    program = f"from tests.simulation.test_cluster import run; print('trace', run({seed}))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"trace {here}" in done.stdout, f"PYTHONHASHSEED={hash_seed}: {done.stdout} {done.stderr}"


def test_different_seeds_give_different_traces() -> None:
    assert run(3) != run(4)

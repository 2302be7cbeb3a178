"""Safety under everything a network and a disk may do, then liveness. Replay one seed with QUORUMLOG_RAFT_SEED=n."""

import os

import pytest

from tests.raft.random_cluster import RandomCluster

SEEDS = 200
SEEDS_PER_TEST = 20
STEPS = 2000
ONLY = os.environ.get("QUORUMLOG_RAFT_SEED")
RANGES = [range(int(ONLY), int(ONLY) + 1)] if ONLY else [
    range(first, first + SEEDS_PER_TEST) for first in range(0, SEEDS, SEEDS_PER_TEST)
]  # fmt: skip


@pytest.mark.parametrize("seeds", RANGES, ids=str)
def test_a_cluster_keeps_its_promises_and_recovers(seeds: range) -> None:
    for seed in seeds:
        print(f"QUORUMLOG_RAFT_SEED={seed}")  # shown when the test fails; the last one is the one
        cluster = RandomCluster(seed)
        cluster.run(STEPS)
        cluster.recover()


def test_a_seed_replays_exactly() -> None:
    first, second = RandomCluster(7), RandomCluster(7)
    first.run(STEPS)
    second.run(STEPS)
    assert first.network == second.network
    assert first.written == second.written


def test_the_seeds_reach_what_they_are_for() -> None:
    clusters = [RandomCluster(seed) for seed in range(40)]
    for cluster in clusters:
        cluster.run(STEPS)
    assert sum(len(cluster.leaders) for cluster in clusters) > 80
    assert sum(len(cluster.committed) for cluster in clusters) > 1000
    assert sum(len(cluster.written) - len(cluster.committed) for cluster in clusters) > 500  # some had to give way
    assert sum(cluster.reads_answered for cluster in clusters) > 100
    assert sum(cluster.times_asleep for cluster in clusters) > 5

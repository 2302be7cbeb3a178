"""Safety under everything a network and a disk may do, then liveness. Replay one seed with QUORUMLOG_RAFT_SEED=n."""

import os

import pytest

from tests.raft.random_cluster import RandomCluster

SEEDS = 200
SEEDS_PER_TEST = 20
STEPS = 3000
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
    assert first.checks.written == second.checks.written


def test_the_seeds_reach_what_they_are_for() -> None:
    clusters = [RandomCluster(seed) for seed in range(60)]
    for cluster in clusters:
        cluster.run(STEPS)
    checks = [cluster.checks for cluster in clusters]
    assert sum(len(one.leaders) for one in checks) > 120
    assert sum(len(one.committed) for one in checks) > 1500
    assert sum(len(one.written) - len(one.committed) for one in checks) > 500  # some had to give way
    assert sum(one.reads_answered for one in checks) > 100
    assert sum(one.installs for one in checks) > 20
    assert sum(one.repairs for one in checks) > 20
    assert sum(len(one.configurations) for one in checks) > 120
    assert sum(cluster.wipes for cluster in clusters) > 5
    assert sum(cluster.rebirths for cluster in clusters) > 50
    assert sum(cluster.times_asleep for cluster in clusters) > 5

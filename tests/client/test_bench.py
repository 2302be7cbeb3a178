"""The arithmetic of the benchmark."""

import itertools
import json
from dataclasses import replace

import pytest

from quorumlog.bench.measure import Figures, Result, Settings, cycle_lists, payload_lists, percentile, syncs_per_second
from quorumlog.descriptions import NodeStatus, StorageDescription

SETTINGS = Settings(
    workload="produce",
    seconds=10.0,
    partitions=12,
    replicas=3,
    size_bytes=100,
    api="send_many",
    buffer_memory_bytes=8 << 20,
    seed=7,
    own_nodes=3,
)


def node(node_id: int, syncs: int, uptime: float) -> NodeStatus:
    storage = StorageDescription(0, 0, syncs, 0, uptime)
    return NodeStatus(node_id, f"host-{node_id}:7070", "", "", "member", storage=storage)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile(list(range(1, 101)), share) == value


def test_syncs_are_counted_over_uptime_per_node() -> None:
    before = [node(1, 100, 10.0), node(2, 50, 10.0)]
    after = [node(1, 300, 20.0), node(2, 50, 14.0)]
    assert syncs_per_second(before, after) == {1: 20.0, 2: 0.0}


def test_nodes_that_were_away_or_restarted_have_no_rate() -> None:
    away = NodeStatus(2, "host-2:7070", "", "", "unreachable", error="no answer")
    assert syncs_per_second([node(1, 100, 10.0), away], [node(1, 5, 1.0), node(2, 9, 9.0)]) == {}


def test_payloads_are_random_of_the_right_size_and_the_same_for_a_seed() -> None:
    lists = payload_lists(SETTINGS)
    values = [value for values in lists for value in values]
    assert {len(value) for value in values} == {100}
    assert len(set(values)) == len(values) == 100_000
    assert lists == payload_lists(SETTINGS)


def test_lists_fit_into_the_buffer_several_times() -> None:
    small = replace(SETTINGS, size_bytes=100_000, buffer_memory_bytes=1 << 20)
    lists = payload_lists(small)
    assert max(len(values) for values in lists) == 2
    assert sum(len(value) for values in lists for value in values) <= 64 << 20


def test_lists_come_round_again() -> None:
    assert list(itertools.islice(cycle_lists([[b"a"], [b"b"]]), 3)) == [[b"a"], [b"b"], [b"a"]]


def test_the_result_is_one_object_with_what_scripts_read() -> None:
    figures = Figures(1_600_000, 10.0, [0.001] * 98 + [0.002, 0.004], {"records_per_call": 10_000})
    result = Result(SETTINGS, figures, {1: 20.04, 2: 21.0}, {"durability": "durable"}).as_json()
    read = json.loads(json.dumps(result))
    assert read["records_per_second"] == 160_000.0
    assert (read["latency_p50_ms"], read["latency_p99_ms"], read["latency_max_ms"]) == (1.0, 2.0, 4.0)
    assert read["syncs_per_second"] == {"1": 20.0, "2": 21.0}
    assert read["settings"]["partitions"] == 12
    assert read["settings"]["durability"] == "durable"
    assert read["settings"]["records_per_call"] == 10_000


def test_a_workload_without_latencies_says_null() -> None:
    result = Result(SETTINGS, Figures(10, 1.0, (), {}), {}, {}).as_json()
    assert result["latency_p50_ms"] is None
    assert result["latency_p99_ms"] is None

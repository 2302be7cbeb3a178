"""Plans that `cluster reassign --file` reads: what other commands print, and what people write."""

import json
from pathlib import Path

import pytest

from quorumlog import TopicPartition
from quorumlog.cli.errors import UsageError
from quorumlog.cli.members import read_plan


def written(folder: Path, plan: object) -> Path:
    path = folder / "plan.json"
    path.write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return path


@pytest.mark.parametrize(
    "plan",
    [
        [{"topic": "orders", "partition": 3, "replicas": [2, 1]}],
        {"changes": [{"topic": "orders", "partition": 3, "before": [1], "after": [2, 1]}], "dry_run": True},
        {"version": 1, "partitions": [{"topic": "orders", "partition": 3, "replicas": [2, 1], "log_dirs": ["any"]}]},
    ],
    ids=["a list", "a plan that was printed", "as Kafka writes it"],
)
def test_partitions_and_their_nodes_are_read(tmp_path: Path, plan: object) -> None:
    assert read_plan(written(tmp_path, plan)) == {TopicPartition("orders", 3): (2, 1)}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ("{", "is not JSON"),
        ([], "names no partition"),
        ({}, "is no plan"),
        (7, "is no plan"),
        ([7], "is no plan: 7"),
        ([{"topic": "orders", "partition": 0}], "is no plan"),
        ([{"topic": "orders", "partition": True, "replicas": [1]}], "is no plan"),
        ([{"topic": "orders", "partition": 0, "replicas": [-1]}], "is no plan"),
        ([{"topic": "orders", "partition": 0, "replicas": [1 << 32]}], "is no plan"),
        ([{"topic": "orders", "partition": 0, "replicas": [1]}] * 2, "orders[0] twice"),
    ],
)
def test_what_is_no_plan_is_named(tmp_path: Path, plan: object, said: str) -> None:
    path = written(tmp_path, plan)
    with pytest.raises(UsageError) as refused:
        read_plan(path)
    assert said in refused.value.message
    assert str(path) in refused.value.message
    assert refused.value.hint

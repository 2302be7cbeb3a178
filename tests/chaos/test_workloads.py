"""What workloads write and read: values that prove themselves, and the programs that runs start."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from quorumlog.chaos.history.values import fault_of, value_of
from quorumlog.chaos.workloads.batches import batch_of, read_batches
from quorumlog.chaos.workloads.catalogue import WORKLOADS, check_workloads
from quorumlog.chaos.workloads.producing import pad, unpad
from quorumlog.chaos.workloads.program import Place, living, note_living
from quorumlog.errors import InvalidRequest

VALUE = value_of("orders/1", "p-1#2", 7, 1, 2)


@pytest.mark.parametrize("padding", [0, 1, 5, 700_000])
def test_padding_is_taken_off_again(padding: int) -> None:
    (padded,) = pad([VALUE], padding)
    assert len(padded) == len(VALUE) + (padding + 1 if padding else 0)
    assert fault_of(padded, "orders/1") is None
    assert unpad(padded) == VALUE


def test_padding_that_has_changed_stays_and_so_shows() -> None:
    (padded,) = pad([VALUE], 9)
    for wrong in (padded[:-1] + "|", padded + "?", padded[:-3] + "x" + padded[-2:]):
        assert unpad(wrong) == wrong


def test_a_batch_is_read_as_it_was_made() -> None:
    values = [value_of("orders/1", "p", 1, place, 3) for place in (1, 2, 3)]
    batch = batch_of(values, producer_id=9, epoch=2, sequence=2**31 - 1)
    batch.base_offset, batch.leader_epoch = 100, 4
    reads = read_batches([batch], 101)
    assert [(one.offset, one.value) for one in reads] == [(101, values[1]), (102, values[2])]
    assert {(one.term, one.producer_id, one.epoch) for one in reads} == {(4, 9, 2)}
    assert [one.sequence for one in reads] == [0, 1], "sequences wrap"


def test_a_topic_in_a_later_life_has_another_name_in_histories() -> None:
    assert Place("t", 2).tp(1) == "t/1"
    assert Place("t", 2, b"id", life=3).tp(1) == "t@3/1"


def test_topics_that_may_be_there_at_the_end_are_noted(tmp_path: Path) -> None:
    assert living(tmp_path) == []
    places = [Place("churn-1-1", 2, b"one", life=3), Place("churn-2-1", 2, b"two")]
    for place in places:
        note_living(tmp_path, place)
    assert living(tmp_path) == sorted(places, key=lambda place: place.label)


@pytest.mark.parametrize("names", [(), ("log", "sleep")])
def test_workloads_that_there_are_not_are_answered_with_those_there_are(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_workloads(names)
    assert "groups, large, log, many, metadata" in refused.value.hint


@pytest.mark.parametrize("module", sorted({one.module for one in WORKLOADS.values()}))
def test_every_workload_is_a_program(module: str, tmp_path: Path) -> None:
    assert importlib.import_module(module).play
    ran = subprocess.run([sys.executable, "-m", module], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "--bootstrap" in ran.stderr

"""Histories are written, and read as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quorumlog.chaos.history.events import NEVER, Outcome, Position, Record
from quorumlog.chaos.history.reading import HistoryInvalid, read
from quorumlog.chaos.history.values import fault_of, value_of
from quorumlog.chaos.history.writer import Recorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text('{"seed": 1}')
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    producer, reader = Recorder(folder, "producer"), Recorder(folder, "reader")
    values = [value_of("t/0", "producer", 1, place, 2) for place in (1, 2)]
    produce = producer.invoke("produce", tp="t/0", vals=values, acks="all", batch=True, pid=7, epoch=0, base_seq=4)
    produce.ok(base_offset=10, term=3, dup=False, node=2)
    fetch = reader.invoke("fetch", tp="t/0", max=1, node=1, consistency="leader", session="s", **{"from": 10})
    fetch.ok(recs=[[10, values[0], 3, 7, 0, 4]], hw=12, start=0, leader_term=3)
    reader.invoke("fetch", tp="t/0", max=1, node=1, consistency="leader", session="s", **{"from": 11}).fail()
    reader.tell("final_read", node=1, tp="t/0", recs=[[10, 3, 7, 0, 4, values[0], "d"]], start=10, hw=12, commit=None)
    producer.close()
    reader.close()

    history = read(folder)

    (told,) = history.produces
    assert (told.process, told.number, told.ok, told.values) == ("producer", 1, True, values)
    assert (told.base_offset, told.term, told.node, told.producer_id, told.base_sequence) == (10, 3, 2, 7, 4)
    assert told.invoked < told.completed
    (fetched,) = history.fetches  # the one that failed leaves no trace
    assert fetched.records == [Record(10, values[0], 3, 7, 0, 4)]
    assert fetched.records[0].value is told.values[0]
    assert (fetched.leader, fetched.node, fetched.high_watermark, fetched.term) == (True, 1, 12, 3)
    (final,) = history.final_reads
    assert final.records == [Record(10, values[0], 3, 7, 0, 4, "d")]
    assert (final.start, final.committed) == (10, 12)
    assert history.successes == [told.completed, fetched.completed]


def test_an_unknown_outcome_retires_the_process(folder: Path) -> None:
    recorder = Recorder(folder, "p")
    recorder.invoke("commit", group="g", member="m", gen=3, offsets={"t/0": [5, "a"]}).info(error="late")
    assert recorder.process == "p#2"
    recorder.invoke("commit", group="g", member="m", gen=3, offsets={"t/0": [5, "b"]})
    recorder.close()

    unknown, open_one = read(folder).commits

    assert [unknown.process, open_one.process] == ["p", "p#2"]
    assert unknown.outcome is open_one.outcome is Outcome.INFO
    assert unknown.completed == open_one.completed == NEVER
    assert open_one.positions == {"t/0": Position(5, "b")}


def test_files_are_merged_by_time(folder: Path) -> None:
    for name, times in (("a", (5, 1)), ("b", (3, 2))):
        lines = [{"t": t, "p": name, "s": t, "e": "ok", "f": "init_pid", "pid": t, "epoch": 0} for t in times]
        write(folder, name, lines)
    assert [one.producer_id for one in read(folder).producers] == [1, 2, 3, 5]


def test_a_fault_has_its_end_and_what_shows_that_it_bit(folder: Path) -> None:
    recorder = Recorder(folder, "nemesis")
    recorder.invoke("nemesis", kind="kill", targets=["node 1"], params={"node": 1}, seed=1).ok(bit={"exit_code": -9})
    recorder.close()
    (fault,) = read(folder).faults
    assert (fault.kind, fault.targets, fault.parameters, fault.bit) == (
        "kill", ["node 1"], {"node": 1}, {"exit_code": -9},
    )  # fmt: skip


def test_a_line_that_was_torn_by_a_kill_is_left_out(folder: Path) -> None:
    path = write(folder, "p", [{"t": 1, "p": "p", "s": 1, "e": "ok", "f": "init_pid", "pid": 1, "epoch": 0}])
    with path.open("a") as file:
        file.write('{"t": 2, "p": "p"')
    assert len(read(folder).producers) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1, is not JSON"),
        ('{"t": 1}', "line 1, is no event"),
        ('{"t": 1, "p": "p", "s": 1, "e": "ok", "f": "dance"}', "dance"),
        ('{"t": 1, "p": "p", "s": 1, "e": "invoke", "f": "meta"}\n' * 2, "line 2, .*begins twice"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, line: str, message: str) -> None:
    (folder / "history").mkdir()
    (folder / "history" / "p.jsonl").write_text(line + "\n")
    with pytest.raises(HistoryInvalid, match=message):
        read(folder)


def test_a_folder_that_is_no_run_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(HistoryInvalid, match=r"run\.json"):
        read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(HistoryInvalid, match=r"history/\*\.jsonl"):
        read(tmp_path)


def test_values_prove_themselves() -> None:
    value = value_of("orders@2/0", "p#3", 17, 1, 4)
    assert fault_of(value, "orders@2/0") is None
    assert fault_of(value + "|padding|of any kind", "orders@2/0") is None
    assert fault_of(value, "orders/0") == "it belongs to orders@2/0"
    assert fault_of(value.replace("|17|", "|18|"), "orders@2/0") == "its checksum is wrong"
    assert fault_of("something else", "orders@2/0") == "it is no value of this run"


def write(folder: Path, name: str, lines: list[dict[str, Any]]) -> Path:
    path = folder / "history" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path

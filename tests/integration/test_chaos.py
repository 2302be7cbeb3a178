"""A short run of real processes, one of which is killed, as `quorumlog chaos run` does it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quorumlog.chaos.history.reading import read

RUN_SECONDS = 110.0
SECONDS = 16


PROGRAM = (sys.executable, "-m", "quorumlog")


def command(directory: Path, *more: str) -> list[str]:
    return [*PROGRAM, "chaos", "run", "--directory", str(directory), *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chaos") / "run"
    more = ("--seconds", str(SECONDS), "--seed", "1", "--faults", "kill", "--output", "json")
    ran = subprocess.run(command(directory, *more), capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout)
    assert (said["verdict"], said["directory"], said["seed"]) == ("passed", str(directory), 1)
    return directory


def test_the_run_is_judged_again_with_the_same_verdict(folder: Path) -> None:
    before = (folder / "verdict.json").read_bytes()
    words = [*PROGRAM, "chaos", "judge", str(folder), "--output", "json"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"directory": str(folder)} | json.loads(before)
    assert (folder / "verdict.json").read_bytes() == before


def test_a_record_that_is_gone_from_every_replica_convicts(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "run"
    shutil.copytree(folder, broken)
    path = broken / "history" / "final.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line["recs"][5:6]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [*PROGRAM, "chaos", "judge", str(broken)]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert ran.returncode == 3, ran.stdout
    assert ran.stdout.startswith("verdict: anomaly\n")


def test_the_fault_bit_and_the_killed_node_came_back(folder: Path) -> None:
    history = read(folder)
    assert {fault.kind for fault in history.faults} == {"kill"}
    assert all(fault.bit["exit_code"] == -signal.SIGKILL for fault in history.faults)
    starts = history.run["starts"]
    assert sum(starts.values()) == 3 + len(history.faults)


def test_clients_were_answered_and_every_replica_was_read(folder: Path) -> None:
    history = read(folder)
    assert len(history.successes) > 50 * SECONDS
    assert len(history.final_reads) == 3 * 4
    assert all(final.ok for final in history.final_reads)


def test_nothing_is_left_running(folder: Path) -> None:
    assert running(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    directory = tmp_path / "run"
    with subprocess.Popen(command(directory), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "the clients work" in line)
        assert said
        assert running(directory)
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(RUN_SECONDS) == 130
    assert f"interrupted; what there is of the run is in {directory}" in rest
    assert running(directory) == []


def running(folder: Path) -> list[tuple[str, bytes]]:
    """Processes that know of a folder, but for those that test it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(pid) != os.getpid():
            found.append((pid, words))
    return found


def test_the_schedule_can_be_replayed(folder: Path) -> None:
    planned = json.loads((folder / "schedule.json").read_text())
    assert [one["fault"] for one in planned] == [fault.kind for fault in read(folder).faults]

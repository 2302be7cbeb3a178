"""A short run of real processes, one of which is killed, as `quorumlog chaos run` does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quorumlog.chaos.history.reading import read

RUN_SECONDS = 110.0
SECONDS = 16


def command(directory: Path, *more: str) -> list[str]:
    program = "import sys; from quorumlog.cli.main import main; sys.exit(main())"
    return [sys.executable, "-c", program, "chaos", "run", "--directory", str(directory), *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chaos") / "run"
    more = ("--seconds", str(SECONDS), "--seed", "1", "--faults", "kill", "--output", "json")
    ran = subprocess.run(command(directory, *more), capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert ran.returncode == 0, ran.stderr
    (directory / "said.json").write_text(ran.stdout)
    return directory


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

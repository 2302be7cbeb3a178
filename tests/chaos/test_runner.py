"""What a run does when something in it does not go as it should."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from quorumlog.chaos.clients import ClientFailed, ClientProgram
from quorumlog.chaos.runner import Orders, Run
from quorumlog.errors import InvalidRequest


def orders(directory: Path, replay: Path | None = None) -> Orders:
    return Orders(directory, 3, 60.0, 1, ("kill",), ("log",), replay)


def test_a_folder_that_is_in_use_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"is not empty \(give a new folder with --directory\)"):
        asyncio.run(Run(orders(tmp_path), print).run())
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_seed_draws_the_same_run(tmp_path: Path) -> None:
    assert Run(orders(tmp_path), print).plan == Run(orders(tmp_path), print).plan


def test_a_schedule_that_was_saved_is_taken_as_it_is(tmp_path: Path) -> None:
    entry = {"at_seconds": 4.0, "fault": "pause", "parameters": {"node": 1}, "seconds": 2.0}
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps([entry]))
    (planned,) = Run(orders(tmp_path / "run", path), print).plan
    assert (planned.fault, planned.at_seconds, planned.seconds) == ("pause", 4.0, 2.0)


def test_a_client_that_ends_by_itself_is_named_with_its_last_words(tmp_path: Path) -> None:
    async def until_seen() -> None:
        client = ClientProgram("log", tmp_path / "log.log", "quorumlog.chaos.no_such_workload")
        client.start()
        try:
            while True:
                client.check()
                await asyncio.sleep(0.01)
        finally:
            client.end()

    with pytest.raises(ClientFailed, match=r"the workload log ended with exit code 1: .*no_such_workload"):
        asyncio.run(until_seen())

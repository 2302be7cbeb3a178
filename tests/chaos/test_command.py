"""What the program says: the seed first and last, a story of a failure, and how few faults it takes."""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim import schedule
from quorumlog.chaos.sim.__main__ import main
from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.swarm import Swarm
from quorumlog.chaos.sim.tally import ALWAYS
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.raft import Ready

ONE = ["--seed", "1", "--nodes", "3", "--seconds", "6"]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that answer before they have synced."""
    after_write = MultiRaft._after_write

    def send_at_once(self: MultiRaft, replica: Replica, ready: Ready) -> None:
        for message in ready.messages_after_sync:
            self._send(replica.group_id, message)
        after_write(self, replica, ready)

    monkeypatch.setattr(MultiRaft, "_after_write", send_at_once)


def test_a_green_seed_is_told_in_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ONE) == Verdict.GREEN
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "seed 1"
    assert lines[1].startswith("trace ")
    assert lines[2].startswith("seeds 1, simulated hours 0.00, operations ")
    assert lines[2].endswith("violations 0")


def test_a_failure_is_a_story_with_the_command_that_replays_it(hasty: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ONE) == Verdict.CORRECTNESS
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == lines[-1] == "seed 1"
    assert any(line.startswith("correctness: seed 1: group ") for line in lines)
    assert any(line.startswith("node 2: ") for line in lines), "who was how in the end"
    assert "again: python -m quorumlog.chaos.sim --seed 1 --nodes 3 --seconds 6" in lines
    assert len(lines) <= 66


def test_the_shortest_schedule_is_found(hasty: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ONE, "--shrink"]) == Verdict.CORRECTNESS
    told = capsys.readouterr().out
    assert "0 of 3 faults are enough" in told, "this bug needs none"
    assert "--seconds 6 --only none" in told


def test_faults_may_be_left_out_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    swarm = Swarm(1, 3, 6.0)
    drawn = schedule.draw(swarm.rng, swarm.seconds, swarm.kinds_share)
    assert [stroke.number for stroke in drawn] == [0, 1, 2]
    assert main([*ONE, "--only", "1"]) == Verdict.GREEN
    faults = capsys.readouterr().out.split("faults: ")[1].split(";")[0].split(", ")
    names = {part.rsplit(" ", 1)[0] for part in faults if part}
    assert names - {*ALWAYS, "lying_plane"} <= {drawn[1].kind}

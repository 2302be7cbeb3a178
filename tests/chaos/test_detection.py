"""The simulator sees what it is there to see: shipped code that is broken on purpose fails in the class it should.

Each of these is a bug that was found in a well-known system. They are put in for one run, so that nothing shipped has a
switch for them.
"""

from __future__ import annotations

import pytest

from quorumlog.chaos.sim.failures import Verdict
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.seeds import Job, perform
from quorumlog.chaos.sim.tally import Outcome
from quorumlog.node.broker.scrubbing import Scrubbing
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.partition import PartitionMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.raft import Ready

SECONDS = 30.0


def first_failure(seeds: int = 6) -> Outcome:
    """The first of some seeds that fails."""
    for seed in range(1, seeds + 1):
        outcome = perform(Job(seed, 3, SECONDS))
        if outcome.verdict is not Verdict.GREEN:
            return outcome
    raise AssertionError(f"none of {seeds} seeds has seen it")


def test_acknowledgements_and_votes_that_do_not_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    after_write = MultiRaft._after_write

    def hasty(self: MultiRaft, replica: Replica, ready: Ready) -> None:
        for message in ready.messages_after_sync:
            self._send(replica.group_id, message)
        after_write(self, replica, ready)

    monkeypatch.setattr(MultiRaft, "_after_write", hasty)
    outcome = first_failure()
    assert outcome.verdict is Verdict.CORRECTNESS
    assert "would come back" in outcome.message or "not on its disk" in outcome.message


def test_a_leader_that_counts_itself_before_its_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    after_write = MultiRaft._after_write

    def hasty(self: MultiRaft, replica: Replica, ready: Ready) -> None:
        after_write(self, replica, ready)
        if ready.must_sync and replica.raft.is_leader and self.replicas.get(replica.group_id) is replica:
            replica.raft.on_persisted(ready.persisted)

    monkeypatch.setattr(MultiRaft, "_after_write", hasty)
    outcome = first_failure()
    assert outcome.verdict is Verdict.CORRECTNESS
    assert "durable on" in outcome.message


def test_votes_that_are_in_the_database_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = SimNode.submit

    def lazy(self: SimNode, *, votes: bool, done: object) -> None:
        submit(self, votes=False, done=done)  # type: ignore[arg-type]

    monkeypatch.setattr(SimNode, "submit", lazy)
    outcome = first_failure()
    assert outcome.verdict is Verdict.CORRECTNESS
    assert "by its votes file" in outcome.message


def test_a_fold_that_forgets_its_producers(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = PartitionMachine.restore

    def forgetful(self: PartitionMachine, state: bytes) -> None:
        restore(self, state)
        self._producers.clear()

    monkeypatch.setattr(PartitionMachine, "restore", forgetful)
    assert first_failure().verdict is Verdict.CORRECTNESS


def test_an_exception_in_the_shipped_code_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PartitionMachine) -> bytes:
        raise ZeroDivisionError("made to fail")

    monkeypatch.setattr(PartitionMachine, "snapshot", broken)
    outcome = first_failure(1)
    assert outcome.verdict is Verdict.CRASH
    assert "ZeroDivisionError: made to fail" in outcome.story


def test_a_quorum_that_does_nothing_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 3.0
    monkeypatch.setattr("quorumlog.chaos.sim.run.SETTLING_SECONDS", seconds)
    monkeypatch.setattr(SimNode, "release_syncs", lambda self: None)
    outcome = next(
        outcome for seed in range(1, 9) if (outcome := perform(Job(seed, 3, 10.0))).verdict is Verdict.LIVENESS
    )
    assert "within 3 s" in outcome.message


def test_a_scrubber_that_keeps_to_itself_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scrubbing, "_note", lambda self, replica, damaged: None)
    outcome = first_failure()
    assert outcome.verdict is Verdict.CORRECTNESS
    assert "and nobody knows" in outcome.message

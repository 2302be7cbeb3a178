"""A replica between its core, its log and its machine: who is answered, when, and with what."""

from __future__ import annotations

import pytest

from quorumlog.node.replica.replica import Committed
from tests.node.replica.rig import Answers, Rig, append


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_burst_larger_than_one_turn_applies_is_answered_to_its_end(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    for _ in range(3):
        append(rig, replica, answers, size_bytes=3 << 20)
    rig.settle()
    assert replica.raft.applied == replica.raft.commit_index == replica.raft.last_index
    assert [type(result) for result in answers.results] == [Committed] * 3


def test_a_read_confirmed_in_the_turn_that_removes_its_group_is_refused(rig: Rig) -> None:
    cluster, doomed = rig.leader(1), rig.leader(7)
    answers = Answers()

    def remove(*_: object) -> None:
        if 7 in rig.multi.replicas:
            rig.multi.remove(7)
            doomed.stop("topic 't' was deleted")

    rig.on_applied = remove
    append(rig, cluster, Answers())
    rig.pump()
    rig.finish_sync()  # the next turn applies the removal, and has the read confirmed
    doomed.read_index(answers)
    rig.multi.touch(doomed)
    rig.settle()
    assert answers.results == [False]

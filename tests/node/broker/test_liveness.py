"""Who is alive, and what a new session or a silent peer means for the groups shared with it."""

from __future__ import annotations

import pytest

from quorumlog.node.broker.liveness import GONE_SECONDS, SILENT_SECONDS, Liveness
from quorumlog.node.replica.replica import Replica
from quorumlog.raft import Message, MessageType, NodeId, Term
from tests.node.replica.rig import Answers, Rig, append


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def liveness(rig: Rig) -> Liveness:
    return Liveness(rig.multi, 100.0)


@pytest.fixture
def led(rig: Rig) -> Replica:
    """A group led here whose peers have everything."""
    replica = rig.leader(7, voters=(1, 2, 3))
    for peer in (2, 3):
        rig.acknowledge(replica, peer)
    rig.settle()
    return replica


def match_index(replica: Replica, peer: int) -> int:
    progress = replica.raft.progress(NodeId(peer))
    assert progress is not None
    return progress.match_index


def state(replica: Replica, peer: int) -> str:
    progress = replica.raft.progress(NodeId(peer))
    assert progress is not None
    return progress.state.value


def test_a_peer_lives_while_it_is_heard(liveness: Liveness) -> None:
    assert not liveness.is_alive(2)
    liveness.on_connected(2, 11, 0.0)
    liveness.tick(SILENT_SECONDS)
    assert liveness.is_alive(2)
    assert liveness.on_heard(2, 11, SILENT_SECONDS)
    liveness.tick(2 * SILENT_SECONDS)
    assert liveness.is_alive(2)
    liveness.tick(2 * SILENT_SECONDS + 0.1)
    assert not liveness.is_alive(2)


def test_words_of_a_process_that_is_gone_are_dropped(liveness: Liveness) -> None:
    assert not liveness.on_heard(2, 11, 0.0), "no stream was opened"
    liveness.on_connected(2, 11, 0.0)
    liveness.on_connected(2, 12, 0.0)
    assert not liveness.on_heard(2, 11, 1.0)
    liveness.tick(SILENT_SECONDS + 0.1)
    assert not liveness.is_alive(2), "they are no sign of life of the new process"


def test_a_new_session_forgets_what_the_peer_had_acknowledged(led: Replica, liveness: Liveness) -> None:
    liveness.on_connected(2, 11, 0.0)
    assert match_index(led, 2) == 0
    assert match_index(led, 3) > 0


def test_another_stream_of_the_same_session_changes_nothing(rig: Rig, led: Replica, liveness: Liveness) -> None:
    liveness.on_connected(2, 11, 0.0)
    rig.acknowledge(led, 2)
    liveness.on_connected(2, 11, 1.0)
    assert match_index(led, 2) > 0


@pytest.mark.parametrize("how", ["broken", "silent", "dropped"])
def test_what_may_be_lost_on_the_way_to_a_peer_is_probed_for(
    rig: Rig, led: Replica, liveness: Liveness, how: str
) -> None:
    liveness.on_connected(2, 11, 0.0)
    rig.settle()
    rig.acknowledge(led, 2)
    rig.settle()
    assert state(led, 2) == "replicate"
    append(rig, led, Answers())
    rig.settle()
    rig.sent.clear()
    if how == "broken":
        liveness.on_disconnected(2)
    elif how == "silent":
        liveness.tick(SILENT_SECONDS + 0.1)
    else:
        liveness.on_dropped(2)
    assert state(led, 2) == "probe"
    assert state(led, 3) == "replicate"
    rig.settle()
    again = [message for _, message in rig.sent if message.to == 2 and message.type is MessageType.APPEND]
    assert len(again) == 1


def test_dropping_to_a_dead_peer_again_and_again_ends_by_itself(rig: Rig, led: Replica, liveness: Liveness) -> None:
    rounds = 0
    append(rig, led, Answers())
    while True:
        rig.settle()
        lost: list[Message] = [message for _, message in rig.sent if message.to == 2 and message.entries]
        rig.sent.clear()
        if not lost:
            break
        rounds += 1
        assert rounds < 5, "a leader must not spin for a peer that is down"
        liveness.on_dropped(2)


@pytest.mark.parametrize(("how", "asks"), [("dropped", False), ("broken", True)])
def test_a_leader_that_reads_slowly_is_not_voted_out_and_one_whose_stream_breaks_is(
    rig: Rig, liveness: Liveness, how: str, asks: bool
) -> None:
    rig.add(7, voters=(1, 2, 3))
    liveness.on_connected(2, 11, 0.0)
    rig.step(7, Message(MessageType.HEARTBEAT, NodeId(2), NodeId(1), Term(1)))
    rig.settle()
    rig.sent.clear()
    if how == "dropped":
        liveness.on_dropped(2)
    else:
        liveness.on_disconnected(2)
    for _ in range(8):
        rig.multi.tick()
        rig.settle()
    assert (MessageType.PRE_VOTE in rig.sent_types(7)) == asks


def test_a_peer_is_gone_only_after_a_silence_longer_than_a_restart(liveness: Liveness) -> None:
    assert not liveness.is_gone(2, 100.0 + GONE_SECONDS), "it may not have been reached yet"
    assert liveness.is_gone(2, 100.1 + GONE_SECONDS)
    liveness.on_connected(2, 5, 200.0)
    assert not liveness.is_gone(2, 200.0)
    liveness.on_disconnected(2)
    assert not liveness.is_alive(2)
    assert not liveness.is_gone(2, 200.0 + GONE_SECONDS)
    assert liveness.is_gone(2, 200.1 + GONE_SECONDS)

"""Who leads what: the own replica's word, hints, and topics that may just have been created."""

from __future__ import annotations

import random

from quorumlog.node.coordination.view import LeaderHint, NoCoordination
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import peer_pb2
from quorumlog.raft import NodeId, Term
from tests.node.broker.lone_broker import NODE, LoneBroker
from tests.node.coordination.lying import LyingCoordination


class Hints(NoCoordination):
    """A coordination plane that says what a test has put in."""

    def __init__(self) -> None:
        self.hints: dict[int, LeaderHint] = {}

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        return self.hints.get(group_id)


def test_a_hint_of_any_node_and_term_can_be_asked_for() -> None:
    hints = Hints()
    node = LoneBroker(hints)
    for node_id in (0, 1, 9, (1 << 64) - 1):
        for term in (0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            hints.hints[99] = LeaderHint(NodeId(node_id), Term(term))
            leader = node.broker.directory.leader_of(99)
            assert (leader is not None) == (node_id == NODE and term < 1 << 63)


def test_a_lying_plane_does_not_hide_a_leader_that_was_heard() -> None:
    node = LoneBroker(LyingCoordination([NODE], random.Random(3)))
    for _ in range(50):
        leader = node.broker.directory.leader_of(CLUSTER_GROUP_ID)
        assert leader is not None
        assert leader.node_id == NODE


def test_an_unknown_topic_is_said_to_be_unknown_only_after_catching_up() -> None:
    node = LoneBroker()
    found: list[object] = []
    node.broker.directory.look_up(b"", "new", 0, found.append)
    assert not found, "first it asks how far the catalogue should be"
    node.settle()
    assert isinstance(found[0], pb.Error)
    assert found[0].code == pb.UNKNOWN_TOPIC


def test_catching_up_gives_up_when_the_entries_do_not_come() -> None:
    node = LoneBroker()
    answers: list[bool] = []
    node.broker.cluster.catch_up(2.0, answers.append)
    correlation_id = next(iter(node.broker.cluster._forwards))
    ahead = peer_pb2.ForwardedResult(correlation_id=correlation_id, index=1 << 40)
    node.broker.cluster.on_forwarded_result(ahead)
    node.pass_time(1.0)
    assert not answers
    node.pass_time(2.0)
    assert answers == [False]


def test_an_error_that_cannot_be_read_is_still_an_answer() -> None:
    node = LoneBroker()
    answers: list[pb.InitProducerResponse] = []
    node.broker.admin.init_producer(answers.append)
    correlation_id = next(iter(node.broker.cluster._forwards))
    garbage = peer_pb2.ForwardedResult(correlation_id=correlation_id, error=b"\xff\xff")
    node.broker.cluster.on_forwarded_result(garbage)
    assert answers[0].error.code == pb.UNKNOWN

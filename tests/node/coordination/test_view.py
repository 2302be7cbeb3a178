import random

from quorumlog.node.coordination.view import CoordinationView, NoCoordination
from quorumlog.raft.types import NodeId
from tests.node.coordination.links import Network
from tests.node.coordination.lying import LyingCoordination

MEMBERS = [NodeId(1), NodeId(2), NodeId(3)]


def test_without_a_plane_nothing_is_known() -> None:
    view: CoordinationView = NoCoordination()
    assert not view.node_is_up(NodeId(1), 0.0)
    assert view.leader_hint(1) is None
    assert not view.figures()
    assert not view.try_lock("cleaner", 5.0, 0.0)
    assert view.lock_owner("cleaner", 0.0) is None


def test_the_plane_is_a_view() -> None:
    view: CoordinationView = Network(1).planes[NodeId(1)]
    assert not view.figures()


def test_the_liar_is_a_view_that_contradicts_itself_and_repeats_itself_by_seed() -> None:
    view: CoordinationView = LyingCoordination(MEMBERS, random.Random(1))
    again: CoordinationView = LyingCoordination(MEMBERS, random.Random(1))
    hints = [view.leader_hint(7) for _ in range(200)]
    assert hints == [again.leader_hint(7) for _ in range(200)]
    assert {hint.node_id for hint in hints if hint is not None} == {1, 2, 3, 4}
    assert None in hints
    assert {view.try_lock("cleaner", 5.0, 0.0) for _ in range(50)} == {True, False}

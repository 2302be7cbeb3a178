"""Whom a member lets in: members as the catalogue knows them, and those that were admitted after what it knows."""

from quorumlog.node.broker.outbox import Lane
from quorumlog.node.greeting import Acquaintances, Greeting
from quorumlog.node.rpc.peer_service import PROTOCOL_VERSION
from quorumlog.proto import internal_pb2, peer_pb2
from tests.node.broker.lone_broker import LoneBroker
from tests.node.metadata.founded import descriptor, good, incarnation

ANEW = b"\xee" * 16


class Door(LoneBroker):
    """Node 1, and what it answers to nodes that knock."""

    def __init__(self) -> None:
        super().__init__()
        me = self.broker.catalogue.nodes[1].descriptor()
        self.greeting = Greeting(me, session_id=7)
        self.acquaintances = Acquaintances(self.broker)

    def admit(self, node: internal_pb2.NodeDescriptor, replaced: bytes = b"") -> int:
        """Admit a node; returns the index of the entry that did."""
        outcomes: list[object] = []
        command = internal_pb2.AdmitNode(node=node, replaced_incarnation=replaced)
        self.broker.cluster.propose(internal_pb2.ClusterCommand(admit_node=command), outcomes.append)
        self.until(lambda: bool(outcomes))
        good(outcomes[0])
        return self.broker.catalogue.nodes[node.node_id].admitted_at_index

    def refusal(self, node: internal_pb2.NodeDescriptor, **different: object) -> peer_pb2.Refusal | None:
        return self.greeting.refuse(self.hello(node, **different), self.broker)

    def hello(self, node: internal_pb2.NodeDescriptor, **different: object) -> peer_pb2.Hello:
        knocking = Greeting(node, session_id=8)
        hello = knocking.hello(self.broker.founding.cluster_id, 1, Lane.CONTROL)
        hello.MergeFrom(peer_pb2.Hello(**different))  # type: ignore[arg-type]
        return hello


def known(door: Door, node_id: int) -> internal_pb2.NodeDescriptor | None:
    return next((peer for peer in door.acquaintances.peers() if peer.node_id == node_id), None)


def test_a_member_is_let_in() -> None:
    door = Door()
    door.admit(descriptor(2))
    assert door.refusal(door.broker.catalogue.nodes[2].descriptor()) is None


def test_a_node_of_another_cluster_and_a_misdirected_one_are_turned_away_for_good() -> None:
    door = Door()
    door.admit(descriptor(2))
    for different in ({"cluster_id": b"x" * 16}, {"to_node_id": 5}, {"protocol_version": PROTOCOL_VERSION + 1}):
        refusal = door.refusal(descriptor(2), **different)
        assert refusal is not None
        assert refusal.final


def test_the_earlier_incarnation_of_a_node_that_was_admitted_anew_is_turned_away_for_good() -> None:
    door = Door()
    door.admit(descriptor(2))
    former = door.broker.catalogue.nodes[2].descriptor()
    anew = descriptor(2)
    anew.incarnation = ANEW
    anew.admitted_at_index = door.admit(anew, replaced=incarnation(2))
    refusal = door.refusal(former)
    assert refusal is not None
    assert refusal.final
    assert ANEW.hex() in refusal.message
    assert incarnation(2).hex() in refusal.message
    assert door.refusal(anew) is None


def test_a_node_that_was_removed_is_turned_away_for_good() -> None:
    door = Door()
    door.admit(descriptor(2))
    member = door.broker.catalogue.nodes[2].descriptor()
    outcomes: list[object] = []
    removal = internal_pb2.RemoveNode(node_id=2, incarnation=incarnation(2))
    door.broker.cluster.propose(internal_pb2.ClusterCommand(remove_node=removal), outcomes.append)
    door.until(lambda: bool(outcomes))
    good(outcomes[0])
    refusal = door.refusal(member)
    assert refusal is not None
    assert refusal.final
    assert "removed" in refusal.message


def test_a_node_that_was_admitted_after_all_that_is_known_here_is_let_in_and_its_address_is_remembered() -> None:
    door = Door()
    newer = descriptor(2)
    newer.admitted_at_index = door.broker.cluster.applied + 1000
    assert door.refusal(newer) is None
    assert door.acquaintances.meet(door.hello(newer))
    assert not door.acquaintances.meet(door.hello(newer)), "nothing new"
    met = known(door, 2)
    assert met is not None
    assert (met.incarnation, met.peer_address) == (newer.incarnation, newer.peer_address)


def test_a_newer_incarnation_of_a_known_node_stands_for_it_until_the_catalogue_has_its_word() -> None:
    door = Door()
    door.admit(descriptor(2))
    newer = descriptor(2)
    newer.incarnation = ANEW
    newer.admitted_at_index = door.broker.cluster.applied + 1
    assert door.refusal(newer) is None
    assert door.acquaintances.meet(door.hello(newer))
    met = known(door, 2)
    assert met is not None
    assert met.incarnation == ANEW
    door.admit(descriptor(3))  # the catalogue moves on, and does not say so
    found = known(door, 2)
    assert found is not None
    assert found.incarnation == incarnation(2)

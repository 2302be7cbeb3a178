"""What the transport lets in. The messages are real ones, sent by a plane to which the test is the only peer."""

import pytest

from quorumlog.node.coordination.transport import PeerTransport
from quorumlog.node.coordination.wire import Envelope, Message, encode
from quorumlog.raft.types import NodeId

OWN_SESSION, PEER_SESSION = 11, 22
PEER, FOLLOWER, STRANGER = NodeId(2), NodeId(4), NodeId(9)
TERM = 5

HEARTBEAT: Message = {
    "type": "append_entries", "term": TERM, "commit_index": 1, "entries": [], "prevLogIdx": 1, "prevLogTerm": 0,
}  # fmt: skip
VOTE: Message = {"type": "response_vote", "term": TERM}
ACK: Message = {"type": "next_node_idx", "next_node_idx": 2, "success": True, "reset": False}
CANDIDACY: Message = {"type": "request_vote", "term": TERM, "last_log_index": 1, "last_log_term": 0}
COMMAND: Message = {"type": "apply_command", "command": b"\x00anything"}


class Inbox:
    """A transport of node 1 in term 5, voters 1 to 3, follower 4; what it lets in and sends is kept."""

    def __init__(self, node_id: int = 1) -> None:
        self.sent: list[tuple[NodeId, bytes]] = []
        self.messages: list[Message] = []
        self.transport = PeerTransport(
            NodeId(node_id),
            OWN_SESSION,
            voter_ids=[NodeId(1), NodeId(2), NodeId(3)],
            follower_ids=[NodeId(4), NodeId(5)],
            send=lambda peer, payload: self.sent.append((peer, payload)),
        )
        self.transport.current_term = lambda: TERM
        self.transport.setOnMessageReceivedCallback(lambda node, message: self.messages.append(message))

    def give(
        self,
        message: Message = HEARTBEAT,
        peer: NodeId = PEER,
        session_id: int = PEER_SESSION,
        to_session_id: int = OWN_SESSION,
        epoch: int = 1,
        sequence: int = 1,
        term: int = TERM,
    ) -> bool:
        """Deliver `message`; True if it came through."""
        return self.transport.deliver(peer, session_id, encode(Envelope(to_session_id, epoch, sequence, term), message))


@pytest.fixture
def inbox() -> Inbox:
    """Node 1, connected to voter 2 and follower 4."""
    inbox = Inbox()
    inbox.transport.peer_up(PEER, PEER_SESSION)
    inbox.transport.peer_up(FOLLOWER, PEER_SESSION)
    return inbox


def test_messages_in_order_come_through_also_with_gaps(inbox: Inbox) -> None:
    assert [inbox.give(sequence=sequence) for sequence in (1, 2, 5, 6)] == [True] * 4
    assert inbox.messages == [HEARTBEAT] * 4


def test_a_duplicate_and_an_overtaken_message_are_dropped(inbox: Inbox) -> None:
    assert inbox.give(sequence=3)
    assert not inbox.give(sequence=3)
    assert not inbox.give(sequence=2)
    assert inbox.transport.counters.refused == 2


def test_a_message_of_an_earlier_connection_is_dropped(inbox: Inbox) -> None:
    assert inbox.give(epoch=1, sequence=7)
    assert inbox.give(epoch=2, sequence=1)
    assert not inbox.give(epoch=1, sequence=8)
    inbox.transport.peer_down(PEER)
    inbox.transport.peer_up(PEER, PEER_SESSION)
    assert not inbox.give(epoch=2, sequence=1), "a reconnection in the same session forgets nothing"
    assert inbox.give(epoch=3, sequence=1)


def test_a_message_of_an_earlier_process_is_dropped(inbox: Inbox) -> None:
    assert inbox.give(epoch=4, sequence=9)
    inbox.transport.peer_up(PEER, PEER_SESSION + 1)
    assert not inbox.give(epoch=5)
    assert inbox.give(session_id=PEER_SESSION + 1), "the new process counts from 1"


def test_a_message_for_an_earlier_process_of_this_node_is_dropped(inbox: Inbox) -> None:
    assert not inbox.give(to_session_id=OWN_SESSION - 1)


def test_unknown_and_disconnected_peers_are_refused(inbox: Inbox) -> None:
    inbox.transport.peer_up(STRANGER, PEER_SESSION)
    assert not inbox.give(peer=STRANGER)
    assert not inbox.give(peer=NodeId(1)), "this node does not write to itself"
    assert not inbox.give(peer=NodeId(3)), "a member, but not connected"
    inbox.transport.peer_down(PEER)
    assert not inbox.give()
    assert inbox.messages == []


@pytest.mark.parametrize("answer", [VOTE, ACK])
def test_an_answer_of_another_term_is_dropped(inbox: Inbox, answer: Message) -> None:
    assert not inbox.give(answer, sequence=1, term=TERM - 1)
    assert not inbox.give(answer, sequence=2, term=TERM + 1)
    assert inbox.give(answer, sequence=3, term=TERM)


def test_a_voter_votes_once_in_a_term(inbox: Inbox) -> None:
    assert inbox.give(VOTE, sequence=1)
    assert not inbox.give(VOTE, sequence=2)


@pytest.mark.parametrize(
    ("message", "allowed"), [(ACK, True), (COMMAND, True), (VOTE, False), (HEARTBEAT, False), (CANDIDACY, False)]
)
def test_a_follower_may_answer_and_propose_and_nothing_else(inbox: Inbox, message: Message, allowed: bool) -> None:
    assert inbox.give(message, peer=FOLLOWER) is allowed


@pytest.mark.parametrize(
    ("message", "allowed"), [(HEARTBEAT, True), (ACK, False), (COMMAND, False), (VOTE, False), (CANDIDACY, False)]
)
def test_a_follower_takes_entries_and_nothing_else(message: Message, allowed: bool) -> None:
    inbox = Inbox(node_id=4)
    inbox.transport.peer_up(PEER, PEER_SESSION)
    inbox.transport.peer_up(NodeId(5), PEER_SESSION)
    assert inbox.give(message) is allowed
    assert not inbox.give(message, peer=NodeId(5)), "two followers have nothing to say to each other"


def test_nothing_is_sent_to_a_peer_that_is_down(inbox: Inbox) -> None:
    node = inbox.transport.voters[0]
    assert inbox.transport.send(node, HEARTBEAT)
    inbox.transport.peer_down(PEER)
    assert not inbox.transport.send(node, HEARTBEAT)
    assert [peer for peer, _ in inbox.sent] == [PEER]


def test_what_a_later_plane_of_the_same_process_says_is_newer_than_all_that_an_earlier_one_said(inbox: Inbox) -> None:
    sent: list[bytes] = []
    for generation, connections in ((0, 3), (1, 1)):
        plane = PeerTransport(
            PEER,
            PEER_SESSION,
            voter_ids=[NodeId(1), NodeId(2), NodeId(3)],
            follower_ids=[],
            send=lambda peer, payload: sent.append(payload),
            generation=generation,
        )
        for _ in range(connections):
            plane.peer_up(NodeId(1), OWN_SESSION)
        plane.current_term = lambda: TERM
        node = next(one for one in plane.voters if one.id == 1)
        assert plane.send(node, HEARTBEAT)
    assert [inbox.transport.deliver(PEER, PEER_SESSION, payload) for payload in sent] == [True, True]

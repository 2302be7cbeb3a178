"""The parts of PySyncObj that the engine replaces, and the faults of PySyncObj that must not come through."""

import random

import pytest

from quorumlog.node.coordination.engine import ENGINE_TIME, CoordinationEngine, LogContradiction, ReplicatedState
from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.snapshot import Snapshot, SnapshotStore
from quorumlog.node.coordination.transport import PeerTransport
from quorumlog.node.coordination.wire import Envelope, Message, decode, encode
from quorumlog.raft.types import NodeId

ROW = b"\x00command"


class Voter:
    """The engine of node 1 of 1 to 5, all connected; the test plays the others and keeps what it sends."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []
        self.locks = b""
        self.sent: list[tuple[NodeId, Message]] = []
        self._sequence = 0
        members = [NodeId(number) for number in range(1, 6)]
        self.transport = PeerTransport(NodeId(1), 1, members, [], self._send)
        for peer in members[1:]:
            self.transport.peer_up(peer, 7)
        state = ReplicatedState(self.applied.append, lambda: self.locks, self._restore)
        ENGINE_TIME.now = 0.0
        self.settings = PlaneSettings(compact_entries=8)
        self.engine = CoordinationEngine(NodeId(1), self.transport, state, random.Random(1), self.settings)

    def _restore(self, locks: bytes) -> None:
        self.locks = locks

    def _send(self, peer: NodeId, payload: bytes) -> None:
        self.sent.append((peer, decode(payload)[1]))

    def give(self, peer: int, message: Message, term: int) -> None:
        """Deliver `message` of `peer`, sent in `term`, and let the engine work."""
        self._sequence += 1
        self.transport.deliver(NodeId(peer), 7, encode(Envelope(1, 1, self._sequence, term), message))
        self.engine.doTick(0.0)

    def append(self, term: int, previous: tuple[int, int], entry_terms: list[int], commit_index: int = 1) -> Message:
        """Let node 2, leader of `term`, append entries after `previous` (index, term); return the answer."""
        rows = [(ROW, previous[0] + 1 + at, each) for at, each in enumerate(entry_terms)]
        self.give(
            2,
            {
                "type": "append_entries",
                "commit_index": commit_index,
                "entries": rows,
                "prevLogIdx": previous[0],
                "prevLogTerm": previous[1],
            },
            term,
        )
        return self.sent[-1][1]

    def log(self) -> list[int]:
        """The terms of the log's entries."""
        return [term for _, _, term in self.engine._log]

    def campaign(self) -> int:
        """Let the election timeout pass; return the term in which node 1 asks for votes."""
        ENGINE_TIME.now += 10
        self.engine.doTick(0.0)
        return int(self.sent[-1][1]["term"])


def test_the_stand_in_for_the_serializer_speaks_pysyncobjs_states() -> None:
    from pysyncobj.config import SERIALIZER_STATE

    store = SnapshotStore(lambda: b"", lambda locks: None)
    assert store.checkSerializing() == (SERIALIZER_STATE.NOT_SERIALIZING, None)
    store.serialize((None, (ROW, 9, 2), (ROW, 8, 2), None), 8)
    assert store.checkSerializing() == (SERIALIZER_STATE.SUCCESS, 8)
    assert store.checkSerializing() == (SERIALIZER_STATE.NOT_SERIALIZING, None)


def test_a_vote_repeated_does_not_count_twice() -> None:
    voter = Voter()
    term = voter.campaign()
    for _ in range(3):
        voter.give(2, {"type": "response_vote"}, term)
    assert voter.engine.leader_and_term is None
    voter.give(3, {"type": "response_vote"}, term)
    assert voter.engine.leader_and_term == (1, term)


def test_an_acknowledgement_of_an_earlier_term_commits_nothing() -> None:
    voter = Voter()
    term = voter.campaign()
    for peer in (2, 3):
        voter.give(peer, {"type": "response_vote"}, term)
    voter.engine.propose(b"command")
    voter.engine.doTick(0.0)
    ack: Message = {"type": "next_node_idx", "next_node_idx": 4, "success": True, "reset": False}
    for peer in (2, 3, 4, 5):
        voter.give(peer, ack, term - 1)
    assert voter.applied == []
    for peer in (2, 3):
        voter.give(peer, ack, term)
    assert voter.applied == [b"command"]


def test_a_process_that_restarted_must_acknowledge_again() -> None:
    voter = Voter()
    term = voter.campaign()
    for peer in (2, 3):
        voter.give(peer, {"type": "response_vote"}, term)
    voter.give(2, {"type": "next_node_idx", "next_node_idx": 9, "success": True, "reset": False}, term)
    voter.transport.peer_up(NodeId(2), 8)
    voter.engine.propose(b"command")
    voter.engine.doTick(0.0)
    voter.give(3, {"type": "next_node_idx", "next_node_idx": 4, "success": True, "reset": False}, term)
    assert voter.applied == []


def test_a_late_message_drops_no_entry_that_the_leader_knows_of() -> None:
    voter = Voter()
    voter.append(5, (1, 0), [5, 5, 5])
    assert voter.append(5, (1, 0), [])["next_node_idx"] == 2, "a late heartbeat"
    assert voter.log() == [0, 5, 5, 5]
    assert voter.append(5, (1, 0), [5, 5])["next_node_idx"] == 4, "a part of what is there"
    assert voter.log() == [0, 5, 5, 5]
    assert voter.append(5, (2, 5), [5, 5, 5])["next_node_idx"] == 6, "what is there and more"
    assert voter.log() == [0, 5, 5, 5, 5]


def test_entries_that_are_not_applied_give_way_to_a_new_leaders() -> None:
    voter = Voter()
    voter.append(5, (1, 0), [5, 5, 5])
    assert voter.append(6, (2, 5), [6])["next_node_idx"] == 4
    assert voter.log() == [0, 5, 6]


def test_only_what_a_message_covers_is_committed_by_it() -> None:
    voter = Voter()
    voter.append(5, (1, 0), [5, 5, 5])
    voter.append(6, (2, 5), [], commit_index=9)
    assert voter.applied == [b"command"], "the entries at 3 and 4 may not be the leader's"


@pytest.mark.parametrize(
    "contradiction",
    [
        {"entries": [(ROW, 3, 6)], "prevLogIdx": 2, "prevLogTerm": 5},
        {"entries": [], "prevLogIdx": 3, "prevLogTerm": 6},
        {"entries": [], "prevLogIdx": None, "prevLogTerm": None},
    ],
)
def test_a_leader_that_contradicts_what_was_applied_is_told_apart(contradiction: Message) -> None:
    voter = Voter()
    voter.append(5, (1, 0), [5, 5], commit_index=3)
    assert len(voter.applied) == 2
    with pytest.raises(LogContradiction):
        voter.give(2, {"type": "append_entries", "commit_index": 3} | contradiction, 6)


def test_a_snapshot_replaces_a_tail_of_which_nothing_is_committed() -> None:
    voter = Voter()
    voter.append(5, (1, 0), [5, 5, 5])
    snapshot = Snapshot((ROW, 40, 6), (ROW, 41, 6), locks=b"")
    message: Message = {"type": "append_entries", "commit_index": 50, "serialized": (snapshot.encode(), True, True)}
    voter.give(2, message, 6)
    assert voter.sent[-1][1] == {"type": "next_node_idx", "next_node_idx": 42, "success": True, "reset": False}
    assert voter.applied == []
    assert voter.log() == [6, 6]
    voter.append(6, (41, 6), [6], commit_index=42)
    assert voter.applied == [b"command"]


def test_a_follower_far_behind_gets_one_snapshot_and_then_the_rest() -> None:
    voter = Voter()
    term = voter.campaign()
    for peer in (2, 3):
        voter.give(peer, {"type": "response_vote"}, term)
    index = 2
    for _ in range(20):
        voter.engine.propose(b"command")
        voter.engine.doTick(0.0)
        index += 1
        for peer in (2, 3):
            ack: Message = {"type": "next_node_idx", "next_node_idx": index + 1, "success": True, "reset": False}
            voter.give(peer, ack, term)
    assert voter.engine.log_entries <= voter.settings.compact_entries + 2
    voter.give(4, {"type": "next_node_idx", "next_node_idx": 2, "success": False, "reset": True}, term)
    voter.sent.clear()
    ENGINE_TIME.now += voter.settings.heartbeat_seconds * 1.1
    voter.engine.doTick(0.0)
    first, *rest = [message for peer, message in voter.sent if peer == 4]
    assert "serialized" in first
    assert rest
    assert all("prevLogIdx" in message for message in rest)

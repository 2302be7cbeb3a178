"""Nonsense from peers: nothing is raised, nothing grows, and once it ends the planes agree again."""

import random
import tracemalloc

import pytest

from quorumlog.node.coordination.commands import LockClaim, encode_announcement, encode_claim
from quorumlog.node.coordination.locks import MAX_LOCKS, LockTable
from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.snapshot import Snapshot
from quorumlog.node.coordination.view import Announcement
from quorumlog.node.coordination.wire import MAX_INDEX, MAX_TERM, Envelope, Message, encode
from quorumlog.raft.types import NodeId, Term
from tests.node.coordination.links import Network


class Liar:
    """A peer whose every message is well formed and means nothing.

    Terms are mostly those around the victim's own, so that they are not all late; `huge` adds absurd numbers.
    """

    def __init__(self, rng: random.Random, huge: bool) -> None:
        self._rng = rng
        self._huge = huge
        self._sequence = 0

    def payload(self, to_session_id: int, victims_term: int) -> bytes:
        """Return a message that passes for the next one of the present connection."""
        self._sequence += 1
        term = max(1, min(MAX_TERM, victims_term + self._rng.choice([-1, 0, 0, 0, 0, 0, 1])))
        if self._huge and self._rng.random() < 0.01:
            term = self._rng.randint(1, MAX_TERM)
        return encode(Envelope(to_session_id, 1, self._sequence, term), self._message(term))

    def _index(self, most: int) -> int:
        """Mostly small, so that indexes meet."""
        if self._huge and self._rng.random() < 0.01:
            return self._rng.randint(1, most)
        return self._rng.choice([self._rng.randint(1, 6), self._rng.randint(1, 60), self._rng.randint(1, 800)])

    def _command(self) -> bytes:
        rng = self._rng
        node_id, session_id = NodeId(rng.randint(1, 5)), rng.randint(1, 4)
        leaders = {rng.randint(0, 5): Term(rng.randint(0, 9)) for _ in range(rng.randint(0, 4))}
        announcement = Announcement(node_id, rng.randbytes(3), session_id, leaders, 1, 0.1, rng.uniform(0, 9))
        body: bytes = rng.choice(
            [
                rng.randbytes(rng.randint(0, 99)),
                rng.choice(encode_announcement(announcement, rng.randint(0, 99))),
                encode_claim(LockClaim(f"lock {rng.randint(0, 999)}", node_id, session_id, rng.uniform(0, 9), 0)),
            ]
        )
        return b"\x00" + body

    def _message(self, term: int) -> Message:
        rng = self._rng
        kind = rng.choice(["append", "append", "append", "snapshot", "next", "command", "ask", "vote"])
        if kind == "append":
            return self._append(term)
        if kind == "snapshot":
            index = 1 + self._index(MAX_INDEX - 100)
            locks = LockTable(NodeId(1), 1)
            locks.apply(LockClaim("cleaner", NodeId(rng.randint(1, 5)), 1, 5.0, 0), 0.0)
            snapshot = Snapshot((self._command(), index - 1, 0), (self._command(), index, term), locks.encode())
            whole = (snapshot.encode(), True, True)
            return {"type": "append_entries", "commit_index": index + rng.randint(0, 3), "serialized": whole}
        if kind == "next":
            success, reset = rng.random() < 0.5, rng.random() < 0.5
            next_index = 1 + self._index(MAX_INDEX - 1)
            return {"type": "next_node_idx", "next_node_idx": next_index, "success": success, "reset": reset}
        if kind == "command":
            return {"type": "apply_command", "command": self._command()}
        if kind == "ask":
            last_log_index = self._index(MAX_INDEX)
            return {"type": "request_vote", "last_log_index": last_log_index, "last_log_term": rng.randrange(term)}
        return {"type": "response_vote"}

    def _append(self, term: int) -> Message:
        rng = self._rng
        message: Message = {"type": "append_entries", "commit_index": self._index(MAX_INDEX)}
        if rng.random() < 0.02:
            return message | {"entries": [], "prevLogIdx": None, "prevLogTerm": None}
        previous = rng.choice([1, 1, self._index(MAX_INDEX - 100)])
        terms = [rng.choice([0, term]), *([term] * rng.randint(0, 30))]
        rows = [(self._command(), previous + 1 + at, each) for at, each in enumerate(terms[1:])]
        previous_term = 0 if previous == 1 else terms[0]
        return message | {"entries": rows, "prevLogIdx": previous, "prevLogTerm": previous_term}


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_well_formed_nonsense_is_survived_within_bounds(seed: int, huge: bool) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    settings = PlaneSettings(max_log_entries=400)
    network = Network(3, seed, settings)
    network.announce(1, {1: 1})
    plane = network.planes[NodeId(1)]
    liars = {NodeId(2): Liar(rng, huge), NodeId(3): Liar(rng, huge)}
    for peer in liars:  # the real ones fall silent; their connections stand
        network.planes[peer].stop()
    for _ in range(1_500):
        network.step()
        for peer, liar in liars.items():
            payload = liar.payload(network.sessions[NodeId(1)], plane.plane_term)
            plane.on_message(peer, network.sessions[peer], payload, network.now)
        assert plane.log_entries <= settings.max_log_entries
        assert len(plane.figures()) <= 3
        plane.try_lock("cleaner", 1.0, network.now)
    assert plane.counters.received > 500, "the nonsense was not just refused at the door"
    assert plane.counters.malformed == 0
    assert plane.failures > 0, "some of it reached the log, and was found out there"

    for peer in liars:
        network.kill(peer)
        network.start(peer)
        network.announce(peer, {peer: 1})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids), seconds=60)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_mean_nothing_are_counted_and_dropped(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    network = Network(3, seed)
    for node_id in network.member_ids:
        network.announce(node_id, {node_id: 1})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
    plane, session_id = network.planes[NodeId(1)], network.sessions[NodeId(2)]
    tracemalloc.start()
    try:
        for number in range(3_000):
            if number == 500:
                before, _ = tracemalloc.get_traced_memory()
            payload = rng.randbytes(rng.randint(0, 300))
            plane.on_message(NodeId(2), session_id, payload, network.now)
            plane.on_message(NodeId(rng.randint(0, 99)), rng.getrandbits(64), payload, network.now)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000
    assert plane.failures == 0
    assert plane.counters.malformed >= 3_000
    network.run(20)
    assert all(network.everyone_sees(node_id) for node_id in network.member_ids)


def test_a_log_that_grows_and_is_never_committed_is_given_up() -> None:
    settings = PlaneSettings(max_log_entries=400)
    network = Network(3, settings=settings)
    plane = network.planes[NodeId(1)]
    network.planes[NodeId(2)].stop()
    for number in range(100):
        rows = [(b"\x00command", 2 + 10 * number + at, 1) for at in range(10)]
        message: Message = {
            "type": "append_entries",
            "commit_index": 1,
            "entries": rows,
            "prevLogIdx": 1 + 10 * number,
            "prevLogTerm": min(1, number),
        }
        payload = encode(Envelope(network.sessions[NodeId(1)], 9, 1 + number, 1), message)
        plane.on_message(NodeId(2), network.sessions[NodeId(2)], payload, network.now)
        assert plane.log_entries <= settings.max_log_entries
    assert plane.failures == 1


def test_a_term_near_the_bound_is_given_up_by_all() -> None:
    network = Network(3)
    for node_id in network.member_ids:
        network.announce(node_id, {node_id: 1})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
    candidacy: Message = {"type": "request_vote", "last_log_index": 1, "last_log_term": 0}
    poison = encode(Envelope(network.sessions[NodeId(1)], 9, 1, MAX_TERM), candidacy)
    network.planes[NodeId(1)].on_message(NodeId(2), network.sessions[NodeId(2)], poison, network.now)
    assert network.planes[NodeId(1)].plane_term == MAX_TERM
    network.kill(2)
    network.start(2)
    network.announce(2, {2: 1})
    network.run(60)
    assert network.leader() is not None
    assert all(network.everyone_sees(node_id) for node_id in network.member_ids)
    assert all(plane.plane_term < 100 for plane in network.planes.values())


def test_every_payload_replayed_in_any_order_changes_nothing() -> None:
    network = Network(3)
    for node_id in network.member_ids:
        network.announce(node_id, {node_id: 1})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
    network.kill(2)
    network.run(3)
    network.start(2)
    network.announce(2, {2: 2})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
    rng = random.Random(5)
    old = list(network.history)
    rng.shuffle(old)
    received = {node_id: plane.counters.received for node_id, plane in network.planes.items()}
    for sender, receiver, session_id, payload in old:
        network.planes[receiver].on_message(sender, session_id, payload, network.now)
    assert {node_id: plane.counters.received for node_id, plane in network.planes.items()} == received
    assert not network.queue


def test_the_table_of_locks_stays_bounded_when_a_peer_claims_without_end() -> None:
    network = Network(3)
    network.announce(1)
    network.run_until(lambda: network.everyone_sees(1))
    names = [f"lock {number}" for number in range(3 * MAX_LOCKS)]
    for start in range(0, len(names), 20):
        for name in names[start : start + 20]:
            network.planes[NodeId(2)].try_lock(name, 60.0, network.now)
        network.run(1)
    for plane in network.planes.values():
        assert len([name for name in names if plane.lock_owner(name, network.now) is not None]) == MAX_LOCKS

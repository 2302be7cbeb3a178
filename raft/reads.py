"""Linearizable reads by read-index (thesis section 6.4).

A read is answered from a state that holds everything committed when the read arrived, once the leader knows that it
still led after that moment. Reads of one turn share a round: a number that heartbeats carry and answers bring back.
Rounds are cumulative: whoever answers round k heard this leader after every earlier round began, too.

A replica in repair asks the same question for itself: it may trust a leader only if that leader's term was confirmed
after the replica had started. So its nonce joins a round like a read.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from quorumlog.raft.quorum import quorum_index
from quorumlog.raft.ready import ReadState
from quorumlog.raft.types import Configuration, LogIndex, NodeId


class _Round(NamedTuple):
    """What a round will confirm."""

    number: int
    states: list[ReadState]
    nonces: list[tuple[NodeId, int]]


class ReadRounds:
    """The reads of one leadership.

    Invariants: nothing is in `_rounds` while `waiting` holds reads; round numbers rise from head to tail.
    """

    __slots__ = ("_answered", "_joining", "_joining_nonces", "_node_id", "_rounds", "number", "waiting")

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self.waiting: list[int] = []  # no entry of this term is committed yet, so the commit index may be too old
        self._joining: list[ReadState] = []  # leave with the next round
        self._joining_nonces: list[tuple[NodeId, int]] = []
        self._rounds: deque[_Round] = deque()
        self._answered: dict[NodeId, int] = {}
        self.number = 0  # of the last round begun

    @property
    def open(self) -> bool:
        """A round is out and not yet confirmed."""
        return bool(self._rounds)

    @property
    def joining(self) -> bool:
        """Reads are there for which a round must begin."""
        return bool(self._joining or self._joining_nonces)

    @property
    def idle(self) -> bool:
        """No read is under way at all."""
        return not (self.waiting or self.joining or self._rounds)

    def add(self, context: int, commit_index: LogIndex) -> None:
        """A read that arrived while `commit_index` was known to be current."""
        self._joining.append(ReadState(context, commit_index))

    def add_nonce(self, peer: NodeId, nonce: int) -> None:
        """A peer in repair wants to know whether this term is confirmed after it drew `nonce`."""
        self._joining_nonces.append((peer, nonce))

    def admit_waiting(self, commit_index: LogIndex) -> None:
        """The first entry of this term is committed: from now on the commit index is current."""
        self._joining.extend(ReadState(context, commit_index) for context in self.waiting)
        self.waiting.clear()

    def begin(self) -> int:
        """Begins a round with all joining reads and returns its number, for heartbeats to carry."""
        self.number += 1
        self._rounds.append(_Round(self.number, self._joining, self._joining_nonces))
        self._joining, self._joining_nonces = [], []
        self._answered[self._node_id] = self.number
        return self.number

    def answer(self, peer: NodeId, number: int) -> None:
        """A counting peer brought round `number` back."""
        if number > self._answered.get(peer, 0):
            self._answered[peer] = number

    def confirmed(self, configuration: Configuration) -> tuple[list[ReadState], list[tuple[NodeId, int]]]:
        """Takes out the reads, and the nonces with their peers, of all rounds that a quorum has answered."""
        through = quorum_index(configuration, self._answered)
        states: list[ReadState] = []
        nonces: list[tuple[NodeId, int]] = []
        while self._rounds and self._rounds[0].number <= through:
            done = self._rounds.popleft()
            states.extend(done.states)
            nonces.extend(done.nonces)
        return states, nonces

    def abandon(self) -> list[int]:
        """The contexts of all reads that will not be answered now that leadership is lost."""
        unconfirmed = [state.context for one in self._rounds for state in one.states]
        return unconfirmed + [state.context for state in self._joining] + self.waiting

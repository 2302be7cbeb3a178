"""Linearizable reads by read-index (thesis section 6.4).

A read is answered from a state that holds everything committed when the read arrived, once the leader knows that it
still led after that moment. Reads of one turn share a round: a number that heartbeats carry and answers bring back.
Rounds are cumulative: whoever answers round k heard this leader after every earlier round began, too.
"""

from __future__ import annotations

from collections import deque

from quorumlog.raft.quorum import quorum_index
from quorumlog.raft.ready import ReadState
from quorumlog.raft.types import Configuration, LogIndex, NodeId


class ReadRounds:
    """The reads of one leadership.

    Invariants: nothing is in `_rounds` while `waiting` holds reads; round numbers rise from head to tail.
    """

    __slots__ = ("_answered", "_joining", "_node_id", "_rounds", "number", "waiting")

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self.waiting: list[int] = []  # no entry of this term is committed yet, so the commit index may be too old
        self._joining: list[ReadState] = []  # leave with the next round
        self._rounds: deque[tuple[int, list[ReadState]]] = deque()
        self._answered: dict[NodeId, int] = {}
        self.number = 0  # of the last round begun

    @property
    def open(self) -> bool:
        """A round is out and not yet confirmed."""
        return bool(self._rounds)

    @property
    def joining(self) -> bool:
        """Reads are there for which a round must begin."""
        return bool(self._joining)

    @property
    def idle(self) -> bool:
        """No read is under way at all."""
        return not (self.waiting or self._joining or self._rounds)

    def add(self, context: int, commit_index: LogIndex) -> None:
        """A read that arrived while `commit_index` was known to be current."""
        self._joining.append(ReadState(context, commit_index))

    def admit_waiting(self, commit_index: LogIndex) -> None:
        """The first entry of this term is committed: from now on the commit index is current."""
        self._joining.extend(ReadState(context, commit_index) for context in self.waiting)
        self.waiting.clear()

    def begin(self) -> int:
        """Begins a round with all joining reads and returns its number, for heartbeats to carry."""
        self.number += 1
        self._rounds.append((self.number, self._joining))
        self._joining = []
        self._answered[self._node_id] = self.number
        return self.number

    def answer(self, peer: NodeId, number: int) -> None:
        """A counting peer brought round `number` back."""
        if number > self._answered.get(peer, 0):
            self._answered[peer] = number

    def confirmed(self, configuration: Configuration) -> list[ReadState]:
        """Takes out the reads of all rounds that a quorum has answered."""
        through = quorum_index(configuration, self._answered)
        states: list[ReadState] = []
        while self._rounds and self._rounds[0][0] <= through:
            states.extend(self._rounds.popleft()[1])
        return states

    def abandon(self) -> list[int]:
        """The contexts of all reads that will not be answered now that leadership is lost."""
        unconfirmed = [state.context for _, states in self._rounds for state in states]
        return unconfirmed + [state.context for state in self._joining] + self.waiting

"""Quorum arithmetic: the only place that knows what a majority is.

Every function takes the whole `Configuration`: while the voters are being changed (joint consensus), a quorum is a
majority of the new voters and a majority of the outgoing ones. A configuration without voters has no quorum: nothing is
committed, won or confirmed by it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import Enum

from quorumlog.raft.types import Configuration, NodeId


class VoteResult(Enum):
    """Where an election stands."""

    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def quorum_index(configuration: Configuration, indexes: Mapping[NodeId, int]) -> int:
    """The highest index that a quorum of voters has reached (Raft figure 2, rules for leaders).

    A voter missing in `indexes` has reached 0; what others than voters have reached does not matter.
    """
    index = _majority_index(configuration.voters, indexes)
    return min(index, _majority_index(configuration.outgoing, indexes)) if configuration.outgoing else index


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Counts the votes of distinct voters: True granted, False refused, missing not yet known."""
    result = _majority_vote(configuration.voters, votes)
    if not configuration.outgoing or result is VoteResult.LOST:
        return result
    other = _majority_vote(configuration.outgoing, votes)
    return other if result is VoteResult.WON or other is VoteResult.LOST else VoteResult.PENDING


def has_quorum(configuration: Configuration, members: Container[NodeId]) -> bool:
    """Whether `members` holds a quorum of the voters."""
    return _has_majority(configuration.voters, members) and (
        not configuration.outgoing or _has_majority(configuration.outgoing, members)
    )


def _majority_size(voters: tuple[NodeId, ...]) -> int:
    """Voters in the smallest majority (Raft section 5.2)."""
    return len(voters) // 2 + 1


def _majority_index(voters: tuple[NodeId, ...], indexes: Mapping[NodeId, int]) -> int:
    if not voters:
        return 0
    reached = sorted([indexes.get(voter, 0) for voter in voters])
    return reached[len(voters) - _majority_size(voters)]


def _majority_vote(voters: tuple[NodeId, ...], votes: Mapping[NodeId, bool]) -> VoteResult:
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is True:
            granted += 1
        elif vote is False:
            refused += 1
    majority = _majority_size(voters)
    if granted >= majority:
        return VoteResult.WON
    if len(voters) - refused < majority:
        return VoteResult.LOST
    return VoteResult.PENDING


def _has_majority(voters: tuple[NodeId, ...], members: Container[NodeId]) -> bool:
    return sum(voter in members for voter in voters) >= _majority_size(voters)

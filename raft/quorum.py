"""Quorum arithmetic: the only place that knows what a majority is.

Every function takes the whole `Configuration`, so that joint consensus changes this file and no caller. A configuration
without voters has no quorum: nothing is committed, won or confirmed by it.
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


def quorum_size(configuration: Configuration) -> int:
    """Voters in the smallest majority (Raft section 5.2)."""
    return len(configuration.voters) // 2 + 1


def quorum_index(configuration: Configuration, indexes: Mapping[NodeId, int]) -> int:
    """The highest index that a quorum of voters has reached (Raft figure 2, rules for leaders).

    A voter missing in `indexes` has reached 0; what others than voters have reached does not matter.
    """
    voters = configuration.voters
    count = len(voters)
    if count == 0:
        return 0
    reached = sorted([indexes.get(voter, 0) for voter in voters])
    return reached[count - (count // 2 + 1)]


def vote_result(configuration: Configuration, votes: Mapping[NodeId, bool]) -> VoteResult:
    """Counts the votes of distinct voters: True granted, False refused, missing not yet known."""
    granted = refused = 0
    for voter in configuration.voters:
        vote = votes.get(voter)
        if vote is True:
            granted += 1
        elif vote is False:
            refused += 1
    quorum = quorum_size(configuration)
    if granted >= quorum:
        return VoteResult.WON
    if len(configuration.voters) - refused < quorum:
        return VoteResult.LOST
    return VoteResult.PENDING


def has_quorum(configuration: Configuration, members: Container[NodeId]) -> bool:
    """Whether `members` holds a quorum of the voters."""
    return sum(voter in members for voter in configuration.voters) >= quorum_size(configuration)

"""Quorum arithmetic against a second implementation that is too dumb to be wrong."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.raft import Configuration, NodeId
from quorumlog.raft.quorum import VoteResult, has_quorum, quorum_index, vote_result
from tests.raft.memory_shell import configuration

NODES = st.integers(1, 9).map(NodeId)
CONFIGURATIONS = st.sets(NODES, max_size=7).map(lambda voters: configuration(*voters))


def majorities(voters: Configuration) -> list[tuple[NodeId, ...]]:
    """All sets of voters that are more than half of them."""
    count = len(voters.voters)
    return [some for size in range(count // 2 + 1, count + 1) for some in combinations(voters.voters, size)]


def alternative_quorum_index(voters: Configuration, indexes: dict[NodeId, int]) -> int:
    return max((min(indexes.get(one, 0) for one in some) for some in majorities(voters) if some), default=0)


def alternative_vote_result(voters: Configuration, votes: dict[NodeId, bool]) -> VoteResult:
    if any(some and all(votes.get(one) is True for one in some) for some in majorities(voters)):
        return VoteResult.WON
    if any(some and all(votes.get(one) is not False for one in some) for some in majorities(voters)):
        return VoteResult.PENDING
    return VoteResult.LOST


@given(CONFIGURATIONS, st.dictionaries(NODES, st.integers(0, 20)))
def test_quorum_index_is_what_some_majority_has_reached(voters: Configuration, indexes: dict[NodeId, int]) -> None:
    assert quorum_index(voters, indexes) == alternative_quorum_index(voters, indexes)


@given(CONFIGURATIONS, st.dictionaries(NODES, st.booleans()))
def test_an_election_is_won_by_a_majority_and_lost_when_none_is_left(
    voters: Configuration, votes: dict[NodeId, bool]
) -> None:
    assert vote_result(voters, votes) is alternative_vote_result(voters, votes)


@given(CONFIGURATIONS, st.sets(NODES))
def test_members_are_a_quorum_if_they_hold_a_majority(voters: Configuration, members: set[NodeId]) -> None:
    assert has_quorum(voters, members) == any(some and members >= set(some) for some in majorities(voters))

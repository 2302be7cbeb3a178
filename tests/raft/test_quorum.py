"""Quorum arithmetic against a second implementation that is too dumb to be wrong."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.raft import Configuration, NodeId
from quorumlog.raft.quorum import VoteResult, has_quorum, quorum_index, vote_result

NODES = st.integers(1, 9).map(NodeId)
SETS = st.sets(NODES, max_size=5)


def make(voters: set[NodeId], learners: set[NodeId], outgoing: set[NodeId]) -> Configuration:
    """Simple or joint; whoever votes in the new configuration does not learn in it."""
    return Configuration(
        tuple(sorted(voters)),
        tuple(sorted(learners - voters)),
        tuple(sorted(outgoing)) if voters else (),
    )


CONFIGURATIONS = st.builds(make, SETS, SETS, st.one_of(st.just(set[NodeId]()), SETS))


def quorums(configuration: Configuration) -> list[set[NodeId]]:
    """All sets of voters that hold a majority of the voters and, if there are any, one of the outgoing."""
    everybody = sorted({*configuration.voters, *configuration.outgoing})
    some = [set(one) for size in range(1, len(everybody) + 1) for one in combinations(everybody, size)]
    return [one for one in some if is_quorum(configuration, one)]


def is_quorum(configuration: Configuration, members: set[NodeId]) -> bool:
    """By counting heads, in each of the sets of voters there are."""
    if not configuration.voters:
        return False
    parts = [configuration.voters] + [configuration.outgoing] * bool(configuration.outgoing)
    return all(2 * len(members & set(part)) > len(part) for part in parts)


def alternative_quorum_index(configuration: Configuration, indexes: dict[NodeId, int]) -> int:
    return max((min(indexes.get(one, 0) for one in some) for some in quorums(configuration)), default=0)


def alternative_vote_result(configuration: Configuration, votes: dict[NodeId, bool]) -> VoteResult:
    if any(all(votes.get(one) is True for one in some) for some in quorums(configuration)):
        return VoteResult.WON
    if any(all(votes.get(one) is not False for one in some) for some in quorums(configuration)):
        return VoteResult.PENDING
    return VoteResult.LOST


@given(CONFIGURATIONS, st.dictionaries(NODES, st.integers(0, 20)))
def test_quorum_index_is_what_some_quorum_has_reached(made: Configuration, indexes: dict[NodeId, int]) -> None:
    assert quorum_index(made, indexes) == alternative_quorum_index(made, indexes)


@given(CONFIGURATIONS, st.dictionaries(NODES, st.booleans()))
def test_an_election_is_won_by_a_quorum_and_lost_when_none_is_left(
    made: Configuration, votes: dict[NodeId, bool]
) -> None:
    assert vote_result(made, votes) is alternative_vote_result(made, votes)


@given(CONFIGURATIONS, st.sets(NODES))
def test_members_are_a_quorum_if_they_hold_every_majority_that_is_needed(
    made: Configuration, members: set[NodeId]
) -> None:
    assert has_quorum(made, members) == is_quorum(made, members)


@given(SETS, SETS, SETS)
def test_quorums_meet_all_along_a_change(before: set[NodeId], after: set[NodeId], learners: set[NodeId]) -> None:
    """Of the old configuration with the joint one, of the joint one with the new one, and each with its own."""
    old, joint, new = make(before, set(), set()), make(after, learners, before), make(after, learners, set())
    for one, other in ((old, old), (old, joint), (joint, joint), (joint, new), (new, new)):
        assert all(some & others for some in quorums(one) for others in quorums(other))


def test_without_voters_nothing_is_decided() -> None:
    nobody = Configuration((), (NodeId(1),))
    assert quorum_index(nobody, {NodeId(1): 5}) == 0
    assert vote_result(nobody, {NodeId(1): True}) is not VoteResult.WON
    assert not has_quorum(nobody, {NodeId(1)})

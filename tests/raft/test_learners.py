"""A learner takes the log and counts for nothing (thesis 4.2.1)."""

from dataclasses import replace

import pytest

from quorumlog.raft import Config, Configuration, LogIndex, Message, MessageType, NodeId, Role, Term
from tests.raft.memory_shell import Shell, SteadyRandom


class Pair:
    """Voter 1 alone, with learner 2; messages go where they belong, syncs finish at once."""

    def __init__(self, voters: tuple[int, ...] = (1,)) -> None:
        configuration = Configuration(tuple(NodeId(one) for one in voters), (NodeId(9),))
        self.cut = False
        self.shells = {
            one: Shell(one, configuration, Config(NodeId(one)), SteadyRandom(one), send=self.deliver)
            for one in (*voters, 9)
        }

    def deliver(self, message: Message) -> None:
        if not self.cut:
            self.shells[message.to].node.step(message)

    def settle(self) -> None:
        for _ in range(50):
            for shell in self.shells.values():
                while shell.node.has_ready() or shell.in_flight:
                    if shell.node.has_ready():
                        shell.take()
                    shell.sync()


def test_a_learner_gets_the_log_and_learns_what_is_committed() -> None:
    pair = Pair()
    pair.shells[1].node.campaign()
    pair.settle()
    pair.shells[1].propose(b"a")
    pair.settle()
    learner = pair.shells[9].node
    assert (learner.role, learner.leader_id, learner.last_index, learner.commit_index) == (Role.FOLLOWER, 1, 2, 2)


def test_a_learner_never_campaigns() -> None:
    pair = Pair()
    for _ in range(100):
        pair.shells[9].node.tick()
    assert pair.shells[9].node.role is Role.FOLLOWER
    assert not pair.shells[9].node.has_ready()


def test_a_voter_alone_commits_whether_its_learner_answers_or_not() -> None:
    pair = Pair()
    pair.cut = True
    pair.shells[1].node.campaign()
    pair.settle()
    pair.shells[1].propose(b"a")
    pair.settle()
    for _ in range(100):
        pair.shells[1].node.tick()
        pair.settle()
    assert pair.shells[1].node.is_leader
    assert pair.shells[1].node.commit_index == 2


def test_a_learner_makes_no_majority() -> None:
    pair = Pair((1, 2, 3))
    pair.shells[1].node.campaign()
    pair.settle()
    leader = pair.shells[1]
    assert leader.node.is_leader
    committed = leader.node.commit_index
    pair.cut = True
    leader.propose(b"a")
    while leader.node.has_ready() or leader.in_flight:
        if leader.node.has_ready():
            leader.take()
        leader.sync()
    last = leader.node.last_index
    answer = Message(MessageType.APPEND_RESPONSE, NodeId(9), NodeId(1), leader.node.term, last)
    leader.node.step(replace(answer, last_index=last, stable_index=last))
    assert leader.node.commit_index == committed
    leader.node.step(replace(answer, sender=NodeId(2), last_index=last, stable_index=last))
    assert leader.node.commit_index == last


def test_leadership_does_not_go_to_a_learner() -> None:
    pair = Pair()
    pair.shells[1].node.campaign()
    pair.settle()
    with pytest.raises(ValueError, match="leadership cannot go to node 9"):
        pair.shells[1].node.transfer_leadership(NodeId(9))


def test_nobody_both_votes_and_learns() -> None:
    with pytest.raises(AssertionError, match="nobody both votes and learns"):
        Configuration((NodeId(1),), (NodeId(1),))


def test_a_learner_is_asked_for_no_vote_and_its_vote_is_not_counted() -> None:
    pair = Pair((1, 2, 3))
    pair.cut = True
    candidate = pair.shells[1].node
    candidate.campaign()
    ready = candidate.ready()
    assert {one.to for one in ready.messages} == {2, 3}
    grant = Message(MessageType.PRE_VOTE_RESPONSE, NodeId(9), NodeId(1), Term(1), LogIndex(0))
    candidate.step(grant)
    assert candidate.role is Role.PRE_CANDIDATE

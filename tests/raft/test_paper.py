"""One test per guarantee of the Raft paper (extended version) and of Ongaro's thesis, by section."""

import random
from dataclasses import replace

import pytest

from quorumlog.raft import (
    Config,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    NotLeader,
    RawNode,
    Ready,
    Role,
    Term,
)
from tests.raft.memory_shell import MemoryLog, Shell, SteadyRandom, configuration, entry


def make(
    *terms: int, voters: tuple[int, ...] = (1, 2, 3), term: int | None = None, vote: int = 0, commit: int = 0
) -> Shell:
    """Replica 1 with a durable log of the terms given."""
    return Shell(
        1,
        configuration(*voters),
        Config(NodeId(1)),
        SteadyRandom(1),
        disk=MemoryLog([entry(index, one) for index, one in enumerate(terms, 1)]),
        disk_hard_state=HardState(Term(max([*terms, 0]) if term is None else term), NodeId(vote)),
        commit_index=commit,
    )


def message(kind: MessageType, sender: int, term: int, **fields: object) -> Message:
    return Message(kind, NodeId(sender), NodeId(1), Term(term), **fields)  # type: ignore[arg-type]


def work(shell: Shell) -> list[Ready]:
    """Carries out and syncs everything; the Readys in order."""
    readys = []
    while shell.node.has_ready() or shell.in_flight:
        if shell.node.has_ready():
            readys.append(shell.take())
        shell.sync()
    return readys


def sent(readys: list[Ready], kind: MessageType) -> list[Message]:
    return [one for ready in readys for one in ready.messages + ready.messages_after_sync if one.type is kind]


def elect(shell: Shell) -> list[Ready]:
    """Makes replica 1 the leader of the next term by the votes of the others; the Readys of its first turn."""
    shell.node.campaign()
    peers = [voter for voter in shell.voters.voters if voter != 1]
    for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
        work(shell)
        for peer in peers:
            shell.node.step(message(kind, peer, shell.node.term + (kind is MessageType.PRE_VOTE_RESPONSE)))
    work_done = work(shell)
    assert shell.node.is_leader
    return work_done


def accept(shell: Shell, sender: int, index: int) -> None:
    fields = {"index": index, "stable_index": index, "last_index": index}
    shell.node.step(message(MessageType.APPEND_RESPONSE, sender, shell.node.term, **fields))


class TestSection51Basics:
    def test_a_replica_begins_as_follower(self) -> None:
        assert make().node.role is Role.FOLLOWER

    @pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER])
    def test_a_later_term_turns_everyone_into_a_follower(self, role: Role) -> None:
        shell = make(1)
        if role is Role.LEADER:
            elect(shell)
        elif role is Role.PRE_CANDIDATE:
            shell.node.campaign()
        shell.node.step(message(MessageType.APPEND, 2, 9, index=1, log_term=1))
        assert (shell.node.role, shell.node.term, shell.node.leader_id) == (Role.FOLLOWER, 9, 2)

    def test_a_message_of_an_older_term_changes_nothing_and_is_answered_with_the_present_one(self) -> None:
        shell = make(1, term=5)
        shell.node.step(message(MessageType.APPEND, 2, 4, index=1, log_term=1, entries=(entry(2, 4),)))
        (answer,) = sent(work(shell), MessageType.APPEND_RESPONSE)
        assert (answer.term, answer.reject, shell.node.last_index) == (5, True, 1)

    def test_term_and_vote_survive_a_crash(self) -> None:
        shell = make(1)
        shell.node.step(message(MessageType.VOTE, 2, 7, index=1, log_term=1))
        work(shell)
        shell.start()
        assert (shell.node.term, shell.node.vote) == (7, 2)


class TestSection52LeaderElection:
    def test_a_follower_that_hears_nothing_campaigns(self) -> None:
        shell = make()
        for _ in range(11):  # election_ticks plus the draw of 1
            shell.node.tick()
        assert shell.node.role is Role.PRE_CANDIDATE

    def test_a_follower_that_hears_its_leader_does_not(self) -> None:
        shell = make()
        for _ in range(40):
            shell.node.tick()
            shell.node.step(message(MessageType.HEARTBEAT, 2, 1))
        assert shell.node.role is Role.FOLLOWER

    def test_timeouts_are_drawn_between_one_and_two_election_timeouts(self) -> None:
        waits = set()
        shell = make()
        shell.rng = random.Random(1)
        for _ in range(200):
            shell.start()
            ticks = 0
            while shell.node.role is Role.FOLLOWER:
                shell.node.tick()
                ticks += 1
            waits.add(ticks)
        assert waits == set(range(10, 20))

    def test_a_candidate_votes_for_itself_in_a_new_term_and_asks_all_others(self) -> None:
        shell = make(1)
        shell.node.campaign()
        work(shell)
        shell.node.step(message(MessageType.PRE_VOTE_RESPONSE, 2, 2))
        readys = work(shell)
        assert readys[0].hard_state == HardState(Term(2), NodeId(1))
        assert [one.to for one in sent(readys, MessageType.VOTE)] == [2, 3]

    @pytest.mark.parametrize(
        ("voters", "grants", "wins"),
        [((1, 2, 3), 1, True), ((1, 2, 3, 4, 5), 1, False), ((1, 2, 3, 4, 5), 2, True), ((1, 2, 3, 4), 1, False)],
    )
    def test_a_majority_of_votes_wins(self, voters: tuple[int, ...], grants: int, wins: bool) -> None:
        shell = make(voters=voters)
        shell.node.campaign()
        for peer in voters[1:]:
            shell.node.step(message(MessageType.PRE_VOTE_RESPONSE, peer, 1))
        work(shell)
        for peer in voters[1 : 1 + grants]:
            shell.node.step(message(MessageType.VOTE_RESPONSE, peer, 1))
        assert shell.node.is_leader is wins

    def test_a_majority_of_refusals_loses(self) -> None:
        shell = make()
        shell.node.campaign()
        shell.node.step(message(MessageType.PRE_VOTE_RESPONSE, 2, 1))
        work(shell)
        for peer in (2, 3):
            shell.node.step(message(MessageType.VOTE_RESPONSE, peer, 1, reject=True))
        assert (shell.node.role, shell.node.term) == (Role.FOLLOWER, 1)

    def test_a_vote_goes_to_the_first_who_asks(self) -> None:
        shell = make()
        shell.node.step(message(MessageType.VOTE, 2, 1))
        shell.node.step(message(MessageType.VOTE, 3, 1))
        answers = {one.to: one.reject for one in sent(work(shell), MessageType.VOTE_RESPONSE)}
        assert answers == {2: False, 3: True}

    def test_a_candidate_yields_to_a_leader_of_its_term(self) -> None:
        shell = make(voters=(1, 2, 3, 4, 5))
        shell.node.campaign()
        for peer in (2, 3):
            shell.node.step(message(MessageType.PRE_VOTE_RESPONSE, peer, 1))
        assert shell.node.role is Role.CANDIDATE
        shell.node.step(message(MessageType.APPEND, 4, 1))
        assert (shell.node.role, shell.node.leader_id) == (Role.FOLLOWER, 4)

    def test_a_leader_sends_heartbeats_when_it_sends_nothing_else(self) -> None:
        shell = make()
        elect(shell)
        for peer in (2, 3):
            accept(shell, peer, 1)
        work(shell)
        for _ in range(2):
            shell.node.tick()
        assert [one.to for one in sent(work(shell), MessageType.HEARTBEAT)] == [2, 3]


class TestSection53LogReplication:
    def test_a_proposal_is_appended_and_sent_with_the_entry_before_it(self) -> None:
        shell = make(1)
        elect(shell)
        for peer in (2, 3):
            accept(shell, peer, 2)
        work(shell)
        shell.propose(b"a", b"b")
        readys = work(shell)
        assert [one.index for one in readys[0].entries] == [3, 4]
        appends = sent(readys, MessageType.APPEND)
        assert [(one.to, one.index, one.log_term) for one in appends] == [(2, 2, 2), (3, 2, 2)]
        assert all(one.entries is readys[0].entries for one in appends), "the same tuple for everyone, not a copy"

    def test_appends_travel_while_the_leader_itself_syncs(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        work(shell)
        shell.propose(b"a")
        ready = shell.take()
        assert [one.type for one in ready.messages] == [MessageType.APPEND]
        assert ready.must_sync

    def test_an_entry_is_committed_when_a_majority_holds_it(self) -> None:
        shell = make(voters=(1, 2, 3, 4, 5))
        elect(shell)
        accept(shell, 2, 1)
        assert shell.node.commit_index == 0
        accept(shell, 3, 1)
        assert shell.node.commit_index == 1

    def test_the_leader_counts_itself_only_when_its_own_write_is_durable(self) -> None:
        shell = make()
        elect(shell)
        shell.propose(b"a")
        shell.take()
        accept(shell, 2, 2)
        assert shell.node.commit_index == 1
        shell.sync()
        assert shell.node.commit_index == 2

    def test_an_acknowledgement_counts_only_as_far_as_it_is_durable(self) -> None:
        """Beyond the paper: an answer may know of more entries than its disk."""
        shell = make()
        elect(shell)
        shell.propose(b"a")
        work(shell)
        shell.node.step(message(MessageType.APPEND_RESPONSE, 2, 1, index=2, last_index=2, stable_index=1))
        progress = shell.node.progress(NodeId(2))
        assert progress is not None
        assert (progress.match_index, progress.counted_index, shell.node.commit_index) == (2, 1, 1)

    def test_a_follower_learns_the_commit_index(self) -> None:
        shell = make()
        entries = (entry(1, 1), entry(2, 1))
        shell.node.step(message(MessageType.APPEND, 2, 1, entries=entries, commit_index=1))
        assert shell.node.commit_index == 1
        shell.node.step(message(MessageType.HEARTBEAT, 2, 1, commit_index=2))
        assert shell.node.commit_index == 2

    @pytest.mark.parametrize(
        ("index", "log_term", "rejects"),
        [(0, 0, False), (1, 1, False), (2, 2, False), (3, 2, True), (2, 3, True), (9, 3, True)],
    )
    def test_the_consistency_check(self, index: int, log_term: int, rejects: bool) -> None:
        shell = make(1, 2)
        shell.node.step(message(MessageType.APPEND, 2, 3, index=index, log_term=log_term))
        (answer,) = sent(work(shell), MessageType.APPEND_RESPONSE)
        assert answer.reject is rejects

    @pytest.mark.parametrize(
        ("at", "at_term", "arriving", "becomes"),
        [
            (2, 2, (3,), (1, 2, 3)),
            (1, 1, (3, 4), (1, 3, 4)),
            (0, 0, (1,), (1, 2)),
            (0, 0, (3,), (3,)),
            (0, 0, (1, 2, 2), (1, 2, 2)),
        ],
    )
    def test_a_conflict_removes_the_entry_and_all_that_follow_it(
        self, at: int, at_term: int, arriving: tuple[int, ...], becomes: tuple[int, ...]
    ) -> None:
        shell = make(1, 2)
        entries = tuple(entry(index, term) for index, term in enumerate(arriving, at + 1))
        shell.node.step(message(MessageType.APPEND, 2, 4, index=at, log_term=at_term, entries=entries))
        work(shell)
        assert tuple(one.term for one in shell.disk.stored) == becomes

    @pytest.mark.parametrize(
        "follower",
        [
            (1, 1, 1, 4, 4, 5, 5, 6, 6),  # figure 7 a
            (1, 1, 1, 4),  # b
            (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),  # c
            (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),  # d
            (1, 1, 1, 4, 4, 4, 4),  # e
            (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),  # f
        ],
    )
    def test_a_new_leader_brings_any_follower_to_its_own_log(self, follower: tuple[int, ...]) -> None:
        leader = make(1, 1, 1, 4, 4, 5, 5, 6, 6, 6, term=7)
        other = make(*follower, term=7)
        elect(leader)
        leader.node.reset_peer(NodeId(2))  # what was sent while it was elected is made once more
        inbox = [one for one in sent(work(leader), MessageType.APPEND) if one.to == 2]
        while inbox:
            for one in inbox:
                other.node.step(replace(one, sender=NodeId(2), to=NodeId(1)))
            answers = sent(work(other), MessageType.APPEND_RESPONSE)
            for one in answers:
                leader.node.step(replace(one, sender=NodeId(2), to=NodeId(1)))
            inbox = [one for one in sent(work(leader), MessageType.APPEND) if one.to == 2]
        assert [one.term for one in other.disk.stored] == [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 8]


class TestSection54Safety:
    @pytest.mark.parametrize(
        ("index", "log_term", "grants"),
        [(2, 2, True), (3, 2, True), (1, 3, True), (1, 2, False), (9, 1, False), (0, 0, False)],
    )
    def test_votes_go_only_to_logs_that_are_at_least_as_complete(self, index: int, log_term: int, grants: bool) -> None:
        """Section 5.4.1; the pre-vote follows the same rule."""
        shell = make(1, 2, term=3)
        shell.node.step(message(MessageType.PRE_VOTE, 2, 4, index=index, log_term=log_term))
        shell.node.step(message(MessageType.VOTE, 3, 4, index=index, log_term=log_term))
        (vote,) = sent(work(shell), MessageType.VOTE_RESPONSE)
        assert vote.reject is not grants
        other = make(1, 2, term=3)
        other.node.step(message(MessageType.PRE_VOTE, 2, 4, index=index, log_term=log_term))
        (pre_vote,) = sent(work(other), MessageType.PRE_VOTE_RESPONSE)
        assert pre_vote.reject is not grants

    def test_entries_of_older_terms_are_never_committed_by_counting(self) -> None:
        """Section 5.4.2 and figure 8."""
        shell = make(1, 2, commit=1)
        elect(shell)
        for peer in (2, 3):
            accept(shell, peer, 2)
        assert shell.node.commit_index == 1
        accept(shell, 2, 3)
        assert shell.node.commit_index == 3

    def test_a_leader_never_removes_or_changes_its_entries(self) -> None:
        """Leader append-only, figure 3."""
        shell = make(1, 1)
        elect(shell)
        before = list(shell.log.stored)
        shell.propose(b"a")
        readys = work(shell)
        assert all(ready.truncate_since is None for ready in readys)
        assert shell.log.stored[: len(before)] == before


class TestThesis310Transfer:
    def test_proposals_stop_and_a_caught_up_target_is_told_at_once(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        work(shell)
        shell.node.transfer_leadership(NodeId(2))
        with pytest.raises(NotLeader, match="node 2"):
            shell.propose(b"a")
        assert [one.to for one in sent(work(shell), MessageType.TIMEOUT_NOW)] == [2]

    def test_a_target_that_is_behind_is_caught_up_first(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        work(shell)
        shell.propose(b"a")
        work(shell)
        shell.node.transfer_leadership(NodeId(2))
        assert sent(work(shell), MessageType.TIMEOUT_NOW) == []
        accept(shell, 2, 2)
        assert [one.to for one in sent(work(shell), MessageType.TIMEOUT_NOW)] == [2]

    def test_the_target_campaigns_without_pre_vote_past_stickiness(self) -> None:
        shell = make(1)
        shell.node.step(message(MessageType.HEARTBEAT, 2, 1))
        shell.node.step(message(MessageType.TIMEOUT_NOW, 2, 1))
        votes = sent(work(shell), MessageType.VOTE)
        assert [(one.to, one.term, one.force) for one in votes] == [(2, 2, True), (3, 2, True)]

    def test_it_is_given_up_after_an_election_timeout(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        shell.node.transfer_leadership(NodeId(3))
        for _ in range(9):
            shell.node.tick()
        with pytest.raises(NotLeader, match="node 3"):
            shell.propose(b"a")
        shell.node.tick()
        shell.propose(b"a")
        assert shell.node.transferring_to is None


class TestThesis42Stickiness:
    def test_a_vote_is_not_heard_while_a_leader_is(self) -> None:
        shell = make(1)
        shell.node.step(message(MessageType.HEARTBEAT, 2, 1))
        shell.node.step(message(MessageType.VOTE, 3, 5, index=9, log_term=4))
        assert (shell.node.term, shell.node.vote) == (1, 0)

    def test_a_vote_of_a_transfer_is(self) -> None:
        shell = make(1)
        shell.node.step(message(MessageType.HEARTBEAT, 2, 1))
        shell.node.step(message(MessageType.VOTE, 3, 5, index=9, log_term=4, force=True))
        assert (shell.node.term, shell.node.vote) == (5, 3)


class TestThesis62CheckQuorum:
    def test_a_leader_without_a_majority_steps_down(self) -> None:
        shell = make()
        elect(shell)
        for _ in range(20):
            shell.node.tick()
        assert (shell.node.role, shell.node.leader_id) == (Role.FOLLOWER, 0)

    def test_a_leader_with_one_stays(self) -> None:
        shell = make()
        elect(shell)
        for _ in range(60):
            shell.node.tick()
            shell.node.step(message(MessageType.HEARTBEAT_RESPONSE, 3, 1))
        assert shell.node.is_leader


class TestThesis64ReadIndex:
    def test_a_read_waits_for_the_first_commit_of_the_term(self) -> None:
        shell = make(1)
        elect(shell)
        shell.node.read_index(7)
        assert sent(work(shell), MessageType.HEARTBEAT) == []
        accept(shell, 2, 2)
        assert {one.context for one in sent(work(shell), MessageType.HEARTBEAT)} == {1}
        shell.node.step(message(MessageType.HEARTBEAT_RESPONSE, 2, 2, context=1))
        (ready,) = work(shell)
        assert [(one.context, one.index) for one in ready.read_states] == [(7, 2)]

    def test_an_answer_to_an_earlier_heartbeat_does_not_confirm_a_read(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        work(shell)
        shell.node.read_index(7)
        work(shell)
        shell.node.step(message(MessageType.HEARTBEAT_RESPONSE, 2, 1))
        assert [one for ready in work(shell) for one in ready.read_states] == []

    def test_answers_that_do_not_count_confirm_nothing(self) -> None:
        shell = make()
        elect(shell)
        accept(shell, 2, 1)
        work(shell)
        shell.node.read_index(7)
        work(shell)
        for peer in (2, 3):
            shell.node.step(message(MessageType.HEARTBEAT_RESPONSE, peer, 1, context=1, counting=False))
        assert [one for ready in work(shell) for one in ready.read_states] == []

    def test_reads_are_lost_with_leadership(self) -> None:
        shell = make()
        elect(shell)
        shell.node.read_index(6)
        accept(shell, 2, 1)
        shell.node.read_index(7)
        work(shell)
        shell.node.step(message(MessageType.APPEND, 2, 5))
        assert [ready.reads_lost for ready in work(shell)] == [(6, 7)]

    def test_a_follower_refuses_reads(self) -> None:
        with pytest.raises(NotLeader, match="leader unknown"):
            make().node.read_index(1)


class TestThesis96PreVote:
    def test_a_pre_candidate_keeps_its_term_and_needs_nothing_durable(self) -> None:
        shell = make(1)
        shell.node.campaign()
        (ready,) = work(shell)
        assert (shell.node.term, shell.node.vote, ready.must_sync) == (1, 0, False)
        assert [(one.type, one.term) for one in ready.messages] == [(MessageType.PRE_VOTE, 2)] * 2

    def test_a_granted_pre_vote_promises_nothing(self) -> None:
        shell = make(1)
        for candidate in (2, 3):
            shell.node.step(message(MessageType.PRE_VOTE, candidate, 2, index=1, log_term=1))
        readys = work(shell)
        assert [one.reject for one in sent(readys, MessageType.PRE_VOTE_RESPONSE)] == [False, False]
        assert (shell.node.term, shell.node.vote) == (1, 0)
        assert not any(ready.must_sync for ready in readys)

    def test_it_is_refused_while_a_leader_is_heard(self) -> None:
        shell = make(1)
        shell.node.step(message(MessageType.HEARTBEAT, 2, 1))
        shell.node.step(message(MessageType.PRE_VOTE, 3, 2, index=1, log_term=1))
        assert [one.reject for one in sent(work(shell), MessageType.PRE_VOTE_RESPONSE)] == [True]

    def test_a_refusal_of_a_later_term_is_learned_from(self) -> None:
        shell = make(1)
        shell.node.campaign()
        shell.node.step(message(MessageType.PRE_VOTE_RESPONSE, 2, 8, reject=True))
        assert (shell.node.role, shell.node.term) == (Role.FOLLOWER, 8)


def test_shells_face_is_what_the_manual_says() -> None:
    """The loop of the package docstring, to the letter, on a group of one."""
    shell = make(voters=(1,))
    node: RawNode = shell.node
    node.campaign()
    work(shell)
    node.propose([entry(node.last_index + 1, node.term)])
    ready = node.ready()
    shell.log.write(ready)
    assert (node.stable_index, node.commit_index) == (1, 1)
    node.on_persisted(ready.persisted)
    assert (node.stable_index, node.commit_index) == (2, 2)
    node.applied_to(LogIndex(2))
    node.compact(LogIndex(1))
    shell.log.compact(1)
    assert (node.first_index, node.applied, node.has_ready()) == (2, 2, True)

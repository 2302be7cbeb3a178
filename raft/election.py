"""Elections: pre-vote, vote and their answers (Raft 5.2 and 5.4.1, thesis 9.6)."""

from __future__ import annotations

from quorumlog.raft.core import Core
from quorumlog.raft.quorum import VoteResult, vote_result
from quorumlog.raft.types import NO_NODE, Message, MessageType, Role, Term


def campaign(core: Core) -> None:
    """The election timeout has expired: starts a pre-election, unless it leads or may not campaign."""
    if core.role is Role.LEADER or not core.promotable:
        return
    core.become_pre_candidate()
    core.votes[core.node_id] = True  # not a promise, so nothing needs to be durable
    _request_votes(core, MessageType.PRE_VOTE, Term(core.term + 1), force=False)
    _count(core)


def campaign_for_real(core: Core, *, force: bool) -> None:
    """Opens a new term. `force` asks voters to forget their stickiness: the leader itself has asked for this."""
    core.become_candidate()
    _request_votes(core, MessageType.VOTE, core.term, force=force)


def on_own_vote_durable(core: Core) -> None:
    """The present term, and with it a candidate's vote for itself, is durable: the vote counts."""
    if core.role is Role.CANDIDATE and core.node_id not in core.votes:
        core.votes[core.node_id] = True
        _count(core)


def handle_vote(core: Core, message: Message) -> None:
    """Grants at most one candidate per term, and none with a lesser log.

    A replica that counts votes whether it believes to be a voter or not: the candidate may know of a later
    configuration (etcd #10998).
    """
    grant = (
        core.counting
        and (core.vote == message.sender or (core.vote == NO_NODE and core.leader_id == NO_NODE))
        and core.log.is_up_to_date(message.index, message.log_term)
    )
    if grant:
        if core.role is Role.PRE_CANDIDATE:
            core.become_follower(core.term, NO_NODE)
        core.vote = message.sender
        core.election_elapsed = 0
    answer_vote(core, message, grant=grant)


def handle_pre_vote(core: Core, message: Message) -> None:
    """Tells whether a vote would be granted, and promises nothing."""
    free = message.term > core.term or (
        message.term == core.term
        and (core.vote == message.sender or (core.vote == NO_NODE and core.leader_id == NO_NODE))
    )
    up_to_date = core.log.is_up_to_date(message.index, message.log_term)
    answer_pre_vote(core, message, grant=core.counting and free and up_to_date and not core.sticky)


def answer_vote(core: Core, message: Message, *, grant: bool) -> None:
    """A grant is a promise and leaves after the sync."""
    answer = Message(
        MessageType.VOTE_RESPONSE, core.node_id, message.sender, core.term, reject=not grant, counting=core.counting
    )
    (core.outbox_after_sync if grant else core.outbox).append(answer)


def answer_pre_vote(core: Core, message: Message, *, grant: bool) -> None:
    """A grant names the term asked for, a refusal the term this replica is in."""
    term = message.term if grant else core.term
    core.outbox.append(
        Message(
            MessageType.PRE_VOTE_RESPONSE, core.node_id, message.sender, term, reject=not grant, counting=core.counting
        )
    )


def handle_pre_vote_grant(core: Core, message: Message) -> None:
    """A grant of a pre-vote carries a term that nobody has entered; one of another round is dropped."""
    if core.role is Role.PRE_CANDIDATE and message.term == core.term + 1:
        count_answer(core, message)


def handle_pre_vote_response(core: Core, message: Message) -> None:
    """A refusal in the present term; a grant in it was meant for a term that has passed."""
    if message.reject:
        count_answer(core, message)


def count_answer(core: Core, message: Message) -> None:
    """Counts the first answer of each replica whose word counts; who of them votes is for the quorum to say."""
    if message.counting and message.sender not in core.votes:
        core.votes[message.sender] = not message.reject
        _count(core)


def _count(core: Core) -> None:
    result = vote_result(core.configuration, core.votes)
    if result is VoteResult.LOST:
        core.become_follower(core.term, NO_NODE)
    elif result is VoteResult.WON:
        if core.role is Role.PRE_CANDIDATE:
            campaign_for_real(core, force=False)
        else:
            core.become_leader()


def _request_votes(core: Core, kind: MessageType, term: Term, *, force: bool) -> None:
    log = core.log
    outbox = core.outbox_after_sync if kind is MessageType.VOTE else core.outbox
    for voter in dict.fromkeys(core.configuration.voters + core.configuration.outgoing):
        if voter != core.node_id:
            outbox.append(
                Message(kind, core.node_id, voter, term, index=log.last_index, log_term=log.last_term, force=force)
            )

"""Who handles what: first the term decides, then one table, role by message."""

from __future__ import annotations

from collections.abc import Callable

from quorumlog.raft import election, following, leading, replication
from quorumlog.raft.core import Core
from quorumlog.raft.types import NO_NODE, Message, MessageType, Role
from quorumlog.raft.validation import FROM_LEADER, validate

Handler = Callable[[Core, Message], None]


def ignore(core: Core, message: Message) -> None:
    """A late answer to a question that this role no longer asks."""


def impossible(core: Core, message: Message) -> None:
    """Validation has refused this already: a leader knows that nobody else leads its term."""
    raise AssertionError(f"{message.type.name} of term {message.term} reached its {core.role.value}")


M, R = MessageType, Role

DISPATCH: dict[tuple[Role, MessageType], Handler] = {
    (R.FOLLOWER, M.APPEND): following.handle_append,
    (R.FOLLOWER, M.APPEND_RESPONSE): ignore,
    (R.FOLLOWER, M.HEARTBEAT): following.handle_heartbeat,
    (R.FOLLOWER, M.HEARTBEAT_RESPONSE): ignore,
    (R.FOLLOWER, M.VOTE): election.handle_vote,
    (R.FOLLOWER, M.VOTE_RESPONSE): ignore,
    (R.FOLLOWER, M.PRE_VOTE): election.handle_pre_vote,
    (R.FOLLOWER, M.PRE_VOTE_RESPONSE): ignore,
    (R.FOLLOWER, M.TIMEOUT_NOW): leading.handle_timeout_now,
    (R.FOLLOWER, M.SNAPSHOT): following.handle_snapshot,
    (R.PRE_CANDIDATE, M.APPEND): following.handle_append,
    (R.PRE_CANDIDATE, M.APPEND_RESPONSE): ignore,
    (R.PRE_CANDIDATE, M.HEARTBEAT): following.handle_heartbeat,
    (R.PRE_CANDIDATE, M.HEARTBEAT_RESPONSE): ignore,
    (R.PRE_CANDIDATE, M.VOTE): election.handle_vote,
    (R.PRE_CANDIDATE, M.VOTE_RESPONSE): ignore,
    (R.PRE_CANDIDATE, M.PRE_VOTE): election.handle_pre_vote,
    (R.PRE_CANDIDATE, M.PRE_VOTE_RESPONSE): election.handle_pre_vote_response,
    (R.PRE_CANDIDATE, M.TIMEOUT_NOW): leading.handle_timeout_now,
    (R.PRE_CANDIDATE, M.SNAPSHOT): following.handle_snapshot,
    (R.CANDIDATE, M.APPEND): following.handle_append,
    (R.CANDIDATE, M.APPEND_RESPONSE): ignore,
    (R.CANDIDATE, M.HEARTBEAT): following.handle_heartbeat,
    (R.CANDIDATE, M.HEARTBEAT_RESPONSE): ignore,
    (R.CANDIDATE, M.VOTE): election.handle_vote,
    (R.CANDIDATE, M.VOTE_RESPONSE): election.count_answer,
    (R.CANDIDATE, M.PRE_VOTE): election.handle_pre_vote,
    (R.CANDIDATE, M.PRE_VOTE_RESPONSE): ignore,
    (R.CANDIDATE, M.TIMEOUT_NOW): ignore,
    (R.CANDIDATE, M.SNAPSHOT): following.handle_snapshot,
    (R.LEADER, M.APPEND): impossible,
    (R.LEADER, M.APPEND_RESPONSE): replication.handle_append_response,
    (R.LEADER, M.HEARTBEAT): impossible,
    (R.LEADER, M.HEARTBEAT_RESPONSE): replication.handle_heartbeat_response,
    (R.LEADER, M.VOTE): election.handle_vote,
    (R.LEADER, M.VOTE_RESPONSE): ignore,
    (R.LEADER, M.PRE_VOTE): election.handle_pre_vote,
    (R.LEADER, M.PRE_VOTE_RESPONSE): ignore,
    (R.LEADER, M.TIMEOUT_NOW): impossible,
    (R.LEADER, M.SNAPSHOT): impossible,
}


def step(core: Core, message: Message) -> None:
    """Takes one message from a peer."""
    validate(core, message)
    if message.term < core.term:
        _step_older_term(core, message)
        return
    if message.term > core.term and not _enter_later_term(core, message):
        return
    if core.quiesced and not _leaves_asleep(core, message):
        core.wake()
    DISPATCH[core.role, message.type](core, message)


def _step_older_term(core: Core, message: Message) -> None:
    """Requests are answered with the present term; answers are dropped."""
    kind = message.type
    if kind in (M.APPEND, M.HEARTBEAT, M.SNAPSHOT):
        following.answer_older_leader(core, message)
    elif kind is M.VOTE:
        election.answer_vote(core, message, grant=False)
    elif kind is M.PRE_VOTE:
        election.answer_pre_vote(core, message, grant=False)


def _enter_later_term(core: Core, message: Message) -> bool:
    """Follows the message into its term, unless it only asks about that term. Tells whether to go on with it."""
    kind = message.type
    if kind is M.PRE_VOTE:
        return True
    if kind is M.PRE_VOTE_RESPONSE and not message.reject:
        election.handle_pre_vote_grant(core, message)
        return False
    if kind is M.VOTE and core.sticky and not message.force:
        return False
    core.become_follower(message.term, message.sender if kind in FROM_LEADER else NO_NODE)
    return True


def _leaves_asleep(core: Core, message: Message) -> bool:
    """The last heartbeat, come twice, and late answers to the heartbeats before it are no reason to wake up."""
    if core.role is Role.LEADER:
        return message.type is M.HEARTBEAT_RESPONSE and message.last_index == core.log.last_index
    return message.type is M.HEARTBEAT and message.quiesce

"""What a message must be before it may touch anything. A message that fails here had no effect at all."""

from __future__ import annotations

from collections.abc import Callable

from quorumlog.raft.core import Core
from quorumlog.raft.errors import StepError
from quorumlog.raft.types import NO_NODE, Message, MessageType

TERM_JUMP_MAX = 1 << 32
"""A term this far ahead is not one that elections have reached: at one election per millisecond it takes 49 days."""

FROM_LEADER = frozenset((MessageType.APPEND, MessageType.HEARTBEAT, MessageType.TIMEOUT_NOW, MessageType.SNAPSHOT))


def validate(core: Core, message: Message) -> None:
    """Raises StepError for a message that no correct peer sends."""
    sender = message.sender
    if message.to != core.node_id:
        raise StepError(f"a message for node {message.to} reached node {core.node_id}")
    if sender == core.node_id or sender <= NO_NODE:
        raise StepError(f"a message came from node {sender}")
    lowest = 0 if message.type is MessageType.PRE_VOTE_RESPONSE else 1  # a pre-vote is refused in term 0 as well
    if not lowest <= message.term <= core.term + TERM_JUMP_MAX:
        raise StepError(f"node {sender} speaks of term {message.term}, here it is {core.term}")
    if message.term == core.term and core.leader_id not in (NO_NODE, sender) and message.type in FROM_LEADER:
        raise StepError(f"node {sender} claims to lead term {core.term}, but node {core.leader_id} does")
    check = CHECKS.get(message.type)
    if check is not None:
        check(core, message)


def _check_append(core: Core, message: Message) -> None:
    _check_position(message)
    if message.commit_index < 0:
        raise StepError(f"node {message.sender} sends commit index {message.commit_index}")
    index, term = int(message.index), message.log_term
    for entry in message.entries:
        index += 1
        if entry.index != index:
            raise StepError(f"node {message.sender} sends entry {entry.index} where {index} is due")
        if not term <= entry.term <= message.term:
            raise StepError(f"node {message.sender} sends entry {index} of term {entry.term} behind term {term}")
        term = entry.term
    if message.term >= core.term and message.index <= core.commit_index:
        _check_against_committed(core, message)


def _check_against_committed(core: Core, message: Message) -> None:
    """A leader's log holds everything committed (leader completeness, Raft 5.4.3), so it never contradicts it."""
    log = core.log
    low, high = log.first_index - 1, min(core.commit_index, log.last_index)
    if low <= message.index <= high and log.term(message.index) != message.log_term:
        raise StepError(f"node {message.sender} contradicts the committed entry {message.index}")
    for entry in message.entries:
        if entry.index > high:
            break
        if entry.index >= low and log.term(entry.index) != entry.term:
            raise StepError(f"node {message.sender} contradicts the committed entry {entry.index}")


def _check_heartbeat(core: Core, message: Message) -> None:
    if message.commit_index < 0 or message.context < 0 or message.index < 0:
        raise StepError(
            f"node {message.sender} sends commit index {message.commit_index}, context {message.context}, "
            f"index {message.index}"
        )
    if core.counting and message.term >= core.term and message.commit_index > core.log.last_index:
        raise StepError(
            f"node {message.sender} sends commit index {message.commit_index}, the last entry is {core.log.last_index}"
        )


def _check_snapshot(core: Core, message: Message) -> None:
    _check_position(message)
    if not message.index or message.configuration is None:
        raise StepError(f"node {message.sender} sends a snapshot at {message.index} without a configuration")
    if message.term >= core.term:
        _check_against_committed(core, message)


def _check_position(message: Message) -> None:
    """An entry of the sender's log: none is named (0, 0), none has a term beyond the message's."""
    index, term = message.index, message.log_term
    if index < 0 or not 0 <= term <= message.term or (index == 0) != (term == 0):
        raise StepError(f"node {message.sender} names entry {index} of term {term} in term {message.term}")


def _check_vote(core: Core, message: Message) -> None:
    _check_position(message)
    if message.log_term >= message.term:
        raise StepError(f"node {message.sender} asks for votes in term {message.term}, its log has it already")


def _check_append_response(core: Core, message: Message) -> None:
    if message.index < 0 or message.stable_index < 0 or message.hint_index < 0 or message.hint_term < 0:
        raise StepError(f"node {message.sender} answers with an index or term below 0")
    if _answers_leader(core, message) and not message.reject and message.index > core.log.last_index:
        raise StepError(f"node {message.sender} acknowledges {message.index}, the last entry is {core.log.last_index}")


def _check_heartbeat_response(core: Core, message: Message) -> None:
    if message.context < 0:
        raise StepError(f"node {message.sender} answers with context {message.context}")
    leadership = core.leadership
    if _answers_leader(core, message) and leadership is not None and message.context > leadership.reads.number:
        raise StepError(f"node {message.sender} answers read round {message.context}, which has not begun")


def _answers_leader(core: Core, message: Message) -> bool:
    """Whether this is an answer of a peer to a leader, in its term."""
    leadership = core.leadership
    return leadership is not None and message.term == core.term and message.sender in leadership.progress


CHECKS: dict[MessageType, Callable[[Core, Message], None]] = {
    MessageType.APPEND: _check_append,
    MessageType.APPEND_RESPONSE: _check_append_response,
    MessageType.HEARTBEAT: _check_heartbeat,
    MessageType.HEARTBEAT_RESPONSE: _check_heartbeat_response,
    MessageType.SNAPSHOT: _check_snapshot,
    MessageType.VOTE: _check_vote,
    MessageType.PRE_VOTE: _check_vote,
}

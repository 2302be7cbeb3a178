"""The invariants of one replica, stated and executed in one place."""

from __future__ import annotations

from quorumlog.raft.core import Core
from quorumlog.raft.errors import InvariantViolation
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.log import RaftLog
from quorumlog.raft.progress import ProgressState
from quorumlog.raft.types import NO_NODE, MessageType, Role

PRE_VOTES = (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE)  # they speak of a term that nobody has entered


def check_invariants(core: Core) -> None:
    """Raises InvariantViolation when this replica is broken. Costs microseconds: for role changes and tests."""
    log = core.log
    _check_log(log)
    _require(log.first_index - 1 <= core.applied <= core.commit_index, "first_index - 1 <= applied <= commit_index")
    if core.counting:
        _require(core.commit_index <= log.last_index, "commit_index <= last_index")
    _require(0 <= core.durable_term <= core.term, "durable_term <= term")
    _require(core.counting == (core.nonce == 0), "a replica in repair has a nonce")
    _require(core.configuration is core.configurations.latest, "the latest configuration is in force")
    _require(core.configurations.latest_index <= log.last_index, "a configuration stands in the log")
    _require(core.configurations.rows[0].index < log.first_index, "the log begins with a configuration")
    _require(log.last_term <= core.term, "no entry is of a later term")
    _require((core.role is Role.LEADER) == (core.leadership is not None), "leadership belongs to the leader")
    if core.role is not Role.FOLLOWER:
        _require(core.promotable, "only a counting voter campaigns or leads, or one that is not known to have left")
    if core.role is Role.CANDIDATE:
        _require(core.vote == core.node_id, "a candidate votes for itself")
    if core.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
        _require(core.leader_id == NO_NODE, "whoever campaigns knows no leader")
    for message in core.outbox + core.outbox_after_sync:
        _require(message.term == core.term or message.type in PRE_VOTES, "what has not left is of this term")
    if core.leadership is not None:
        _require(core.leader_id == core.node_id, "a leader follows itself")
        _check_leadership(core, core.leadership)


def _check_log(log: RaftLog) -> None:
    _require(1 <= log.first_index <= log.last_index + 1, "first_index - 1 <= last_index")
    _require(log.stable_index <= log.last_index, "stable_index <= last_index")
    _require(log.stable_index < log.pending_first, "a pending entry is not durable")
    _require(log.pending_first + len(log.pending) == log.last_index + 1, "pending ends with the last entry")
    _require(log.run_first <= log.last_index, "the last term's run holds the last entry")
    for place, entry in enumerate(log.pending):
        _require(entry.index == log.pending_first + place, "pending entries are consecutive")
    _require(not log.pending or log.pending[-1].term == log.last_term, "last_term is the last entry's")


def _check_leadership(core: Core, leadership: Leadership) -> None:
    log = core.log
    _require(leadership.term_start_index <= log.last_index, "a leader's log holds its no-op")
    _require(log.last_term == core.term, "a leader's last entry is of its term")
    _require(leadership.counted[core.node_id] <= log.stable_index, "a leader counts itself by what is durable")
    _require(
        leadership.progress.keys() == set(core.configuration.replicas) - {core.node_id},
        "a leader has every peer in view",
    )
    _require(leadership.counted.keys() - {core.node_id} == leadership.progress.keys(), "whoever is in view is counted")
    _require(leadership.uncommitted_size_bytes >= 0, "uncommitted_size_bytes >= 0")
    for peer, progress in leadership.progress.items():
        _require(progress.match_index < progress.next_index <= log.last_index + 1, "match < next <= last + 1")
        _require(leadership.counted[peer] <= progress.match_index, "counted <= match")
        if progress.state is not ProgressState.REPLICATE:
            _require(len(progress.inflights) == 0, "nothing in flight outside of REPLICATE")


def _require(holds: bool, invariant: str) -> None:
    if not holds:
        raise InvariantViolation(invariant)

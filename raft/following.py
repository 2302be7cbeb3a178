"""The follower's side of replication (Raft 5.3)."""

from __future__ import annotations

from quorumlog.raft.core import Core
from quorumlog.raft.types import NO_NODE, Entry, LogIndex, Message, MessageType, Term

ZERO = LogIndex(0)


def handle_append(core: Core, message: Message) -> None:
    """Takes entries over from the leader. What is already here is never touched: only a conflicting term truncates."""
    core.hear_leader(message.sender)
    log = core.log
    entries = message.entries
    previous = message.index
    if previous < log.first_index - 1:
        # The prefix is compacted, so it is committed and the leader has it too: not a conflict, just long known.
        entries = tuple(entry for entry in entries if entry.index >= log.first_index)
        matched = LogIndex(max(message.index + len(message.entries), min(core.commit_index, log.last_index)))
    elif log.holds(previous, message.log_term):
        matched = LogIndex(previous + len(entries))
    else:
        _refuse_append(core, message)
        return
    if entries:
        _take_over(core, entries)
    core.verified_index = max(core.verified_index, matched)
    # Only what this APPEND has shown to be the leader's may be committed on its word.
    core.commit_to(min(message.commit_index, matched))
    core.outbox_after_sync.append(
        Message(
            MessageType.APPEND_RESPONSE,
            core.node_id,
            message.sender,
            core.term,
            index=matched,
            last_index=log.last_index,
            stable_index=log.last_index,  # durable by the time the answer leaves
            counting=core.counting,
            nonce=core.nonce,
        )
    )


def handle_snapshot(core: Core, message: Message) -> None:
    """Takes over a snapshot whose state the shell holds, unless the log here goes as far already (Raft section 7)."""
    core.hear_leader(message.sender)
    log, index = core.log, message.index
    assert message.configuration is not None, "validated"
    committed_here = min(core.commit_index, log.last_index)  # in repair, what is committed may be lost here
    if index <= committed_here:
        matched = committed_here  # so the leader has it too
    elif log.holds(index, message.log_term):
        matched = index
        core.commit_to(index)
    else:
        matched = index
        core.begin_behind(index, message.log_term, message.configuration)
    core.verified_index = max(core.verified_index, matched)
    core.outbox_after_sync.append(
        Message(
            MessageType.APPEND_RESPONSE,
            core.node_id,
            message.sender,
            core.term,
            index=matched,
            last_index=log.last_index,
            stable_index=log.last_index,
            counting=core.counting,
            nonce=core.nonce,
        )
    )


def handle_heartbeat(core: Core, message: Message) -> None:
    """Hears the leader, learns the commit index, and goes to sleep with it when asked and nothing is open."""
    core.hear_leader(message.sender)
    if core.counting:
        # The leader names no more than it knows to match here. A replica that has forgotten may hold something else
        # there by now, so it learns the commit index from APPENDs alone.
        core.commit_to(message.commit_index)
    elif message.nonce == core.nonce:
        # This leader's term was confirmed after this replica had started, so its log holds all that this one can have
        # promised before.
        core.repair_target = max(core.repair_target, message.index)
        leave_repair(core)
    if message.quiesce and core.commit_index == core.log.last_index:
        if not core.quiesced:
            core.quiesced = True
            core.tracer.on_quiesced(True)
        return
    core.outbox.append(
        Message(
            MessageType.HEARTBEAT_RESPONSE,
            core.node_id,
            message.sender,
            core.term,
            last_index=core.log.last_index,
            counting=core.counting,
            context=message.context,
            nonce=core.nonce,
        )
    )


def count_again(core: Core) -> None:
    """The end of the repair is written down. The leader hears at once that this replica counts, and how far."""
    core.nonce, core.counting = 0, True
    if core.leader_id == NO_NODE:
        return
    stable = core.log.stable_index
    core.outbox.append(
        Message(
            MessageType.APPEND_RESPONSE,
            core.node_id,
            core.leader_id,
            core.term,
            index=min(core.verified_index, stable),
            last_index=core.log.last_index,
            stable_index=stable,
        )
    )


def leave_repair(core: Core) -> None:
    """Ends the repair once everything that the confirmed leader held is here, durable. It counts when that is written
    down.
    """
    target = core.repair_target
    if core.counting or core.repaired or not target:
        return
    if min(core.verified_index, core.log.stable_index) >= target:
        core.repaired = True
        core.tracer.on_repaired(target)


def answer_older_leader(core: Core, message: Message) -> None:
    """Tells a leader of an older term that its time is over; it might otherwise go on until check-quorum."""
    _answer_rejected(core, message, ZERO, Term(0))


def _take_over(core: Core, entries: tuple[Entry, ...]) -> None:
    log = core.log
    first = entries[0].index
    if first <= log.last_index:
        known = 0
        for entry in entries:
            if entry.index > log.last_index:
                break
            if log.term(entry.index) != entry.term:
                assert entry.index > core.commit_index, f"committed entry {entry.index} would be truncated"
                core.tracer.on_truncate(entry.index, log.last_index)
                core.truncate(entry.index)
                break
            known += 1
        entries = entries[known:]
    if entries:
        core.append(entries)


def _refuse_append(core: Core, message: Message) -> None:
    """Names the last entry here that may match: behind it all terms are above the leader's at that place."""
    log = core.log
    hint = log.last_at_or_below_term(message.index, message.log_term)
    _answer_rejected(core, message, hint, log.term(hint) if hint >= log.first_index - 1 else Term(0))


def _answer_rejected(core: Core, message: Message, hint_index: LogIndex, hint_term: Term) -> None:
    core.outbox_after_sync.append(
        Message(
            MessageType.APPEND_RESPONSE,
            core.node_id,
            message.sender,
            core.term,
            index=message.index,
            reject=True,
            hint_index=hint_index,
            hint_term=hint_term,
            last_index=core.log.last_index,
            stable_index=core.log.last_index,
            counting=core.counting,
            nonce=core.nonce,
        )
    )

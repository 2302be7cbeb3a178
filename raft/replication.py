"""The leader's side of replication (Raft 5.3 and 5.4.2; flow control as in thesis 10.2.1)."""

from __future__ import annotations

from quorumlog.raft import membership
from quorumlog.raft.core import Core
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.progress import Progress, ProgressState
from quorumlog.raft.quorum import quorum_index
from quorumlog.raft.types import Entry, LogIndex, Message, MessageType, NodeId


def flush(core: Core, leadership: Leadership) -> None:
    """Makes this turn's messages: entries for peers that can take some, read rounds, commit news, transfer."""
    if leadership.appends_due:
        leadership.appends_due = False
        for peer, progress in leadership.progress.items():
            if progress.send_due:
                _send_appends(core, leadership, peer, progress)
    if leadership.reads.joining:
        leadership.reads.begin()
        for peer, progress in leadership.progress.items():
            send_heartbeat(core, peer, progress)
        leadership.reads_to_recount = True
    if leadership.reads_to_recount:
        leadership.reads_to_recount = False
        take_confirmed(core, leadership)
    if leadership.commit_notice_due:
        leadership.commit_notice_due = False
        _tell_commit(core, leadership)
    target = leadership.transferring_to
    if (
        target is not None
        and not leadership.timeout_now_sent
        and leadership.progress[target].match_index == core.log.last_index
    ):
        leadership.timeout_now_sent = True
        core.outbox.append(Message(MessageType.TIMEOUT_NOW, core.node_id, target, core.term))


def maybe_commit(core: Core, leadership: Leadership) -> None:
    """Commits what a quorum holds durably, if it is of this term (Raft 5.4.2: older terms are never counted)."""
    index = LogIndex(quorum_index(core.configuration, leadership.counted))
    if index <= core.commit_index or index < leadership.term_start_index:
        return
    core.commit_to(index)
    leadership.release_uncommitted(index)
    if leadership.reads.waiting:
        leadership.reads.admit_waiting(index)
    if index == core.log.last_index and core.config.prompt_commit:
        leadership.commit_notice_due = True
    membership.on_committed(core, leadership)


def take_confirmed(core: Core, leadership: Leadership) -> None:
    """Answers the reads, and the peers in repair, that a quorum has confirmed."""
    states, nonces = leadership.reads.confirmed(core.configuration)
    core.read_states.extend(states)
    for peer, nonce in nonces:
        progress = leadership.progress.get(peer)
        if progress is not None and progress.confirming_nonce == nonce:
            progress.nonce, progress.repair_target = nonce, core.log.last_index
            send_heartbeat(core, peer, progress)


def send_heartbeat(core: Core, peer: NodeId, progress: Progress, *, quiesce: bool = False) -> None:
    """Tells the peer who leads, and of the commit index no more than the peer is known to share."""
    assert core.leadership is not None, "only a leader sends heartbeats"
    reads = core.leadership.reads
    commit_index = min(core.commit_index, progress.match_index)
    progress.commit_sent = max(progress.commit_sent, commit_index)
    progress.quiet_ticks = 0
    core.outbox.append(
        Message(
            MessageType.HEARTBEAT,
            core.node_id,
            peer,
            core.term,
            index=progress.repair_target,
            commit_index=commit_index,
            context=reads.number if reads.open else 0,
            quiesce=quiesce,
            nonce=progress.nonce,
        )
    )


def handle_append_response(core: Core, message: Message) -> None:
    """Moves the peer's progress and, if its word counts, the commit index."""
    leadership, progress = _peer_of(core, message)
    if progress is None:
        return
    _heard(core, leadership, progress, message)
    leadership.idle_elapsed = 0
    if not message.counting:
        leadership.counted[message.sender] = LogIndex(0)
    if message.reject:
        hint = core.log.last_at_or_below_term(message.hint_index, message.hint_term)
        before = progress.state
        if progress.on_rejected(message.index, hint):
            leadership.appends_due = True
            if progress.state is not before:
                _trace(core, message.sender, progress)
        return
    _on_accepted(core, leadership, progress, message)
    counted = min(message.index, message.stable_index)
    if message.counting and counted > leadership.counted[message.sender]:
        leadership.counted[message.sender] = counted
        if counted > core.commit_index:
            maybe_commit(core, leadership)
    if message.index == core.commit_index == core.log.last_index and core.config.prompt_commit:
        leadership.commit_notice_due = True


def handle_heartbeat_response(core: Core, message: Message) -> None:
    """The peer lives: resumes a probe, looks after entries that may have been lost, counts the answer for reads."""
    leadership, progress = _peer_of(core, message)
    if progress is None:
        return
    _heard(core, leadership, progress, message)
    if progress.state is ProgressState.PROBE:
        progress.probe_sent = False
        progress.send_due = leadership.appends_due = True
    elif progress.state is ProgressState.REPLICATE and len(progress.inflights):
        if progress.stalled:
            # Nothing acknowledged for a whole heartbeat: if the last APPENDs were lost, no answer would ever say so.
            nudge(core, message.sender, progress)
        progress.stalled = True
    elif progress.state is ProgressState.SNAPSHOT and message.last_index >= core.log.first_index - 1:
        # An earlier leader may have brought the peer further than this one knows.
        progress.become_probe(LogIndex(min(message.last_index, core.log.last_index) + 1))
        leadership.appends_due = True
        _trace(core, message.sender, progress)
    if message.counting and message.context and leadership.reads.open:
        leadership.reads.answer(message.sender, message.context)
        take_confirmed(core, leadership)


def _on_accepted(core: Core, leadership: Leadership, progress: Progress, message: Message) -> None:
    news = progress.on_matched(message.index)
    if leadership.transferring_to == message.sender:
        leadership.appends_due = True  # it may have caught up
    progress.stalled = False
    if progress.state is ProgressState.REPLICATE:
        if progress.next_index <= core.log.last_index:
            progress.send_due = leadership.appends_due = True
        return
    if progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif news and progress.match_index >= core.log.first_index - 1:
        progress.become_probe(progress.next_index)
    else:
        return
    leadership.appends_due = True
    _trace(core, message.sender, progress)


def _peer_of(core: Core, message: Message) -> tuple[Leadership, Progress | None]:
    """The leader's view of who answers; None for one that is a member no more."""
    leadership = core.leadership
    assert leadership is not None, "answers to a leader are dispatched to a leader"
    return leadership, leadership.progress.get(message.sender)


def _heard(core: Core, leadership: Leadership, progress: Progress, message: Message) -> None:
    progress.answered = True
    if message.counting:
        progress.recently_active = True
        counts_again, progress.counting = not progress.counting, True
        if counts_again and message.type is MessageType.HEARTBEAT_RESPONSE:
            nudge(core, message.sender, progress)  # how far it counts, only the answer to an APPEND says
    else:
        progress.counting = False
        if message.nonce and message.nonce != progress.confirming_nonce:
            if message.last_index < progress.match_index:
                # It has begun anew within this session, and what it had acknowledged before is gone.
                progress.forget(LogIndex(core.log.last_index + 1))
                leadership.counted[message.sender] = LogIndex(0)
                leadership.appends_due = True
                _trace(core, message.sender, progress)
            progress.confirming_nonce = message.nonce
            progress.nonce, progress.repair_target = 0, LogIndex(0)
            leadership.reads.add_nonce(message.sender, message.nonce)


def _send_appends(core: Core, leadership: Leadership, peer: NodeId, progress: Progress) -> None:
    """Sends as much as flow control allows: all that fits in REPLICATE, a single APPEND in PROBE."""
    progress.send_due = False
    log = core.log
    while progress.can_send:
        first = progress.next_index
        if first < log.first_index:
            progress.become_snapshot()
            leadership.snapshots_wanted.append(peer)
            _trace(core, peer, progress)
            return
        if first <= log.last_index:
            found = log.slice(first, core.config.append_size_bytes_max)
            if found is None:
                progress.loading = True  # until on_entries_loaded
                return
            entries, size_bytes = found
            _append_message(core, peer, progress, entries)
            progress.on_sent(entries[-1].index, size_bytes)
        elif progress.state is ProgressState.PROBE:
            _append_message(core, peer, progress, ())  # carries nothing but the question whether the logs match
            progress.on_sent(log.last_index, 0)
        else:
            return


def _append_message(core: Core, peer: NodeId, progress: Progress, entries: tuple[Entry, ...]) -> None:
    previous = LogIndex(progress.next_index - 1)
    progress.commit_sent = max(progress.commit_sent, min(core.commit_index, LogIndex(previous + len(entries))))
    if progress.answered:
        # An APPEND stands for a heartbeat only while the peer answers: the answer to an APPEND waits for a disk,
        # and a slow disk must not look like a dead peer.
        progress.answered = False
        progress.quiet_ticks = 0
    core.outbox.append(
        Message(
            MessageType.APPEND,
            core.node_id,
            peer,
            core.term,
            index=previous,
            log_term=core.log.term(previous),
            entries=entries,
            commit_index=core.commit_index,
        )
    )


def nudge(core: Core, peer: NodeId, progress: Progress) -> None:
    """Sends an empty APPEND behind everything sent: refused if anything before it was lost."""
    if progress.next_index >= core.log.first_index:
        _append_message(core, peer, progress, ())


def _tell_commit(core: Core, leadership: Leadership) -> None:
    """Tells idle peers of the last commit now, instead of with the next entry or heartbeat."""
    commit_index = core.commit_index
    if commit_index != core.log.last_index:
        return
    for peer, progress in leadership.progress.items():
        if progress.commit_sent < commit_index <= progress.match_index:
            send_heartbeat(core, peer, progress)


def _trace(core: Core, peer: NodeId, progress: Progress) -> None:
    core.tracer.on_progress(peer, progress.state.value, progress.next_index)

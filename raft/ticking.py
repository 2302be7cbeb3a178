"""The passage of time: elections, heartbeats, check-quorum, and falling asleep when there is nothing to do."""

from __future__ import annotations

from quorumlog.raft.core import Core
from quorumlog.raft.election import campaign
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.progress import Progress, ProgressState
from quorumlog.raft.quorum import has_quorum
from quorumlog.raft.replication import nudge, send_heartbeat
from quorumlog.raft.types import NO_NODE, LogIndex, NodeId


def tick(core: Core) -> None:
    """One tick has passed."""
    if core.quiesced:
        return
    if core.leadership is not None:
        _tick_leader(core, core.leadership)
        return
    core.election_elapsed += 1
    if core.election_elapsed >= core.election_timeout:
        campaign(core)


def report_unreachable(core: Core, peer: NodeId) -> None:
    """The stream to or from `peer` broke: what was in flight may be lost, and a leader there may be dead."""
    leadership = core.leadership
    if leadership is not None:
        progress = leadership.progress.get(peer)
        if progress is not None:
            core.wake()
            if progress.state is ProgressState.REPLICATE:
                progress.become_probe(LogIndex(progress.match_index + 1))
                leadership.appends_due = True
    elif peer == core.leader_id != NO_NODE:
        core.wake()
        core.leader_heard = False
        # Soon, so that a dead node is replaced quickly, yet spread, so that its followers do not all ask at once.
        core.election_elapsed = 0
        core.election_timeout = 1 + core.rng.randrange(max(2, core.config.election_ticks // 2))


def reset_peer(core: Core, peer: NodeId) -> None:
    """A new session of `peer` began: it may have forgotten anything, and if it led, it may lead no more."""
    leadership = core.leadership
    if leadership is not None:
        progress = leadership.progress.get(peer)
        if progress is not None:
            core.wake()
            leadership.idle_elapsed = 0
            leadership.counted[peer] = LogIndex(0)
            progress.reset(LogIndex(core.log.last_index + 1))
            leadership.appends_due = True
    elif peer == core.leader_id != NO_NODE:
        core.wake()
        core.leader_heard = False


def _tick_leader(core: Core, leadership: Leadership) -> None:
    leadership.check_elapsed += 1
    leadership.idle_elapsed += 1
    if leadership.transferring_to is not None:
        leadership.transfer_elapsed += 1
        if leadership.transfer_elapsed >= core.config.election_ticks:
            leadership.stop_transfer()
    if leadership.check_elapsed >= core.config.election_ticks:
        leadership.check_elapsed = 0
        leadership.commit_before = core.commit_index
        active = _take_active(core, leadership)
        if not has_quorum(core.configuration, active):
            core.become_follower(core.term, NO_NODE)  # a leader that has lost its majority steps down (thesis 6.2)
            return
        if len(active) == len(core.configuration.replicas) and _may_quiesce(core, leadership):
            _quiesce(core, leadership)
            return
    for peer, progress in leadership.progress.items():
        _tick_peer(core, peer, progress)


def _tick_peer(core: Core, peer: NodeId, progress: Progress) -> None:
    progress.quiet_ticks += 1
    if progress.quiet_ticks >= core.config.heartbeat_ticks:
        send_heartbeat(core, peer, progress)
        if not progress.counting and progress.state is ProgressState.REPLICATE and not len(progress.inflights):
            nudge(core, peer, progress)  # a replica that has forgotten learns the commit index from APPENDs alone


def _take_active(core: Core, leadership: Leadership) -> list[NodeId]:
    """The replicas whose counting answers came since the last check, this one included."""
    active = [core.node_id]
    for peer, progress in leadership.progress.items():
        if progress.recently_active:
            active.append(peer)
        progress.recently_active = False
    return active


def _may_quiesce(core: Core, leadership: Leadership) -> bool:
    """Nothing happened for an election timeout, nothing is open, and every replica has everything."""
    last_index = core.log.last_index
    return (
        leadership.idle_elapsed >= core.config.election_ticks
        and core.commit_index == last_index
        and leadership.reads.idle
        and leadership.transferring_to is None
        and all(
            progress.state is ProgressState.REPLICATE and progress.match_index == last_index
            for progress in leadership.progress.values()
        )
    )


def _quiesce(core: Core, leadership: Leadership) -> None:
    for peer, progress in leadership.progress.items():
        send_heartbeat(core, peer, progress, quiesce=True)
    core.quiesced = True
    core.tracer.on_quiesced(True)

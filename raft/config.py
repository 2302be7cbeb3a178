"""The limits of one Raft group."""

from __future__ import annotations

from dataclasses import dataclass

from quorumlog.raft.types import NodeId


@dataclass(frozen=True, slots=True)
class Config:
    """Who this replica is and how far it may go. Times are ticks: the shell decides how long a tick lasts."""

    node_id: NodeId

    election_ticks: int = 10
    """Ticks without a leader before a campaign, redrawn each time from [election_ticks, 2 * election_ticks).

    Also the window of check-quorum and of leader stickiness, and the time after which a transfer is given up.
    """

    heartbeat_ticks: int = 2
    """Ticks after which a peer that was sent nothing is sent a heartbeat."""

    inflight_messages_max: int = 64
    """Unanswered APPENDs per peer."""

    inflight_size_bytes_max: int = 8 << 20
    """Unanswered entry bytes per peer; a message is sent while the sum is below this, so one message may pass it."""

    append_size_bytes_max: int = 1 << 20
    """Entry bytes in one APPEND. One entry is always sent, however large."""

    uncommitted_size_bytes_max: int = 64 << 20
    """Proposed bytes not yet committed. One proposal is always accepted when nothing is waiting."""

    prompt_commit: bool = True
    """Idle peers are told of a commit at once. Otherwise they hear of it with the next APPEND or heartbeat, which
    spares a message and its answer per peer and commit where nobody waits for the followers to apply.
    """

    def __post_init__(self) -> None:
        assert self.node_id > 0, f"node_id counts from 1: {self.node_id}"
        assert self.heartbeat_ticks >= 1, f"heartbeat_ticks: {self.heartbeat_ticks}"
        # A follower must survive the loss of one heartbeat without campaigning.
        assert self.election_ticks >= 2 * self.heartbeat_ticks, (
            f"election_ticks {self.election_ticks} must be at least twice heartbeat_ticks {self.heartbeat_ticks}"
        )
        assert self.inflight_messages_max >= 1, f"inflight_messages_max: {self.inflight_messages_max}"
        assert 1 <= self.append_size_bytes_max <= self.inflight_size_bytes_max <= self.uncommitted_size_bytes_max, (
            "limits must nest: append_size_bytes_max <= inflight_size_bytes_max <= uncommitted_size_bytes_max, not "
            f"{self.append_size_bytes_max}, {self.inflight_size_bytes_max}, {self.uncommitted_size_bytes_max}"
        )

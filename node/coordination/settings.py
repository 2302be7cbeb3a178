"""The times and bounds of the coordination plane."""

from __future__ import annotations

from dataclasses import dataclass

from quorumlog.node.coordination.commands import MAX_ANNOUNCE_PARTS


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """The defaults suit a cluster on one network: a lost leader is replaced in about 2 s, and idling is cheap."""

    tick_seconds: float = 0.05  # how often the node calls `tick`
    heartbeat_seconds: float = 0.25
    election_timeout_min_seconds: float = 1.0
    election_timeout_max_seconds: float = 2.0
    leader_fallback_seconds: float = 1.0  # without answers of a majority for so long, a leader stops being one
    announce_every_seconds: float = 3.0
    announce_gap_seconds: float = 0.25  # changes within it travel in one announcement
    claim_retry_seconds: float = 1.0
    restart_seconds: float = 0.5  # from the failure of an engine to the next engine
    queue_commands: int = 2 * MAX_ANNOUNCE_PARTS
    compact_entries: int = 256  # a log longer than this is cut to what is not yet applied
    compact_seconds: float = 300.0  # and a shorter one as often as this
    max_log_entries: int = 2048  # a log that cannot be cut to less than this is given up

    def __post_init__(self) -> None:
        assert self.tick_seconds <= self.heartbeat_seconds, "heartbeats leave in ticks"
        assert 3 * self.heartbeat_seconds < self.election_timeout_min_seconds < self.election_timeout_max_seconds
        assert self.heartbeat_seconds < self.leader_fallback_seconds
        assert self.queue_commands >= MAX_ANNOUNCE_PARTS, "an announcement fits into the queue"
        assert self.compact_entries < self.max_log_entries

"""Errors of the Raft core; their names say whose fault it is."""

from __future__ import annotations

from quorumlog.raft.types import NodeId


class RaftError(Exception):
    """Base of everything the core raises on purpose."""


class StepError(RaftError):
    """A peer sent nonsense. The message had no effect at all: count it and drop it."""


class NotLeader(RaftError):
    """This replica does not lead the group, or is handing leadership over.

    `leader_id` is the leader as far as known (the transfer's target while one is under way), `NO_NODE` if unknown.
    """

    def __init__(self, leader_id: NodeId) -> None:
        super().__init__(
            f"not the leader; leader is node {leader_id}" if leader_id else "not the leader; leader unknown"
        )
        self.leader_id = leader_id


class ProposalRefused(RaftError):
    """Too many bytes are waiting to be committed. Nothing was appended; propose again after some have committed."""

    def __init__(self, uncommitted_size_bytes: int, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{uncommitted_size_bytes} bytes are uncommitted; {size_bytes} more would pass the limit of {limit_bytes}"
        )
        self.uncommitted_size_bytes = uncommitted_size_bytes
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class ConfigurationRefused(RaftError):
    """The configuration cannot be changed to this now; nothing was appended."""


class InvariantViolation(RaftError):
    """This replica is broken, or its shell is: stop the process rather than go on."""

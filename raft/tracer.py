"""Observation of the core's transitions. The core calls, the shell maps to its own telemetry."""

from __future__ import annotations

from quorumlog.raft.types import Configuration, LogIndex, NodeId, Role, Term


class Tracer:
    """Does nothing; subclass and override what is of interest. A tracer must not call back into the core nor raise."""

    def on_role(self, role: Role, term: Term, leader_id: NodeId) -> None:
        """The replica took `role` in `term`; `leader_id` is `NO_NODE` while unknown."""

    def on_commit(self, commit_index: LogIndex) -> None:
        """Everything through `commit_index` (inclusive) is now committed."""

    def on_truncate(self, since: LogIndex, last_index: LogIndex) -> None:
        """Entries from `since` through `last_index` (both inclusive) gave way to a leader's."""

    def on_progress(self, peer: NodeId, state: str, next_index: LogIndex) -> None:
        """The leader changed how it replicates to `peer`: PROBE, REPLICATE or SNAPSHOT."""

    def on_configuration(self, configuration: Configuration, index: LogIndex) -> None:
        """`configuration`, of the entry at `index`, is in force now."""

    def on_repaired(self, index: LogIndex) -> None:
        """The replica holds everything through `index` (inclusive) that it can have forgotten."""

    def on_quiesced(self, quiesced: bool) -> None:
        """The group stopped ticking here, or started again."""

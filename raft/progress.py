"""A leader's view of one peer (thesis 10.2.1; the states are etcd's)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from quorumlog.raft.inflights import Inflights
from quorumlog.raft.types import LogIndex


class ProgressState(Enum):
    """How a leader replicates to a peer.

    PROBE ── accepted ──> REPLICATE ── rejected, or stream broken ──> PROBE; either ── prefix compacted ──> SNAPSHOT,
    and from there to PROBE once the peer holds enough for entries to help again.
    """

    PROBE = "probe"
    """Where the logs part is not known: one APPEND, then wait for its answer (or for a heartbeat's)."""

    REPLICATE = "replicate"
    """The logs match through `match_index`: APPENDs are pipelined up to the inflight limits."""

    SNAPSHOT = "snapshot"
    """The entries that the peer needs are compacted: the shell sends it a snapshot, the core nothing but heartbeats."""


@dataclass(frozen=True, slots=True)
class ProgressView:
    """A copy of a peer's `Progress`, for the shell and its operators."""

    state: ProgressState
    match_index: LogIndex
    next_index: LogIndex
    counted_index: LogIndex
    inflight_messages: int
    inflight_size_bytes: int
    recently_active: bool
    counting: bool

    @property
    def needs_snapshot(self) -> bool:
        """The peer can only be helped by a snapshot."""
        return self.state is ProgressState.SNAPSHOT


class Progress:
    """What the leader knows of a peer and what it has sent to it.

    Invariants: `match_index < next_index`; match_index rises only, except in `reset` (a new session) and `forget`; in
    PROBE and SNAPSHOT nothing is in flight.
    """

    __slots__ = (
        "answered", "commit_sent", "confirming_nonce", "counting", "inflights", "loading", "match_index", "next_index",
        "nonce", "probe_sent", "quiet_ticks", "recently_active", "repair_target", "send_due", "stalled", "state",
    )  # fmt: skip

    def __init__(self, next_index: LogIndex, inflights: Inflights) -> None:
        self.state = ProgressState.PROBE
        self.match_index = LogIndex(0)  # the logs are the same through here (inclusive)
        self.next_index = next_index  # first entry of the next APPEND
        self.inflights = inflights
        self.commit_sent = LogIndex(0)  # the highest commit index that the peer was told
        self.recently_active = False  # a counting answer came since the last check-quorum
        self.counting = True  # the peer's own word on whether its answers count
        self.answered = True  # something was heard since the last APPEND that put off a heartbeat
        self.quiet_ticks = 0  # ticks since the peer was last sent something
        self.stalled = False  # nothing was acknowledged between two heartbeat answers
        self.probe_sent = False  # PROBE only: the one APPEND is out
        self.loading = False  # its next entries are being fetched by the shell
        self.send_due = True  # an APPEND may be possible; looked at when the Ready is made
        self.confirming_nonce = 0  # a round is under way that will confirm this term for it
        self.nonce = 0  # the peer's, once a quorum has confirmed this term after it was drawn
        self.repair_target = LogIndex(0)  # with it: holding everything through here ends the peer's repair

    def reset(self, next_index: LogIndex) -> None:
        """A new session: whatever the peer said before, it may have forgotten."""
        self.match_index = LogIndex(0)
        self.commit_sent = LogIndex(0)
        self.recently_active = False
        self.counting = True
        self.answered = True
        self.confirming_nonce = self.nonce = 0
        self.become_probe(next_index)

    def forget(self, next_index: LogIndex) -> None:
        """The peer has lost what it had said it holds."""
        self.match_index = self.commit_sent = LogIndex(0)
        self.become_probe(next_index)

    def become_probe(self, next_index: LogIndex) -> None:
        """Goes on one APPEND at a time from `next_index`; everything in flight is taken for lost."""
        self.state = ProgressState.PROBE
        self.next_index = max(LogIndex(self.match_index + 1), next_index)
        self.inflights.clear()
        self.probe_sent = False
        self.loading = False
        self.stalled = False
        self.send_due = True

    def become_replicate(self) -> None:
        """Starts pipelining behind `match_index`."""
        self.state = ProgressState.REPLICATE
        self.next_index = LogIndex(self.match_index + 1)
        self.inflights.clear()
        self.send_due = True

    def become_snapshot(self) -> None:
        """Stops sending entries."""
        self.state = ProgressState.SNAPSHOT
        self.inflights.clear()
        self.loading = False
        self.send_due = False

    @property
    def can_send(self) -> bool:
        """Whether an APPEND with entries may be sent now, as far as flow control is concerned."""
        if self.state is ProgressState.REPLICATE:
            return not (self.loading or self.inflights.full)
        return self.state is ProgressState.PROBE and not (self.probe_sent or self.loading)

    def on_sent(self, last_index: LogIndex, size_bytes: int) -> None:
        """An APPEND with entries through `last_index` was handed out."""
        if self.state is ProgressState.REPLICATE:
            self.next_index = LogIndex(last_index + 1)
            self.inflights.add(last_index, size_bytes)
        else:
            self.probe_sent = True

    def on_matched(self, index: LogIndex) -> bool:
        """The peer holds the leader's log through `index` (inclusive). Tells whether that was news."""
        if self.state is ProgressState.REPLICATE:
            self.inflights.free_through(index)
        if index <= self.match_index:
            return False
        self.match_index = index
        if self.next_index <= index:
            self.next_index = LogIndex(index + 1)
        return True

    def on_rejected(self, rejected: LogIndex, hint: LogIndex) -> bool:
        """The peer refused an APPEND whose previous index was `rejected`; its log may match through `hint`.

        Returns False for an answer that is older than what is known, which must change nothing.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match_index:
                return False
            self.become_probe(LogIndex(self.match_index + 1))
            return True
        if self.state is ProgressState.SNAPSHOT or rejected != self.next_index - 1 or rejected <= self.match_index:
            return False
        self.become_probe(LogIndex(min(rejected, hint + 1)))
        return True

    def view(self, counted_index: LogIndex) -> ProgressView:
        """A copy for the outside; `counted_index` is how far the peer counts towards the quorum."""
        return ProgressView(
            state=self.state,
            match_index=self.match_index,
            next_index=self.next_index,
            counted_index=counted_index,
            inflight_messages=len(self.inflights),
            inflight_size_bytes=self.inflights.size_bytes,
            recently_active=self.recently_active,
            counting=self.counting,
        )

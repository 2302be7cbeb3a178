"""What only a leader has; it comes and goes with the role."""

from __future__ import annotations

from collections import deque

from quorumlog.raft.config import Config
from quorumlog.raft.inflights import Inflights
from quorumlog.raft.progress import Progress
from quorumlog.raft.reads import ReadRounds
from quorumlog.raft.types import Configuration, LogIndex, NodeId


class Leadership:
    """One term of leading.

    Invariants: `term_start_index` is the no-op of this term, and every entry from there on is of this term; `counted`
    names every replica and nobody else, and a peer's figure never passes its `match_index`.
    """

    __slots__ = (
        "_config", "_uncommitted", "appends_due", "check_elapsed", "commit_before", "commit_notice_due", "counted",
        "idle_elapsed", "progress", "reads", "reads_to_recount", "snapshots_wanted", "term_start_index",
        "timeout_now_sent", "transfer_elapsed", "transferring_to", "uncommitted_size_bytes",
    )  # fmt: skip

    def __init__(self, config: Config, configuration: Configuration, next_index: LogIndex, stable: LogIndex) -> None:
        self._config = config
        self.term_start_index = next_index
        self.appends_due = True  # some peer's `send_due` may be set
        self.reads_to_recount = False  # others decide now: whoever has answered a round may be enough
        self.transferring_to: NodeId | None = None
        self.transfer_elapsed = 0
        self.timeout_now_sent = False
        self.progress: dict[NodeId, Progress] = {}
        # How far each replica's log is the leader's, durable, and said by one whose word counts. A quorum asks voters.
        self.counted: dict[NodeId, LogIndex] = {config.node_id: stable}
        self.configure(configuration, next_index)
        self.reads = ReadRounds(config.node_id)
        self.commit_notice_due = False  # some idle peer may not know yet that its last entry is committed
        self.check_elapsed = 0  # ticks since the last check-quorum
        self.commit_before = LogIndex(0)  # the commit index at the last check-quorum
        self.idle_elapsed = 0  # ticks since something happened in the group
        self.snapshots_wanted: list[NodeId] = []  # peers that entries cannot help any more, not yet handed out
        self.uncommitted_size_bytes = 0
        self._uncommitted: deque[tuple[LogIndex, int]] = deque()

    def configure(self, configuration: Configuration, next_index: LogIndex) -> None:
        """Replicates to the replicas of `configuration` from now on, to new ones from `next_index` or where they
        are.
        """
        config = self._config
        peers = [peer for peer in configuration.replicas if peer != config.node_id]
        for gone in [peer for peer in self.progress if peer not in peers]:
            del self.progress[gone], self.counted[gone]
            if gone == self.transferring_to:
                self.stop_transfer()
        for peer in peers:
            if peer not in self.progress:
                self.progress[peer] = Progress(
                    next_index, Inflights(config.inflight_messages_max, config.inflight_size_bytes_max)
                )
                self.counted[peer] = LogIndex(0)
        self.appends_due = self.reads_to_recount = True

    def add_uncommitted(self, last_index: LogIndex, size_bytes: int) -> None:
        """A proposal of `size_bytes` that ends at `last_index` waits to be committed."""
        self._uncommitted.append((last_index, size_bytes))
        self.uncommitted_size_bytes += size_bytes

    def release_uncommitted(self, commit_index: LogIndex) -> None:
        """Everything through `commit_index` (inclusive) waits no longer."""
        waiting = self._uncommitted
        while waiting and waiting[0][0] <= commit_index:
            self.uncommitted_size_bytes -= waiting.popleft()[1]

    def stop_transfer(self) -> None:
        """Gives the transfer up; proposals are welcome again."""
        self.transferring_to = None
        self.timeout_now_sent = False

    def make_all_due(self) -> None:
        """New entries: look at every peer when the Ready is made."""
        for progress in self.progress.values():
            progress.send_due = True
        self.appends_due = True

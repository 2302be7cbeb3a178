"""`RawNode`: the face of the core."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from quorumlog.raft.config import Config
from quorumlog.raft.progress import ProgressView
from quorumlog.raft.ready import Persisted, Ready
from quorumlog.raft.tracer import Tracer
from quorumlog.raft.types import Configuration, Entry, HardState, LogIndex, LogReader, Message, NodeId, Role, Term


class RawNode:
    """One replica of one group."""

    def __init__(
        self,
        config: Config,
        log: LogReader,
        *,
        hard_state: HardState,
        configuration: Configuration,
        commit_index: LogIndex,
        applied: LogIndex,
        rng: random.Random,
        make_noop: Callable[[LogIndex, Term], bytes],
        counting: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        raise NotImplementedError

    def tick(self) -> None: ...
    def step(self, message: Message) -> None: ...
    def propose(self, entries: Sequence[Entry]) -> None: ...
    def read_index(self, context: int) -> None: ...
    def transfer_leadership(self, target: NodeId) -> None: ...
    def campaign(self) -> None: ...
    def on_persisted(self, persisted: Persisted) -> None: ...
    def applied_to(self, index: LogIndex) -> None: ...
    def compact(self, upto: LogIndex) -> None: ...
    def reset_peer(self, peer: NodeId) -> None: ...
    def report_unreachable(self, peer: NodeId) -> None: ...
    def on_entries_loaded(self) -> None: ...
    def wake(self) -> None: ...

    def has_ready(self) -> bool:
        raise NotImplementedError

    def ready(self) -> Ready:
        raise NotImplementedError

    def progress(self, peer: NodeId) -> ProgressView | None:
        """None when this replica does not lead or `peer` is not one of its peers."""
        raise NotImplementedError

    def check_invariants(self) -> None: ...

    term: Term
    vote: NodeId
    role: Role
    leader_id: NodeId
    is_leader: bool
    commit_index: LogIndex
    applied: LogIndex
    first_index: LogIndex
    last_index: LogIndex
    stable_index: LogIndex
    configuration: Configuration
    quiesced: bool
    transferring_to: NodeId | None

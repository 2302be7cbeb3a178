"""What a log may forget: decided by each group's leader, written into the log, carried out by every replica.

For readers a partition begins at `log_start_offset`. The entries below it are dropped as far as every living replica
holds them, so that one that is merely behind is not sent a snapshot for want of entries that were just there. A dead
one is not waited for: it will be sent a snapshot when it comes back.

Age is counted by the clock of the leader, because a time to keep records is a promise about real time, also where
nothing is written; a leader whose clock is ahead drops records as much too early. Nodes need clocks that are set.
"""

from __future__ import annotations

from typing import NamedTuple

from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.clock import Clock
from quorumlog.node.errors import EntryDamaged, ReplicaStopped
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.configs import TopicConfig, effective
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.proto import internal_pb2
from quorumlog.raft import EntryKind, LogIndex, NotLeader, ProposalRefused


class Held(NamedTuple):
    """A replica for whose sake a log keeps entries that nobody else needs."""

    group_id: int
    node_id: int
    match_index: int
    size_bytes: int


class Retention:
    """Trims the groups that this node leads."""

    def __init__(
        self, *, multi: MultiRaft, catalogue: Catalogue, liveness: Liveness, clock: Clock, check_seconds: float
    ) -> None:
        self._multi = multi
        self._liveness = liveness
        self._catalogue = catalogue
        self._clock = clock
        self._check_seconds = check_seconds
        self._next_check = 0.0
        self._trimming: set[int] = set()
        self.held: dict[int, Held] = {}

    def tick(self, now: float) -> None:
        """Look through the groups, now and then."""
        if now < self._next_check:
            return
        self._next_check = now + self._check_seconds
        self.held.clear()
        for replica in self._multi.replicas.values():
            if not replica.ready_to_decide or replica.group_id in self._trimming:
                continue
            try:
                self._check(replica)
            except EntryDamaged as damage:
                replica.note_damage(damage.index)

    def _check(self, replica: Replica) -> None:
        slowest, match_index = self._slowest(replica)
        if replica.partition is None:
            # Its log is only the way to its state: all that a fold stands for may go.
            wanted = replica.folds.newest_index
            if self._droppable_fold(replica, min(match_index, wanted)):
                self._trim(replica, 0, min(match_index, wanted))
            self._note_held(replica, slowest, match_index, wanted)
            return
        group = self._catalogue.group(replica.group_id)
        topic = self._catalogue.topic(group.topic) if group is not None else None
        if topic is None:
            return
        upto = min(self._expired_upto(replica, effective(topic.configs)), replica.raft.applied)
        start = replica.partition.log_start_offset
        if upto >= replica.log.first_index():
            start = max(start, replica.log.next_offset_before(LogIndex(upto + 1)))
        droppable = min(match_index, upto)
        if start > replica.partition.log_start_offset or self._droppable_fold(replica, droppable):
            self._trim(replica, start, droppable)
        self._note_held(replica, slowest, match_index, upto)

    def _expired_upto(self, replica: Replica, config: TopicConfig) -> int:
        upto = replica.log.first_index() - 1
        if config.retention_bytes is not None:
            upto = max(upto, replica.log.upto_for_size(config.retention_bytes))
        if config.retention_ms is not None:
            upto = max(upto, replica.log.upto_for_time(self._clock.wall_ms() - config.retention_ms))
        return upto

    def _droppable_fold(self, replica: Replica, upto: int) -> bool:
        """Whether there is a fold at which a prefix could be cut now."""
        return any(replica.log.first_index() <= fold <= upto for fold in replica.folds.indexes)

    def _trim(self, replica: Replica, start: int, upto: int) -> None:
        control = internal_pb2.ControlRecord(
            log_start=internal_pb2.LogStart(log_start_offset=start, upto_index=max(upto, 0))
        )
        group_id = replica.group_id
        try:
            replica.propose(
                EntryKind.CONTROL,
                control.SerializeToString(),
                wall_ms=self._clock.wall_ms(),
                reply=lambda _: self._trimming.discard(group_id),
            )
        except (NotLeader, ProposalRefused, ReplicaStopped):
            return
        self._trimming.add(group_id)
        self._multi.touch(replica)

    def _note_held(self, replica: Replica, slowest: int, match_index: int, wanted: int) -> None:
        first = replica.log.first_index()
        if slowest and wanted > match_index and wanted - first > 0:
            self.held[replica.group_id] = Held(replica.group_id, slowest, match_index, replica.log.size_bytes)

    def _slowest(self, replica: Replica) -> tuple[int, int]:
        """(node id, match index) of the living replica that holds least; (0, last index) when there is no other."""
        slowest = (0, int(replica.raft.stable_index))
        for member in replica.members:
            progress = replica.raft.progress(member)
            if progress is None or progress.needs_snapshot or not self._liveness.is_alive(member):
                continue
            if progress.match_index < slowest[1]:
                slowest = (member, int(progress.match_index))
        return slowest

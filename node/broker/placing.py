"""The leader of `__cluster` at work: it keeps what is placed as it should be, a few groups at a time.

It writes wishes only. The leaders of the groups carry them out and report (movements.py), which is how this hears that
there is room for the next ones. What to wish is decided in metadata/reassigning.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final

from quorumlog.node.broker.cluster import ClusterGroup, Outcome
from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.replica.replica import Replica
from quorumlog.proto import client_pb2, internal_pb2

log = logging.getLogger(__name__)

ROUND_SECONDS: Final = 1.0


class Placing:
    """Heals, drains and chooses voters while this node leads `__cluster`.

    Args:
        unfit: nodes that nothing new should depend on, as the leader of `__cluster` sees them.
        groups_max: groups that are on their way at once. Those that cannot get on, because a node they go to is not
            fit, are not counted: they would hold up all others for as long.
    """

    def __init__(
        self, *, catalogue: Catalogue, cluster: ClusterGroup, unfit: Callable[[], Collection[int]], groups_max: int
    ) -> None:
        self._catalogue = catalogue
        self._cluster = cluster
        self._unfit = unfit
        self._groups_max = groups_max
        self._next_round = 0.0
        self._proposed = False
        self._idle_at: tuple[int, frozenset[int]] | None = None
        """What there was nothing to do for: the index applied, and the unfit nodes."""

    def tick(self, now: float) -> None:
        """Look, now and then, whether something is to be done; propose one thing at a time."""
        if now < self._next_round or self._proposed or not self._cluster.takes_requests:
            return
        self._next_round = now + ROUND_SECONDS
        replica = self._cluster.replica
        assert replica is not None
        unfit = frozenset(self._unfit())
        seen = (replica.raft.applied, unfit)
        if seen == self._idle_at:
            return
        command = self._decide(replica, unfit)
        if command is None:
            self._idle_at = seen
            return
        self._proposed = True
        self._cluster.propose(command, self._on_outcome)

    def _decide(self, replica: Replica, unfit: Collection[int]) -> internal_pb2.ClusterCommand | None:
        if self._voters_settled(replica):
            voters = reassigning.voters(self._catalogue, replica.node_id, unfit)
            if voters is not None:
                log.info("the metadata group shall have the voters %s", list(voters.voters))
                return internal_pb2.ClusterCommand(change_voters=voters)
        room = self._groups_max - self._on_their_way(unfit)
        if room <= 0:
            return None
        plan = reassigning.heal(self._catalogue, unfit, groups_max=room)
        for change in plan.changes:
            log.info(
                "%s partition %d shall move from nodes %s to %s",
                change.topic,
                change.partition,
                list(change.before),
                list(change.after),
            )
        return plan.command if plan.groups else None

    def _voters_settled(self, replica: Replica) -> bool:
        """Whether those vote who shall. A vote that an earlier incarnation had must be gone before it is given anew."""
        raft, now = replica.raft, replica.configuration
        committed = not now.joint and raft.configuration_index <= raft.commit_index
        return committed and set(now.voters) == set(self._catalogue.voters)

    def _on_their_way(self, unfit: Collection[int]) -> int:
        return sum(
            partition.placement_version > 0 and not partition.settled and not set(partition.replicas) & set(unfit)
            for topic in self._catalogue.topics.values()
            for partition in topic.partitions
        )

    def _on_outcome(self, outcome: Outcome) -> None:
        self._proposed = False
        if isinstance(outcome, client_pb2.Error) and not outcome.retriable:
            # Decided on this very state, so it should have fitted; the next round decides anew.
            log.warning("a change of placement was refused: %s", outcome.message)

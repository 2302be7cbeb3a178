"""The groups led here on their way to where `__cluster` wants them.

The catalogue holds the wish, a group's own log says who votes. The leader of a group closes the gap: new replicas first
learn, and vote once they have caught up; then those that the wish does not name go, in the same change. When the group
has committed under a configuration that is the wish, `__cluster` is told, and whoever is left out may forget the group.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from quorumlog.node.broker.cluster import ClusterGroup
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, HostedGroup
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.proto import internal_pb2
from quorumlog.raft import ConfigurationRefused, NodeId, NotLeader, Term

MOVE_SECONDS: Final = 0.2
REPORT_SECONDS: Final = 5.0
REPORTED_AT_ONCE_MAX: Final = 1024
"""Groups in one report."""


class Movements:
    """Moves the configurations of the groups led here towards the wish."""

    def __init__(self, *, multi: MultiRaft, catalogue: Catalogue, cluster: ClusterGroup) -> None:
        self._multi = multi
        self._catalogue = catalogue
        self._cluster = cluster
        self._next_round = 0.0
        self._reporting = False
        self._asking: set[int] = set()
        self._caught_up: dict[int, Term] = {}
        """The term in which the catalogue was found to be the latest, though a group has seen a later wish."""

    def tick(self, now: float) -> None:
        """Look through the groups, now and then."""
        if now < self._next_round:
            return
        self._next_round = now + MOVE_SECONDS
        settled: list[HostedGroup] = []
        for replica in self._multi.replicas.values():
            if not replica.ready_to_decide or replica.raft.transferring_to is not None:
                continue
            if replica.group_id == CLUSTER_GROUP_ID:
                voters = self._catalogue.voters
                self._move(replica, voters, self._catalogue.nodes.keys() - set(voters), 0)
                continue
            group = self._catalogue.group(replica.group_id)
            # A settled group is where it shall be, unless an operator has recovered it since.
            if group is None or (group.settled and replica.voters == tuple(sorted(group.replicas))):
                continue
            if self._is_behind(replica, group):
                continue
            if self._move(replica, group.replicas, (), group.placement_version) and not group.settled:
                settled.append(group)
        if settled and not self._reporting:
            self._report(settled[:REPORTED_AT_ONCE_MAX])

    def _is_behind(self, replica: Replica, group: HostedGroup) -> bool:
        """Whether the group went towards a later wish than this node knows: an earlier leader knew more. After a
        recovery of `__cluster` there may be no such wish, so its leader is asked, once in a term.
        """
        group_id, term = replica.group_id, replica.raft.term
        if replica.configuration.version <= group.placement_version or self._caught_up.get(group_id) == term:
            return False

        def on_caught_up(caught_up: bool) -> None:
            self._asking.discard(group_id)
            if caught_up:
                self._caught_up[group_id] = term

        if group_id not in self._asking:
            self._asking.add(group_id)
            self._cluster.catch_up(REPORT_SECONDS, on_caught_up)
        return True

    def _move(self, replica: Replica, voters: Collection[int], learners: Collection[int], version: int) -> bool:
        """Take the next step towards these voters and learners. Returns whether they are reached, and committed."""
        raft = replica.raft
        now = raft.configuration
        if now.joint or raft.configuration_index > raft.commit_index or not voters:
            return False
        wanted = {NodeId(voter) for voter in voters}
        learning = {NodeId(learner) for learner in learners}
        coming = wanted - set(now.voters)
        if coming or wanted != set(now.voters):
            # Everybody who is to vote learns first; who votes now does so until then.
            next_voters, next_learners = set(now.voters), (learning | coming) - set(now.voters)
            if next_learners == set(now.learners):
                next_voters, next_learners = wanted, learning
        else:
            next_voters, next_learners = wanted, learning
        if (next_voters, next_learners) == (set(now.voters), set(now.learners)):
            return True
        try:
            raft.propose_configuration(sorted(next_voters), sorted(next_learners), version)
        except (ConfigurationRefused, NotLeader):
            return False  # a learner has not caught up yet, mostly
        self._multi.touch(replica)
        return False

    def _report(self, groups: list[HostedGroup]) -> None:
        self._reporting = True
        report = internal_pb2.ReportPlacement()
        for group in groups:
            report.groups.add(group_id=group.group_id, placement_version=group.placement_version)

        def on_outcome(_: object) -> None:
            self._reporting = False

        self._cluster.submit(internal_pb2.ClusterCommand(report_placement=report), REPORT_SECONDS, on_outcome)

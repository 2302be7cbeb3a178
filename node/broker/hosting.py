"""The replicas of this node: opened at start, born and removed as `__cluster` is applied.

A replica is born only by applying `__cluster`. Its first row is written in the same batch as the index up to which
births have been carried out here (`BORN_UPTO`). The catalogue says of each replica at which index it was placed, so two
cases can be told apart: one placed above `BORN_UPTO` was never here; one placed at or below it must be here, and if the
database does not have it, it was lost. A lost replica is made again as one that does not count (REPAIR), never as a new
voter. While this node's own replica of `__cluster` is in REPAIR, that index may itself have been forgotten, so every
birth is one in REPAIR; when `__cluster` leaves REPAIR, everything up to its last entry counts as carried out before.

A replica that comes with its group votes from birth. One that is placed later is born empty and in REPAIR, and learns
from the group's own log whether it votes. It may stand in for a former replica of this node, which was removed or lost
with the node's folder and had promised something: by the first configurations that it reads it would vote for that one,
with the beginning of a log.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from quorumlog.node.errors import LogLost
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, CLUSTER_TOPIC, GROUPS_TOPIC, HostedGroup
from quorumlog.node.replica.hooks import ReplicaHooks
from quorumlog.node.replica.machine import CommandMachine, Machine
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.partition import PartitionMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage import configurations
from quorumlog.node.storage.group_log import GroupLog, delete_group, forget_log
from quorumlog.node.storage.interface import Family, WriteBatch
from quorumlog.node.storage.keys import (
    NODE_WIDE,
    MetaRow,
    all_groups_range,
    group_and_row_of_meta_key,
    meta_key,
)
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.repair import is_whole, mark_whole
from quorumlog.node.storage.votes import get_hard_state, merge_hard_states, put_hard_state
from quorumlog.proto import internal_pb2
from quorumlog.raft import NO_NODE, Config, HardState, NodeId, Term

log = logging.getLogger(__name__)

RECOVERED_TERMS: Final = 1 << 20
"""Terms left out when a group is recovered: more than the voters that were left behind can have had elections."""


class Hosting:
    """Makes, keeps and removes the replicas of one node.

    Args:
        hooks: of every replica.
        on_removed: hears of a replica that was removed.
    """

    def __init__(
        self,
        *,
        opened: Opened,
        multi: MultiRaft,
        catalogue: Catalogue,
        raft_config: Config,
        rng: random.Random,
        hooks: ReplicaHooks,
        on_removed: Callable[[Replica], None],
    ) -> None:
        self._opened = opened
        self._storage = opened.storage
        self._multi = multi
        self._catalogue = catalogue
        self._raft_config = raft_config
        self._rng = rng
        self._hooks = hooks
        self._on_removed = on_removed
        self.node_id = opened.identity.node_id
        self.incarnation = opened.identity.incarnation
        self.lost: dict[int, str] = {}
        """Groups that should have been in the database and were not, with their names."""
        stored = self._storage.get(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO))
        self._born_upto = int.from_bytes(stored or b"", "big")
        self._cluster_whole = True
        self._recovered: list[internal_pb2.ReplicaDescriptor] = []
        """Replicas that are to make up their groups alone, once that is written."""
        self._anew: dict[int, internal_pb2.ReplicaDescriptor] = {}
        """Replicas that begin anew, in REPAIR, once the deletion of what was there is written."""
        self._deleted: set[int] = set()
        """Groups whose deletion may not be written yet, or whose last vote may not be durable: a replica that was born
        now would take for its own what storage still shows, and would speak by a vote that may yet be forgotten."""

    # ------------------------------------------------------------------------------------------------------ at start

    def open_stored(self) -> None:
        """Open every replica that the database has, `__cluster` last: applying it needs to know which the others
        are. Then remove those that should not be here, and make those that should be here and are not.
        """
        descriptors = []
        for key, value in self._storage.scan(Family.META, *all_groups_range()):
            group_id, row = group_and_row_of_meta_key(key)
            if row == MetaRow.REPLICA:
                descriptor = internal_pb2.ReplicaDescriptor.FromString(value)
                assert descriptor.group_id == group_id, f"the row of group {group_id} describes {descriptor.group_id}"
                descriptors.append(descriptor)
        for descriptor in sorted(descriptors, key=lambda one: one.group_id, reverse=True):
            try:
                self._multi.add(self._open(descriptor))
            except LogLost as error:
                self._begin_anew(descriptor, str(error))
        cluster = self._multi.replicas.get(CLUSTER_GROUP_ID)
        if cluster is not None:
            # What a snapshot of __cluster has removed, if the node stopped before it could do so.
            self._remove_all(cluster.raft.applied, list(self._multi.replicas), "it is placed here no more")
        for group in self._catalogue.assignments_for(self.node_id, self.incarnation):
            self._bear_placed(group)

    def found(self, founding: internal_pb2.Founding) -> None:
        """Make this node's replica of `__cluster`, once: as the founding record says, or, on a node that was admitted
        later, empty and without a configuration.
        """
        if CLUSTER_GROUP_ID in self._multi.replicas or CLUSTER_GROUP_ID in self._anew:
            return
        # Whoever has borne other groups has had this one: its rows are lost, and with them what it promised.
        lost = self._opened.repair_id != bytes(16) or self._born_upto > 0
        descriptor = internal_pb2.ReplicaDescriptor(group_id=CLUSTER_GROUP_ID, topic=CLUSTER_TOPIC)
        if not self._opened.identity.admitted_at_index:
            descriptor.voters.extend(sorted(founding.voters))
            descriptor.learners.extend(sorted({node.node_id for node in founding.nodes} - set(founding.voters)))
        self._bear(descriptor, whole=not lost and not self._opened.identity.admitted_at_index)

    def renew(self) -> None:
        """Let replicas whose logs are lost begin anew, in REPAIR; called between turns. First their rows go, then, when
        that is written, they are made again.
        """
        if not self._multi.stalled and self._multi.next_batch.is_empty() and self._multi.votes_durable:
            for descriptor in self._recovered:
                replica = self._open(descriptor)
                self._multi.add(replica)
                replica.raft.campaign()
            self._recovered.clear()
            self._deleted.clear()
            for group_id in list(self._anew):
                descriptor = self._anew.pop(group_id)
                if self._keeps(group_id):
                    self._bear(descriptor, whole=False)
                else:
                    self.lost.pop(group_id, None)
                    delete_group(self._multi.next_batch, group_id)
        for replica in [replica for replica in self._multi.replicas.values() if replica.log_lost]:
            assert replica.stopped is not None
            self._multi.remove(replica.group_id)
            self._begin_anew(replica.descriptor, replica.stopped)
            self._on_removed(replica)

    def recover(self, replica: Replica) -> None:
        """Let a group go on from this replica alone, because an operator says so. Whatever the other voters remember,
        this replica is whole and the only voter from now on.
        """
        batch, group_id = self._multi.next_batch, replica.group_id
        self._multi.remove(group_id)
        replica.stop("its group is recovered from it")
        self._on_removed(replica)
        alone = internal_pb2.GroupConfiguration(voters=[self.node_id])
        configurations.write(batch, group_id, [(replica.log.first_index() - 1, alone)])
        mark_whole(batch, group_id, self._opened.repair_id)
        # The other voters may come back, and agree on a leader among themselves: it must be one of an earlier term.
        put_hard_state(batch, group_id, HardState(Term(replica.raft.term + RECOVERED_TERMS), NO_NODE))
        self.lost.pop(group_id, None)
        self._recovered.append(replica.descriptor)

    def _begin_anew(self, descriptor: internal_pb2.ReplicaDescriptor, reason: str) -> None:
        log.error("%s", reason)
        self.lost[descriptor.group_id] = f"{descriptor.topic} partition {descriptor.partition}"
        forget_log(self._multi.next_batch, descriptor.group_id)
        self._anew[descriptor.group_id] = descriptor

    # ------------------------------------------------------------------------------------------- as __cluster goes on

    def on_applied(self, index: int, groups: Iterable[HostedGroup]) -> list[Replica]:
        """The entry of `__cluster` at `index` has placed these groups; make those that are placed here. Returns the new
        ones.
        """
        born = [replica for group in groups if (replica := self._bear_placed(group)) is not None]
        self._raise_born_upto(index, self._multi.next_batch)
        return born

    def on_installed(self, index: int) -> tuple[list[Replica], list[int]]:
        """The catalogue is that of a snapshot at `index` now: carry out at once what the entries before it have done.
        Returns the new replicas, and the ids of the groups that were removed.
        """
        removed = self._remove_all(index, [*self._multi.replicas, *self._anew], "it is placed here no more")
        return self.on_applied(index, self._catalogue.assignments_for(self.node_id, self.incarnation)), removed

    def on_removed(self, index: int, groups: Iterable[HostedGroup]) -> list[int]:
        """The entry of `__cluster` at `index` has ended these groups, or settled them on other nodes: delete what this
        node is not to keep. Returns the ids of those it had.
        """
        group_ids = [group.group_id for group in groups]
        return self._remove_all(index, group_ids, "its topic was deleted, or it has moved to other nodes")

    def _remove_all(self, index: int, group_ids: Iterable[int], reason: str) -> list[int]:
        removed = []
        for group_id in group_ids:
            replica = self._multi.replicas.get(group_id)
            descriptor = replica.descriptor if replica is not None else self._anew.get(group_id)
            # An entry may be applied again after a restart. What was born later is none of its business.
            if descriptor is None or self._keeps(group_id) or descriptor.born_at_index > index:
                continue
            if replica is not None and self._is_back(replica):
                continue
            self._anew.pop(group_id, None)
            self._deleted.add(group_id)
            delete_group(self._multi.next_batch, group_id)
            self.lost.pop(group_id, None)
            if replica is not None:
                self._multi.remove(group_id)
                replica.stop(reason)
                self._on_removed(replica)
            removed.append(group_id)
        return removed

    def on_repaired(self, replica: Replica, batch: WriteBatch) -> None:
        """A replica leaves REPAIR with `batch`."""
        self.lost.pop(replica.group_id, None)
        if replica.group_id == CLUSTER_GROUP_ID:
            # Whatever it has learnt by now may be what it had known, and carried out, before.
            self._raise_born_upto(replica.raft.last_index, batch)

    def _keeps(self, group_id: int) -> bool:
        """Whether this node is to have the group, or the catalogue does not know of it yet."""
        if group_id == CLUSTER_GROUP_ID or not self._catalogue.allotted(group_id):
            return True
        group = self._catalogue.group(group_id)
        return group is not None and group.may_hold(self.node_id, self.incarnation)

    def _is_back(self, replica: Replica) -> bool:
        """Whether a later wish than the catalogue knows here has it in its group again, which counts on what it has."""
        group, now = self._catalogue.group(replica.group_id), replica.configuration
        return group is not None and now.version > group.placement_version and self.node_id in now.replicas

    def _raise_born_upto(self, index: int, batch: WriteBatch) -> None:
        if index > self._born_upto:
            self._born_upto = index
            batch.put(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO), index.to_bytes(8, "big"))

    def _bear_placed(self, group: HostedGroup) -> Replica | None:
        placed = group.placed_on(self.node_id, self.incarnation)
        there = group.group_id in self._multi.replicas or group.group_id in self._anew
        if placed is None or there or self._catalogue.group(group.group_id) is None:
            return None
        lost = placed.placed_at_index <= self._born_upto
        if lost:
            self.lost[group.group_id] = f"{group.topic} partition {group.partition}"
        descriptor = internal_pb2.ReplicaDescriptor(
            group_id=group.group_id,
            topic=group.topic,
            topic_id=group.topic_id,
            partition=group.partition,
            voters=sorted(group.replicas) if group.votes_from_birth else (),
            born_at_index=placed.placed_at_index,
        )
        if group.group_id in self._deleted:
            self._put_descriptor(descriptor)
            self._anew[group.group_id] = descriptor
            return None
        cluster = self._multi.replicas.get(CLUSTER_GROUP_ID)  # None while it is being opened, and applies already
        cluster_counts = cluster.counting if cluster is not None else self._cluster_whole
        return self._bear(descriptor, whole=not lost and cluster_counts and group.votes_from_birth)

    # -------------------------------------------------------------------------------------------------------- inside

    def _bear(self, descriptor: internal_pb2.ReplicaDescriptor, *, whole: bool) -> Replica:
        self._put_descriptor(descriptor)
        if whole:
            mark_whole(self._multi.next_batch, descriptor.group_id, self._opened.repair_id)
        kept = self._opened.votes.get(descriptor.group_id)
        if kept is not None:
            # The votes file remembers an earlier birth, and is not to be the only one that does: it may be lost next.
            put_hard_state(self._multi.next_batch, descriptor.group_id, kept)
        replica = self._open(descriptor, whole=whole)
        self._multi.add(replica)
        return replica

    def _put_descriptor(self, descriptor: internal_pb2.ReplicaDescriptor) -> None:
        key = meta_key(descriptor.group_id, MetaRow.REPLICA)
        self._multi.next_batch.put(Family.META, key, descriptor.SerializeToString(deterministic=True))

    def _open(self, descriptor: internal_pb2.ReplicaDescriptor, *, whole: bool | None = None) -> Replica:
        group_id = descriptor.group_id
        if whole is None:
            whole = is_whole(self._storage, group_id, self._opened.repair_id)
        if group_id == CLUSTER_GROUP_ID:
            self._cluster_whole = whole
        hard_state = merge_hard_states(self._opened.votes.get(group_id), get_hard_state(self._storage, group_id))
        return Replica(
            descriptor,
            node_id=NodeId(self.node_id),
            storage=self._storage,
            log=GroupLog(self._storage, group_id),
            machine=self._machine(descriptor),
            hard_state=hard_state or HardState(Term(0), NO_NODE),
            # Replicas are born by applying __cluster, so there every node wants to know at once.
            config=replace(self._raft_config, prompt_commit=group_id == CLUSTER_GROUP_ID),
            # Each group draws its own timeouts, and the same ones in every run of one seed.
            rng=random.Random(self._rng.getrandbits(64)),
            repair_id=self._opened.repair_id,
            whole=whole,
            hooks=self._hooks,
        )

    def _machine(self, descriptor: internal_pb2.ReplicaDescriptor) -> Machine:
        if descriptor.group_id == CLUSTER_GROUP_ID:
            # Where the group begins anew or is recovered, its entries are applied again, and some count.
            self._catalogue.restore(Catalogue().snapshot())
            return CommandMachine(self._catalogue)
        if descriptor.topic == GROUPS_TOPIC:
            return CommandMachine(GroupsState())
        return PartitionMachine()

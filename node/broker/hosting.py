"""The replicas of this node: opened at start, born and removed as `__cluster` is applied.

A replica is born only by applying `__cluster`. Its first row is written in the same batch as the index of the entry
that bore it (`BORN_UPTO`), so that after a restart, when `__cluster` is applied again, two cases can be told apart: an
entry above that index bears what was never there; one at or below it names a replica that must be there, and if the
database does not have it, it was lost. A lost replica is made again as one that does not count (REPAIR), never as a new
voter. While this node's own replica of `__cluster` is in REPAIR, that index may itself have been forgotten, so every
birth is one in REPAIR.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from quorumlog.node.groups.state import GroupsState
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, CLUSTER_TOPIC, GROUPS_TOPIC, HostedGroup
from quorumlog.node.replica.machine import CommandMachine, Machine
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.partition import PartitionMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.group_log import GroupLog, delete_group
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import (
    NODE_WIDE,
    MetaRow,
    all_groups_range,
    group_and_row_of_meta_key,
    meta_key,
)
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.repair import is_whole, mark_whole
from quorumlog.node.storage.votes import get_hard_state, merge_hard_states
from quorumlog.proto import internal_pb2
from quorumlog.raft import NO_NODE, Config, HardState, NodeId, Term


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the broker wants to hear of its replicas; see Replica."""

    on_applied: Callable[[Replica, EntryHeader, object], None]
    on_role: Callable[[Replica], None]
    on_removed: Callable[[Replica], None]


class Hosting:
    """Makes, keeps and removes the replicas of one node."""

    def __init__(
        self,
        *,
        opened: Opened,
        multi: MultiRaft,
        catalogue: Catalogue,
        raft_config: Config,
        rng: random.Random,
        hooks: Hooks,
    ) -> None:
        self._opened = opened
        self._storage = opened.storage
        self._multi = multi
        self._catalogue = catalogue
        self._raft_config = raft_config
        self._rng = rng
        self._hooks = hooks
        self.node_id = opened.identity.node_id
        self.incarnation = opened.identity.incarnation
        self.lost: dict[int, str] = {}
        """Groups that should have been in the database and were not, with their names."""
        stored = self._storage.get(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO))
        self._born_upto = int.from_bytes(stored or b"", "big")
        self._cluster_counts = True

    # ------------------------------------------------------------------------------------------------------ at start

    def open_stored(self) -> None:
        """Open every replica that the database has, `__cluster` last: applying it needs to know which the others
        are.
        """
        descriptors = []
        for key, value in self._storage.scan(Family.META, *all_groups_range()):
            group_id, row = group_and_row_of_meta_key(key)
            if row == MetaRow.REPLICA:
                descriptor = internal_pb2.ReplicaDescriptor.FromString(value)
                assert descriptor.group_id == group_id, f"the row of group {group_id} describes {descriptor.group_id}"
                descriptors.append(descriptor)
        for descriptor in sorted(descriptors, key=lambda one: one.group_id, reverse=True):
            self._multi.add(self._open(descriptor))
        self._bear_lost()

    def _bear_lost(self) -> None:
        """Find what the catalogue places here and the database does not have: it was lost."""
        for group in self._catalogue.assignments_for(self.node_id, self.incarnation):
            if group.group_id not in self._multi.replicas:
                self.on_born(0, (group,))

    def found(self, founding: internal_pb2.Founding) -> None:
        """Make this node's replica of `__cluster`, once, as the founding record says."""
        if CLUSTER_GROUP_ID in self._multi.replicas:
            return
        # Whoever has borne other groups has had this one: its rows are lost, and with them what it promised.
        lost = self._opened.repair_id != bytes(16) or self._born_upto > 0
        descriptor = internal_pb2.ReplicaDescriptor(
            group_id=CLUSTER_GROUP_ID,
            topic=CLUSTER_TOPIC,
            voters=sorted(founding.voters),
            learners=sorted({node.node_id for node in founding.nodes} - set(founding.voters)),
        )
        self._bear(descriptor, lost=lost)

    # ------------------------------------------------------------------------------------------- as __cluster goes on

    def on_born(self, index: int, groups: tuple[HostedGroup, ...]) -> list[Replica]:
        """The entry of `__cluster` at `index` bears these groups; make those that are placed here. Returns the new
        ones.
        """
        born = []
        for group in groups:
            if group.placed_on(self.node_id, self.incarnation) is None or group.group_id in self._multi.replicas:
                continue
            if not self._catalogue.group(group.group_id):
                continue
            lost = index <= self._born_upto
            if lost:
                self.lost[group.group_id] = f"{group.topic} partition {group.partition}"
            descriptor = internal_pb2.ReplicaDescriptor(
                group_id=group.group_id,
                topic=group.topic,
                topic_id=group.topic_id,
                partition=group.partition,
                voters=sorted(group.replicas),
                born_at_index=index,
            )
            born.append(self._bear(descriptor, lost=lost or not self._cluster_counts))
        if index > self._born_upto:
            self._born_upto = index
            self._multi.next_batch.put(Family.META, meta_key(NODE_WIDE, MetaRow.BORN_UPTO), index.to_bytes(8, "big"))
        return born

    def on_removed(self, groups: tuple[HostedGroup, ...]) -> list[int]:
        """These groups are gone for good: delete what this node has of them. Returns the ids of those it had."""
        removed = []
        for group in groups:
            if group.group_id not in self._multi.replicas:
                continue
            replica = self._multi.remove(group.group_id)
            replica.stop(f"topic {group.topic!r} was deleted")
            delete_group(self._multi.next_batch, group.group_id)
            self.lost.pop(group.group_id, None)
            self._hooks.on_removed(replica)
            removed.append(group.group_id)
        return removed

    # -------------------------------------------------------------------------------------------------------- inside

    def _bear(self, descriptor: internal_pb2.ReplicaDescriptor, *, lost: bool) -> Replica:
        batch = self._multi.next_batch
        batch.put(
            Family.META,
            meta_key(descriptor.group_id, MetaRow.REPLICA),
            descriptor.SerializeToString(deterministic=True),
        )
        if not lost:
            mark_whole(batch, descriptor.group_id, self._opened.repair_id)
        replica = self._open(descriptor, whole=not lost)
        self._multi.add(replica)
        return replica

    def _open(self, descriptor: internal_pb2.ReplicaDescriptor, *, whole: bool | None = None) -> Replica:
        group_id = descriptor.group_id
        if whole is None:
            whole = is_whole(self._storage, group_id, self._opened.repair_id)
        if group_id == CLUSTER_GROUP_ID:
            self._cluster_counts = whole  # before the replica is made, which applies what is known to be committed
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
            counting=whole,
            on_applied=self._hooks.on_applied,
            on_role=self._hooks.on_role,
        )

    def _machine(self, descriptor: internal_pb2.ReplicaDescriptor) -> Machine:
        if descriptor.group_id == CLUSTER_GROUP_ID:
            return CommandMachine(self._catalogue)
        if descriptor.topic == GROUPS_TOPIC:
            return CommandMachine(GroupsState())
        return PartitionMachine()

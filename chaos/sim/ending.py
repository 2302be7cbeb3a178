"""What must hold when a run has converged: every promise that a client was given, on every replica that is left."""

from __future__ import annotations

from collections import defaultdict

from quorumlog.chaos.sim.failures import Violation
from quorumlog.chaos.sim.invariants import Invariants
from quorumlog.chaos.sim.load import GROUPS, Load
from quorumlog.chaos.sim.logs import Stored, applied_entries, check_fold, committed_offsets, records_of
from quorumlog.chaos.sim.members import Delivery
from quorumlog.chaos.sim.swarm import PARTITIONS
from quorumlog.chaos.sim.world import World
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, Partition, Topic
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import NODE_WIDE, group_of_key

UNANSWERED_SECONDS = 10.0
"""Longer than any answer takes in a cluster that is well."""


class Ending:
    """Looks at a world in which everything has settled. Raises Violation."""

    def __init__(self, world: World, load: Load, invariants: Invariants) -> None:
        self.world = world
        self.load = load
        self.invariants = invariants
        self._group_id = 0
        brokers = world.brokers()
        self.catalogue = max(brokers.values(), key=lambda broker: broker.cluster.applied).catalogue

    def check(self) -> None:
        """Check everything."""
        self.invariants.check()
        self._check_replicas()
        self._check_rows()
        sequences: dict[bytes, int] = {}
        for name in PARTITIONS:
            topic = self.catalogue.topic(name)
            self._require(topic is not None, f"topic {name} is gone")
            assert topic is not None
            self._check_topic(topic, sequences)
        for group in GROUPS:
            self._check_commits(group)
        for member in self.load.everybody:
            self._require(not member.errors, f"member {member.number} met {member.errors}")
        self._check_calls()

    def _require(self, holds: bool, what: str) -> None:  # reads as a sentence
        if not holds:
            raise Violation(f"seed {self.world.seed}: {what}", self._group_id)

    def replicas(self, group_id: int) -> list[Replica]:
        """The replicas of a group on the nodes that live. One that was placed and taken back before it got anything is
        none of them: it goes when the group settles, which it does not while a member is dead.
        """
        held = [broker.multi.replicas.get(group_id) for broker in self.world.brokers().values()]
        found = [replica for replica in held if replica is not None]
        members = {node_id for replica in found if replica.leads for node_id in replica.members}
        strangers = [replica.node_id for replica in found if members and replica.node_id not in members]
        dead = any(self.world.nodes[node_id].dead for node_id in self.catalogue.nodes)
        self._require(dead or not strangers, f"nodes {strangers} keep group {group_id}, which has settled without them")
        return [replica for replica in found if replica.node_id not in strangers]

    # ------------------------------------------------------------------------------------------------ replicas

    def _check_replicas(self) -> None:
        """Nothing that was applied anywhere is missing, and all replicas are equal."""
        for group_id, upto in self.invariants.upto.items():
            self._group_id = group_id
            replicas = self.replicas(group_id)
            if group_id != CLUSTER_GROUP_ID and self.catalogue.group(group_id) is None:
                self._require(not replicas, f"group {group_id} was deleted, and is kept somewhere")
                continue
            self._require(bool(replicas), f"nobody has group {group_id}")
            for replica in replicas:
                who = f"node {replica.node_id}, group {group_id}"
                self._require(replica.stopped is None, f"{who}: {replica.stopped}")
                self._require(replica.raft.applied >= upto, f"{who}: entry {upto} was applied and is missing")
                if replica.partition is not None and replica.raft.first_index == 1:
                    check_fold(replica)
            states = {(replica.raft.applied, replica.machine.snapshot()) for replica in replicas}
            self._require(len(states) == 1, f"the replicas of group {group_id} differ")
        self._group_id = 0

    def _check_rows(self) -> None:
        """No database holds anything of a group that has no replica there."""
        for node_id, broker in self.world.brokers().items():
            storage = self.world.nodes[node_id].storage
            held = {group_of_key(key) for family in Family for key in storage.keys(family)}
            strays = sorted(held - broker.multi.replicas.keys() - {NODE_WIDE})
            self._require(not strays, f"node {node_id} has rows of groups {strays}, and no replica of them")

    # ------------------------------------------------------------------------------------------------ records

    def _check_topic(self, topic: Topic, sequences: dict[bytes, int]) -> None:
        logs: dict[int, dict[int, Stored]] = {}
        starts: dict[int, int] = {}
        for partition in topic.partitions:
            self._group_id = partition.group_id
            logs[partition.partition], starts[partition.partition] = self._read(topic, partition)
        for producer in self.load.producers:
            for one in producer.sent:
                if one.topic == topic.name:
                    self._require(one.acked, f"{one.value!r} failed: {one.batch.error}")
                    self._check_ack(one.value, one.offset, logs[one.partition], starts[one.partition])
        for group, topics in GROUPS.items():
            if topic.name in topics:
                deliveries = [one for one in self.load.deliveries[group] if one.topic_id == topic.topic_id]
                self._check_deliveries(deliveries, logs, starts)
        self._group_id = 0

    def _read(self, topic: Topic, partition: Partition) -> tuple[dict[int, Stored], int]:
        """The records of a partition, the same on every replica, with contiguous offsets and in their producers' order;
        and where they begin.
        """
        what = f"{topic.name}[{partition.partition}]"
        replicas = self.replicas(partition.group_id)
        longest = min(replicas, key=lambda replica: replica.raft.first_index)
        entries = {entry.index: entry for entry in applied_entries(longest)}
        start = end = 0
        for replica in replicas:
            assert replica.partition is not None
            start, end = max(start, replica.partition.log_start_offset), replica.high_watermark
            for entry in applied_entries(replica) if replica is not longest else ():
                self._require(entries.get(entry.index) == entry, f"{what}: entry {entry.index} differs")
        log = {one.offset: one for entry in entries.values() for one in records_of(entry) if one.offset >= start}
        self._require(list(log) == list(range(start, end)), f"{what}: offsets have holes between {start} and {end}")
        values = {one.value for one in log.values()}
        self._require(len(values) == len(log), f"{what}: a record stands there twice")
        last: dict[bytes, int] = {}
        epoch = 0
        for one in log.values():
            producer, _, _, count, _ = one.value.split(b" ", 4)
            number = int(count)
            behind = last.get(producer)
            self._require(
                behind is None or number == behind + 1, f"{what}: {one.value[:40]!r} stands behind number {behind}"
            )
            last[producer] = number
            self._require(one.epoch >= epoch, f"{what}: leader epochs fall")
            epoch = one.epoch
        return log, start

    def _check_ack(self, value: bytes, offset: int | None, log: dict[int, Stored], start: int) -> None:
        if offset is not None and offset >= start:
            stored = log.get(offset)
            self._require(
                stored is not None and stored.value == value,
                f"{value!r} was acknowledged at {offset}, where {stored} stands",
            )

    # ------------------------------------------------------------------------------------------------ deliveries

    def _check_deliveries(
        self, deliveries: list[Delivery], logs: dict[int, dict[int, Stored]], starts: dict[int, int]
    ) -> None:
        seen: dict[int, dict[int, bytes | None]] = defaultdict(dict)
        stints: dict[tuple[int, int], int] = {}
        for one in deliveries:
            place = f"partition {one.partition} offset {one.offset}"
            known = seen[one.partition].setdefault(one.offset, one.value)
            self._require(known == one.value, f"{place} was read as {known!r} and as {one.value!r}")
            start = starts[one.partition]
            if one.offset >= start:
                stored = logs[one.partition].get(one.offset)
                self._require(stored is not None, f"{place} was read and is gone")
                assert stored is not None
                same = (stored.value, stored.epoch) == (one.value, one.epoch)
                self._require(same, f"{place} was read as {one.value!r}, and {stored} stands there")
            stint = one.member, one.stint
            previous = stints.get(stint)
            self._require(previous is None or one.offset > previous, f"{place} came again to member {one.member}")
            skipped = previous is not None and one.offset > previous + 1 and one.offset > start
            self._require(not skipped, f"member {one.member} skipped from {previous} to {place}")
            stints[stint] = one.offset
        for partition, log in logs.items():
            missing = [offset for offset in log if offset not in seen[partition]]
            self._require(not missing, f"offsets {missing[:5]} of partition {partition} reached no member")

    def _check_commits(self, group: str) -> None:
        stands = committed_offsets(self.world, group)
        for member in self.load.everybody:
            if member.member.group == group:
                for place, offset in member.committed.items():
                    known = stands.get(place, 0)
                    self._require(known >= offset, f"{group} committed {offset} of {place}, and {known} stands")

    def _check_calls(self) -> None:
        before = self.world.clock.now() - UNANSWERED_SECONDS
        for node in self.world.nodes.values():
            old = sum(call.sent_at < before for call in node.calls)
            self._require(not old, f"node {node.node_id} never answers {old} calls")

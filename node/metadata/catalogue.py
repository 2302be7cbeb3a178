"""The state machine of `__cluster`: nodes, topics and their placement, configs, and the counters that never go back.

Commands are checked against this state alone. Whether a config makes sense or a placement is even was decided by the
leader (decisions.py): a rule that changes between versions must not change what an old command does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from quorumlog.node.metadata.topics import (
    CLUSTER_GROUP_ID,
    FIRST_GROUP_ID,
    GROUPS_TOPIC,
    GROUPS_TOPIC_ID,
    ID_BYTES,
    HostedGroup,
    Node,
    Partition,
    PlacedReplica,
    Topic,
    hosted_group,
    hosted_groups,
)
from quorumlog.node.state_machine import UnknownCommand, parse_whole
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error

PRODUCER_IDS_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CatalogueChange:
    """What one applied command did.

    `born` and `removed` are the groups whose replicas the nodes named in them create and delete. `topic` is the topic
    as it is now, or as it was before it was deleted. `first_producer_id` and `producer_id_count` are the block handed
    out. Fields that the command did not concern keep their defaults.
    """

    born: tuple[HostedGroup, ...] = ()
    removed: tuple[HostedGroup, ...] = ()
    topic: Topic | None = None
    node: Node | None = None
    first_producer_id: int = 0
    producer_id_count: int = 0


Result = CatalogueChange | pb.Error


class Catalogue:
    """The catalogue of one cluster, as far as `__cluster` has been applied.

    Invariants: every group id in use is below `next_group_id` and belongs to one partition; replicas are known nodes;
    `catalogue_version` rises with every change of nodes or topics, and with nothing else.
    """

    def __init__(self) -> None:
        self.founding: internal_pb2.Founding | None = None
        self.nodes: dict[int, Node] = {}
        self.topics: dict[str, Topic] = {}
        self.next_group_id = FIRST_GROUP_ID
        self.next_producer_id = 1
        self.catalogue_version = 0
        self._names_by_id: dict[bytes, str] = {}
        self._partitions_by_group: dict[int, tuple[str, int]] = {}
        self._handlers: dict[str, Callable[[int, internal_pb2.ClusterCommand], Result]] = {
            "found_cluster": lambda index, command: self._found_cluster(index, command.found_cluster),
            "register_node": lambda _, command: self._register_node(command.register_node),
            "create_topic": lambda index, command: self._create_topic(index, command.create_topic),
            "alter_topic": lambda _, command: self._alter_topic(command.alter_topic),
            "delete_topic": lambda _, command: self._delete_topic(command.delete_topic),
            "allocate_producer_ids": lambda _, command: self._allocate_producer_ids(command.allocate_producer_ids),
            "report_placement": lambda _, command: self._report_placement(command.report_placement),
        }

    # -- what it knows ------------------------------------------------------------------------------------------------

    @property
    def cluster_id(self) -> bytes:
        """The cluster's id (16 bytes); empty until founded."""
        return self.founding.cluster_id if self.founding is not None else b""

    def topic(self, name: str) -> Topic | None:
        """Return the topic of this name, if there is one."""
        return self.topics.get(name)

    def topic_by_id(self, topic_id: bytes) -> Topic | None:
        """Return the topic of this id, if there is one."""
        name = self._names_by_id.get(topic_id)
        return self.topics[name] if name is not None else None

    def group(self, group_id: int) -> HostedGroup | None:
        """Return the group of this id; None when it is gone or was never there (`allotted` tells which)."""
        place = self._partitions_by_group.get(group_id)
        if place is None:
            return None
        name, partition = place
        topic = self.topics[name]
        return hosted_group(topic, topic.partitions[partition])

    def allotted(self, group_id: int) -> bool:
        """Whether this group id has been given out. One that was, and that `group` does not find, has been removed."""
        return CLUSTER_GROUP_ID <= group_id < self.next_group_id

    def assignments_for(self, node_id: int, incarnation: bytes) -> list[HostedGroup]:
        """Return the groups that this node shall host, by group id; none under an incarnation that is not a member."""
        node = self.nodes.get(node_id)
        if node is None or node.incarnation != incarnation:
            return []
        groups = [
            group
            for name in sorted(self.topics)
            for group in hosted_groups(self.topics[name])
            if node_id in group.replicas
        ]
        return sorted(groups, key=lambda group: group.group_id)

    # -- the state machine --------------------------------------------------------------------------------------------

    def decode(self, payload: bytes) -> internal_pb2.ClusterCommand:
        """Read a command; see `StateMachine.decode`."""
        command = parse_whole(internal_pb2.ClusterCommand(), payload, "a command of __cluster")
        if command.WhichOneof("command") is None:
            raise UnknownCommand("a command of __cluster names nothing to do; a later version may have written it")
        return command

    def apply(self, index: int, command: internal_pb2.ClusterCommand) -> Result:
        """Apply a command that `decode` returned; see `StateMachine.apply`."""
        kind = command.WhichOneof("command")
        assert kind is not None, "decode lets no empty command through"
        if self.founding is None and kind != "found_cluster":
            return make_error(pb.NOT_FOUNDED, f"the cluster is not founded yet, so {kind} at index {index} is refused")
        return self._handlers[kind](index, command)

    def _found_cluster(self, index: int, command: internal_pb2.FoundCluster) -> Result:
        founding = command.founding
        if self.founding is not None:
            return make_error(
                pb.ALREADY_FOUNDED, f"cluster {self.cluster_id.hex()} is founded, and is never founded again"
            )
        nodes = {descriptor.node_id: Node.of(descriptor) for descriptor in founding.nodes}
        if len(nodes) != len(founding.nodes) or len(founding.cluster_id) != ID_BYTES or not founding.voters:
            return _inconsistent("the founding record names a node twice, no voters or no cluster id")
        if strangers := [voter for voter in founding.voters if voter not in nodes]:
            return _inconsistent(f"the founding record names voters {strangers} that are not among its nodes")
        if len(command.internal_placements) != founding.groups_partitions:
            return _inconsistent(
                f"{GROUPS_TOPIC} is founded with {founding.groups_partitions} partitions, "
                f"but {len(command.internal_placements)} are placed"
            )
        if (wrong := _misplaced(command.internal_placements, nodes)) is not None:
            return _inconsistent(wrong)
        self.founding = internal_pb2.Founding()
        self.founding.CopyFrom(founding)
        self.nodes = nodes
        groups = self._allot(
            index,
            Topic(GROUPS_TOPIC, GROUPS_TOPIC_ID, {}, (), internal=True, created_at_ms=founding.founded_at_ms),
            command.internal_placements,
        )
        return CatalogueChange(born=hosted_groups(groups), topic=groups)

    def _register_node(self, command: internal_pb2.RegisterNode) -> Result:
        node = Node.of(command.node)
        if (stranger := self.refuse_stranger(node.node_id, node.incarnation)) is not None:
            return stranger
        if self.nodes[node.node_id] != node:
            self.nodes[node.node_id] = node
            self.catalogue_version += 1
        return CatalogueChange(node=node)

    def refuse_stranger(self, node_id: int, incarnation: bytes) -> pb.Error | None:
        """Return why a node under this incarnation is no member, or None when it is one."""
        known = self.nodes.get(node_id)
        if known is None:
            return make_error(
                pb.INVALID_REQUEST,
                f"node {node_id} is not a member of cluster {self.cluster_id.hex()} "
                f"(its nodes: {', '.join(map(str, sorted(self.nodes)))})",
                hint="give the node the node_id under which it was founded; nodes are named when a cluster is founded",
            )
        if known.incarnation != incarnation:
            return make_error(
                pb.INVALID_REQUEST,
                f"node {node_id} comes with incarnation {incarnation.hex()}, but this cluster knows node {node_id} as "
                f"{known.incarnation.hex()}: its data folder was wiped or exchanged",
                hint=f"start node {node_id} with its former data folder; an empty one has forgotten what the node "
                "promised, so it cannot take its place",
            )
        return None

    def _create_topic(self, index: int, command: internal_pb2.CreateTopic) -> Result:
        if command.name in self.topics:
            return topic_exists(command.name)
        if (conflict := self._conflict(command.catalogue_version, f"topic {command.name!r} was placed")) is not None:
            return conflict
        if len(command.topic_id) != ID_BYTES or command.topic_id in self._names_by_id:
            return _inconsistent(f"topic id {command.topic_id.hex()!r} is no id or is taken")
        if not command.placements:
            return _inconsistent(f"topic {command.name!r} has no partitions")
        if (wrong := _misplaced(command.placements, self.nodes)) is not None:
            return _inconsistent(wrong)
        topic = Topic(command.name, command.topic_id, _sorted(command.configs), (), False, command.created_at_ms)
        topic = self._allot(index, topic, command.placements)
        return CatalogueChange(born=hosted_groups(topic), topic=topic)

    def _alter_topic(self, command: internal_pb2.AlterTopic) -> Result:
        topic = self._find(command.name, command.topic_id)
        if isinstance(topic, pb.Error):
            return topic
        if (conflict := self._conflict(command.catalogue_version, f"topic {topic.name!r} was altered")) is not None:
            return conflict
        topic = replace(topic, configs=_sorted(command.configs))
        self.topics[topic.name] = topic
        self.catalogue_version += 1
        return CatalogueChange(topic=topic)

    def _delete_topic(self, command: internal_pb2.DeleteTopic) -> Result:
        topic = self._find(command.name, command.topic_id)
        if isinstance(topic, pb.Error):
            return topic
        del self.topics[topic.name]
        del self._names_by_id[topic.topic_id]
        for partition in topic.partitions:
            del self._partitions_by_group[partition.group_id]
        self.catalogue_version += 1
        return CatalogueChange(removed=hosted_groups(topic), topic=topic)

    def _allocate_producer_ids(self, command: internal_pb2.AllocateProducerIds) -> Result:
        if (stranger := self.refuse_stranger(command.node_id, command.incarnation)) is not None:
            return stranger
        if command.count == 0 or command.count > PRODUCER_IDS_MAX - self.next_producer_id:
            return _inconsistent(f"{command.count} producer ids cannot be handed out from {self.next_producer_id} on")
        first = self.next_producer_id
        self.next_producer_id += command.count
        return CatalogueChange(first_producer_id=first, producer_id_count=command.count)

    def _report_placement(self, command: internal_pb2.ReportPlacement) -> Result:
        place = self._partitions_by_group.get(command.group_id)
        if place is None:
            return make_error(pb.UNKNOWN_PARTITION, f"group {command.group_id} belongs to no partition any more")
        name, number = place
        topic = self.topics[name]
        if topic.partitions[number].placement_version != command.placement_version:
            return _inconsistent(f"the wish for {name!r} partition {number} has changed since")
        partition = replace(topic.partitions[number], settled=True, leaving=())
        self._set(replace(topic, partitions=(*topic.partitions[:number], partition, *topic.partitions[number + 1 :])))
        return CatalogueChange(topic=self.topics[name])

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _conflict(self, version: int, deed: str) -> pb.Error | None:
        if version == self.catalogue_version:
            return None
        return make_error(
            pb.NOT_YET_AVAILABLE,
            f"the catalogue moved from version {version} to {self.catalogue_version} while {deed}",
            hint="try again: the decision is made anew",
        )

    def _find(self, name: str, topic_id: bytes) -> Topic | pb.Error:
        topic = self.topics.get(name)
        if topic is None or topic.topic_id != topic_id:
            return make_error(pb.UNKNOWN_TOPIC, f"topic {name!r} with id {topic_id.hex()} is not there")
        if topic.internal:
            return make_error(
                pb.INVALID_REQUEST, f"topic {name!r} is internal", hint="internal topics belong to the cluster"
            )
        return topic

    def _allot(self, index: int, topic: Topic, placements: Sequence[internal_pb2.Placement]) -> Topic:
        partitions = tuple(
            Partition(
                partition=number,
                group_id=self.next_group_id + number,
                placed=tuple(
                    PlacedReplica(node_id, self.nodes[node_id].incarnation, index) for node_id in placement.replicas
                ),
                replicas_wanted=len(placement.replicas),
            )
            for number, placement in enumerate(placements)
        )
        topic = replace(topic, partitions=partitions)
        self.next_group_id += len(partitions)
        self.catalogue_version += 1
        self._set(topic)
        return topic

    def _set(self, topic: Topic) -> None:
        self.topics[topic.name] = topic
        self._names_by_id[topic.topic_id] = topic.name
        for partition in topic.partitions:
            self._partitions_by_group[partition.group_id] = (topic.name, partition.partition)

    # -- snapshot -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the whole state; see `StateMachine.snapshot`."""
        state = internal_pb2.ClusterSnapshot(
            cluster_id=self.cluster_id,
            founding=self.founding,
            nodes=[self.nodes[node_id].descriptor() for node_id in sorted(self.nodes)],
            topics=[_stored(self.topics[name]) for name in sorted(self.topics)],
            next_group_id=self.next_group_id,
            next_producer_id=self.next_producer_id,
            catalogue_version=self.catalogue_version,
        )
        return state.SerializeToString(deterministic=True)

    def restore(self, data: bytes) -> None:
        """Replace the state; see `StateMachine.restore`."""
        state = parse_whole(internal_pb2.ClusterSnapshot(), data, "a snapshot of __cluster")
        self.founding = state.founding if state.HasField("founding") else None
        self.nodes = {descriptor.node_id: Node.of(descriptor) for descriptor in state.nodes}
        self.next_group_id = state.next_group_id
        self.next_producer_id = state.next_producer_id
        self.catalogue_version = state.catalogue_version
        self.topics = {}
        self._names_by_id = {}
        self._partitions_by_group = {}
        for topic in state.topics:
            self._set(_loaded(topic))

    def digest(self) -> bytes:
        """Return a hash of the state; see `StateMachine.digest`."""
        return hashlib.sha256(self.snapshot()).digest()


def topic_exists(name: str) -> pb.Error:
    """Return the error for creating a topic whose name is taken."""
    return make_error(pb.TOPIC_EXISTS, f"topic {name!r} exists")


def _inconsistent(message: str) -> pb.Error:
    return make_error(pb.INVALID_REQUEST, message, hint="the command was refused and nothing changed")


def _misplaced(placements: Iterable[internal_pb2.Placement], nodes: dict[int, Node]) -> str | None:
    for number, placement in enumerate(placements):
        replicas = list(placement.replicas)
        if not replicas or len(set(replicas)) != len(replicas):
            return f"partition {number} is placed on {replicas}: not one replica each on at least one node"
        if strangers := [node_id for node_id in replicas if node_id not in nodes]:
            return f"partition {number} is placed on unknown nodes {strangers}"
    return None


def _sorted(configs: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(configs.items()))


def _stored(topic: Topic) -> internal_pb2.TopicState:
    return internal_pb2.TopicState(
        name=topic.name,
        topic_id=topic.topic_id,
        configs=dict(topic.configs),
        partitions=[
            internal_pb2.PartitionState(
                partition=partition.partition,
                group_id=partition.group_id,
                replicas=_stored_replicas(partition.placed),
                placement_version=partition.placement_version,
                settled=partition.settled,
                leaving=_stored_replicas(partition.leaving),
                replicas_wanted=partition.replicas_wanted,
            )
            for partition in topic.partitions
        ],
        internal=topic.internal,
        created_at_ms=topic.created_at_ms,
    )


def _loaded(state: internal_pb2.TopicState) -> Topic:
    return Topic(
        name=state.name,
        topic_id=state.topic_id,
        configs=_sorted(state.configs),
        partitions=tuple(
            Partition(
                partition=partition.partition,
                group_id=partition.group_id,
                placed=_loaded_replicas(partition.replicas),
                replicas_wanted=partition.replicas_wanted,
                placement_version=partition.placement_version,
                settled=partition.settled,
                leaving=_loaded_replicas(partition.leaving),
            )
            for partition in state.partitions
        ),
        internal=state.internal,
        created_at_ms=state.created_at_ms,
    )


def _stored_replicas(replicas: Iterable[PlacedReplica]) -> list[internal_pb2.PlacedReplica]:
    return [
        internal_pb2.PlacedReplica(
            node_id=one.node_id, incarnation=one.incarnation, placed_at_index=one.placed_at_index
        )
        for one in replicas
    ]


def _loaded_replicas(replicas: Iterable[internal_pb2.PlacedReplica]) -> tuple[PlacedReplica, ...]:
    return tuple(PlacedReplica(one.node_id, one.incarnation, one.placed_at_index) for one in replicas)

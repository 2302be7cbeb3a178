"""The state machine of `__cluster`: nodes, topics and their placement, configs, and the counters that never go back.

Where replicas shall be, and who shall vote in `__cluster` itself, is a wish: each group's own log says how far it has
come, and its leader reports when the wish is reached (wishes.py).

Commands are checked against this state alone. Whether a config makes sense or a placement is even was decided by the
leader (decisions.py): a rule that changes between versions must not change what an old command does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from quorumlog.node.metadata import membership
from quorumlog.node.metadata.changes import CatalogueChange, Result, inconsistent, moved_on
from quorumlog.node.metadata.state import CatalogueState
from quorumlog.node.metadata.stored import loaded_topic, sorted_configs, stored_topic
from quorumlog.node.metadata.topics import (
    GROUPS_TOPIC,
    GROUPS_TOPIC_ID,
    ID_BYTES,
    Node,
    Partition,
    PlacedReplica,
    Topic,
    hosted_groups,
)
from quorumlog.node.state_machine import UnknownCommand, parse_whole
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error

__all__ = ["Catalogue", "CatalogueChange", "topic_exists"]

PRODUCER_IDS_MAX = 2**63 - 1


class Catalogue(CatalogueState):
    """The catalogue of one cluster, as far as `__cluster` has been applied."""

    def __init__(self) -> None:
        super().__init__()
        self._handlers: dict[str, Callable[[int, internal_pb2.ClusterCommand], Result]] = {
            "found_cluster": lambda index, command: self._found_cluster(index, command.found_cluster),
            "register_node": lambda _, command: self._register_node(command.register_node),
            "create_topic": lambda index, command: self._create_topic(index, command.create_topic),
            "alter_topic": lambda _, command: self._alter_topic(command.alter_topic),
            "delete_topic": lambda _, command: self._delete_topic(command.delete_topic),
            "allocate_producer_ids": lambda _, command: self._allocate_producer_ids(command.allocate_producer_ids),
            "admit_node": lambda index, command: membership.admit_node(self, index, command.admit_node),
            "remove_node": lambda _, command: membership.remove_node(self, command.remove_node),
            "drain_node": lambda _, command: membership.drain_node(self, command.drain_node),
            "change_placement": lambda index, command: membership.change_placement(
                self, index, command.change_placement
            ),
            "report_placement": lambda _, command: membership.report_placement(self, command.report_placement),
            "change_voters": lambda _, command: membership.change_voters(self, command.change_voters),
            "skip_ids": lambda _, command: self._skip_ids(command.skip_ids),
        }

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
            return inconsistent("the founding record names a node twice, no voters or no cluster id")
        if strangers := [voter for voter in founding.voters if voter not in nodes]:
            return inconsistent(f"the founding record names voters {strangers} that are not among its nodes")
        if len(command.internal_placements) != founding.groups_partitions:
            return inconsistent(
                f"{GROUPS_TOPIC} is founded with {founding.groups_partitions} partitions, "
                f"but {len(command.internal_placements)} are placed"
            )
        if (wrong := _misplaced(command.internal_placements, nodes)) is not None:
            return inconsistent(wrong)
        self.founding = internal_pb2.Founding()
        self.founding.CopyFrom(founding)
        self.nodes = nodes
        self.voters = tuple(sorted(founding.voters))
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
        known = self.nodes[node.node_id]
        node = replace(node, admitted_at_index=known.admitted_at_index)
        if known != node:
            self.nodes[node.node_id] = node
            self.catalogue_version += 1
        return CatalogueChange(node=node)

    def _create_topic(self, index: int, command: internal_pb2.CreateTopic) -> Result:
        if command.name in self.topics:
            return topic_exists(command.name)
        if (conflict := self._conflict(command.catalogue_version, f"topic {command.name!r} was placed")) is not None:
            return conflict
        if len(command.topic_id) != ID_BYTES or command.topic_id in self._names_by_id:
            return inconsistent(f"topic id {command.topic_id.hex()!r} is no id or is taken")
        if not command.placements:
            return inconsistent(f"topic {command.name!r} has no partitions")
        if (wrong := _misplaced(command.placements, self.nodes)) is not None:
            return inconsistent(wrong)
        topic = Topic(command.name, command.topic_id, sorted_configs(command.configs), (), False, command.created_at_ms)
        topic = self._allot(index, topic, command.placements)
        return CatalogueChange(born=hosted_groups(topic), topic=topic)

    def _alter_topic(self, command: internal_pb2.AlterTopic) -> Result:
        topic = self._find(command.name, command.topic_id)
        if isinstance(topic, pb.Error):
            return topic
        if (conflict := self._conflict(command.catalogue_version, f"topic {topic.name!r} was altered")) is not None:
            return conflict
        topic = replace(topic, configs=sorted_configs(command.configs))
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

    def _skip_ids(self, command: internal_pb2.SkipIds) -> Result:
        if command.count > PRODUCER_IDS_MAX - self.next_producer_id:
            return inconsistent(f"{command.count} ids cannot be left out from producer id {self.next_producer_id} on")
        self.next_group_id += command.count
        self.next_producer_id += command.count
        return CatalogueChange()

    def _allocate_producer_ids(self, command: internal_pb2.AllocateProducerIds) -> Result:
        if (stranger := self.refuse_stranger(command.node_id, command.incarnation)) is not None:
            return stranger
        if command.count == 0 or command.count > PRODUCER_IDS_MAX - self.next_producer_id:
            return inconsistent(f"{command.count} producer ids cannot be handed out from {self.next_producer_id} on")
        first = self.next_producer_id
        self.next_producer_id += command.count
        return CatalogueChange(first_producer_id=first, producer_id_count=command.count)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _conflict(self, version: int, deed: str) -> pb.Error | None:
        if version == self.catalogue_version:
            return None
        return moved_on(f"the catalogue moved from version {version} to {self.catalogue_version} while {deed}")

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
        self.set_topic(topic)
        return topic

    # -- snapshot -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the whole state; see `StateMachine.snapshot`."""
        state = internal_pb2.ClusterSnapshot(
            cluster_id=self.cluster_id,
            founding=self.founding,
            nodes=[self.nodes[node_id].descriptor() for node_id in sorted(self.nodes)],
            topics=[stored_topic(self.topics[name]) for name in sorted(self.topics)],
            next_group_id=self.next_group_id,
            next_producer_id=self.next_producer_id,
            catalogue_version=self.catalogue_version,
            voters=self.voters,
            voters_version=self.voters_version,
            draining=sorted(self.draining),
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
        # A snapshot from before voters could change names none: then they are those of the founding.
        self.voters = tuple(state.voters) or tuple(sorted(state.founding.voters))
        self.voters_version = state.voters_version
        self.draining = set(state.draining)
        self.topics = {}
        self._names_by_id = {}
        self._partitions_by_group = {}
        for topic in state.topics:
            self.set_topic(loaded_topic(topic))

    def digest(self) -> bytes:
        """Return a hash of the state; see `StateMachine.digest`."""
        return hashlib.sha256(self.snapshot()).digest()


def topic_exists(name: str) -> pb.Error:
    """Return the error for creating a topic whose name is taken."""
    return make_error(pb.TOPIC_EXISTS, f"topic {name!r} exists")


def _misplaced(placements: Iterable[internal_pb2.Placement], nodes: dict[int, Node]) -> str | None:
    for number, placement in enumerate(placements):
        replicas = list(placement.replicas)
        if not replicas or len(set(replicas)) != len(replicas):
            return f"partition {number} is placed on {replicas}: not one replica each on at least one node"
        if strangers := [node_id for node_id in replicas if node_id not in nodes]:
            return f"partition {number} is placed on unknown nodes {strangers}"
    return None

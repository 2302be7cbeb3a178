"""Where a partition is: led here, followed here, or on other nodes; and the errors that say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from quorumlog.node.coordination.view import CoordinationView
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.metadata.topics import Partition, Topic
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.proto import client_pb2
from quorumlog.proto.errors import make_error

LEADER_EPOCH_MAX: Final = (1 << 63) - 1
"""Largest that the client contract has room for; a hint may name any term."""


class Found(NamedTuple):
    """A partition that exists, with its replica where this node has one."""

    topic: Topic
    partition: Partition
    replica: Replica | None


class Directory:
    """Answers from this node's catalogue, its own replicas, and, for hints only, the coordination plane."""

    def __init__(
        self,
        *,
        node_id: int,
        catalogue: Catalogue,
        multi: MultiRaft,
        coordination: CoordinationView,
        catch_up: Callable[[Callable[[bool], None]], None],
    ) -> None:
        self._catch_up = catch_up
        self.node_id = node_id
        self.catalogue = catalogue
        self.coordination = coordination
        self._multi = multi

    def look_up(
        self, topic_id: bytes, topic_name: str, partition: int, done: Callable[[Found | client_pb2.Error], None]
    ) -> None:
        """`find` for a request: before a topic is said not to exist, this node's catalogue catches up.

        A topic that was created a moment ago through another node is found, and one that is not there is certainly not.
        """
        found = self.find(topic_id, topic_name, partition)
        if not isinstance(found, client_pb2.Error) or found.code != client_pb2.UNKNOWN_TOPIC:
            done(found)
            return

        def on_caught_up(up_to_date: bool) -> None:
            found = self.find(topic_id, topic_name, partition)
            if isinstance(found, client_pb2.Error) and not up_to_date:
                done(self.no_topic(topic_id, topic_name, up_to_date=False))
            else:
                done(found)

        self._catch_up(on_caught_up)

    def no_topic(self, topic_id: bytes, topic_name: str, *, up_to_date: bool) -> client_pb2.Error:
        """UNKNOWN_TOPIC for a topic that is not in this node's catalogue, but NOT_YET_AVAILABLE while that may be
        behind: the one is final for a client, which gives up what it has for the topic.
        """
        name = f"topic id {topic_id.hex()}" if topic_id else f"topic {topic_name!r}"
        if up_to_date:
            return make_error(client_pb2.UNKNOWN_TOPIC, f"{name} does not exist")
        behind = f"node {self.node_id} does not know {name}, and no leader of __cluster says whether it is new"
        return make_error(client_pb2.NOT_YET_AVAILABLE, behind)

    def find(self, topic_id: bytes, topic_name: str, partition: int) -> Found | client_pb2.Error:
        """The partition by its topic's id, or by its name where the id is empty."""
        topic = self.catalogue.topic_by_id(topic_id) if topic_id else self.catalogue.topic(topic_name)
        if topic is None:
            return self.no_topic(topic_id, topic_name, up_to_date=True)
        if partition >= len(topic.partitions):
            return make_error(
                client_pb2.UNKNOWN_PARTITION,
                f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {partition}",
            )
        state = topic.partitions[partition]
        return Found(topic, state, self._multi.replicas.get(state.group_id))

    def not_leader(
        self,
        found: Found,
        outcome: client_pb2.Outcome.ValueType | None = None,
        code: client_pb2.ErrorCode.ValueType = client_pb2.NOT_LEADER,
    ) -> client_pb2.Error:
        """NOT_LEADER with the leader, where anyone here has heard of one."""
        leader = self.leader_of(found.partition.group_id)
        name = f"partition {found.partition.partition} of topic {found.topic.name!r}"
        where = f"node {leader.node_id} at {leader.address} does" if leader else "no leader is known here"
        # The table's hint is to go to the leader named; where there is none, it is being elected, or cannot be.
        hint = (
            None if leader else "an election may be under way: try again in a moment; quorumlog doctor if it stays so"
        )
        message = f"node {self.node_id} does not lead {name}; {where}"
        return make_error(code, message, hint=hint, outcome=outcome, leader=leader)

    def leader_of(self, group_id: int) -> client_pb2.Leader | None:
        """Who leads a group, as far as is known: the own replica's word, and only without one the coordination plane's.

        A replica that has lost its leader says so within an election timeout; a hint may be wrong for ever, and then
        nobody would find a leader that this node has heard a moment ago.
        """
        replica = self._multi.replicas.get(group_id)
        if replica is not None and replica.raft.leader_id and replica.stopped is None:
            return self._leader(replica.raft.leader_id, replica.raft.term)
        hint = self.coordination.leader_hint(group_id)
        if hint is None or (replica is not None and hint.term <= replica.raft.term):
            return None
        return self._leader(hint.node_id, hint.term)

    def _leader(self, node_id: int, term: int) -> client_pb2.Leader | None:
        node = self.catalogue.nodes.get(node_id)
        if node is None or term > LEADER_EPOCH_MAX:
            return None
        return client_pb2.Leader(node_id=node_id, address=node.client_address, leader_epoch=term)

    def touch(self, replica: Replica) -> None:
        """Note that a replica may have work for the next turn."""
        self._multi.touch(replica)

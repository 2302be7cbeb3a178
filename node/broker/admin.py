"""Admin and metadata requests: decided by the leader of `__cluster`, answered by any node where it can."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

from quorumlog.node.broker.cluster import ClusterGroup, Outcome
from quorumlog.node.broker.directory import Directory
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.clock import Clock
from quorumlog.node.metadata import decisions
from quorumlog.node.metadata.catalogue import CatalogueChange
from quorumlog.node.metadata.configs import describe_configs
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, Node, Topic
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.proto import client_pb2, internal_pb2
from quorumlog.raft import NodeId

CATCH_UP_SECONDS: Final = 1.5
"""Shorter than the two seconds after which a client that asked for metadata turns to another node."""
PRODUCER_IDS_SECONDS: Final = 10.0


class AdminPath:
    """Topics, metadata, producer ids."""

    def __init__(
        self,
        *,
        directory: Directory,
        cluster: ClusterGroup,
        multi: MultiRaft,
        liveness: Liveness,
        clock: Clock,
        rng: random.Random,
        incarnation: bytes,
    ) -> None:
        self._directory = directory
        self._catalogue = directory.catalogue
        self._cluster = cluster
        self._multi = multi
        self._liveness = liveness
        self._clock = clock
        self._rng = rng
        self._incarnation = incarnation
        self._next_producer_id = 0
        self._producer_ids_end = 0
        self._producers_waiting: list[Callable[[client_pb2.InitProducerResponse], None]] = []

    # ------------------------------------------------------------------------------------------------------ metadata

    def metadata(
        self, request: client_pb2.MetadataRequest, reply: Callable[[client_pb2.MetadataResponse], None]
    ) -> None:
        """Answer from the catalogue here; a name that is not in it is looked for again once it has caught up."""
        if all(self._catalogue.topic(name) is not None for name in request.topics):
            reply(self._metadata(request, up_to_date=True))
            return
        self._cluster.catch_up(
            CATCH_UP_SECONDS, lambda up_to_date: reply(self._metadata(request, up_to_date=up_to_date))
        )

    def _metadata(self, request: client_pb2.MetadataRequest, *, up_to_date: bool) -> client_pb2.MetadataResponse:
        response = client_pb2.MetadataResponse(
            cluster_id=self._catalogue.cluster_id,
            cluster_leader=self._directory.leader_of(CLUSTER_GROUP_ID),
            catalogue_version=self._catalogue.catalogue_version,
        )
        response.nodes.extend(self.node_info(node) for _, node in sorted(self._catalogue.nodes.items()))
        if request.no_topics:
            return response
        names = list(request.topics) or sorted(
            name for name, topic in self._catalogue.topics.items() if not topic.internal
        )
        for name in names:
            topic = self._catalogue.topic(name)
            if topic is None:
                response.topics.add(name=name, error=self._directory.no_topic(b"", name, up_to_date=up_to_date))
            else:
                response.topics.append(self.topic_metadata(topic))
        return response

    def node_info(self, node: Node) -> client_pb2.NodeInfo:
        """A node as clients see it."""
        up = node.node_id == self._directory.node_id or self._liveness.is_alive(node.node_id)
        return client_pb2.NodeInfo(
            node_id=node.node_id,
            address=node.client_address,
            host=node.host,
            rack=node.rack,
            up=up,
            draining=node.node_id in self._catalogue.draining,
        )

    def topic_metadata(self, topic: Topic) -> client_pb2.TopicMetadata:
        """A topic with the leaders this node knows of."""
        metadata = client_pb2.TopicMetadata(name=topic.name, topic_id=topic.topic_id, configs=dict(topic.configs))
        for partition in topic.partitions:
            metadata.partitions.add(
                partition=partition.partition,
                leader=self._directory.leader_of(partition.group_id),
                replicas=partition.replicas,
            )
        return metadata

    # -------------------------------------------------------------------------------------------------------- topics

    def create_topic(
        self, request: client_pb2.CreateTopicRequest, reply: Callable[[client_pb2.CreateTopicResponse], None]
    ) -> None:
        """Decide where the topic goes and write it down."""
        if not self._cluster.takes_requests:
            reply(client_pb2.CreateTopicResponse(error=self._cluster.not_leader()))
            return
        decision = decisions.create_topic(
            self._catalogue, request, rng=self._rng, now_ms=self._clock.wall_ms(), unfit=self.unfit()
        )
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.CreateTopicResponse(error=decision))
            return
        if request.validate_only:
            reply(client_pb2.CreateTopicResponse(topic=_preview(decision)))
            return

        def on_outcome(outcome: Outcome) -> None:
            if isinstance(outcome, client_pb2.Error):
                if outcome.code == client_pb2.NOT_YET_AVAILABLE:
                    self.create_topic(request, reply)  # the catalogue moved on meanwhile: decide anew
                else:
                    reply(client_pb2.CreateTopicResponse(error=outcome))
            else:
                assert outcome.topic is not None
                reply(client_pb2.CreateTopicResponse(topic=self.topic_metadata(outcome.topic)))

        self._cluster.propose(internal_pb2.ClusterCommand(create_topic=decision), on_outcome)

    def unfit(self) -> set[int]:
        """Nodes that nothing new should depend on, as the leader of `__cluster` sees them: gone, in repair, or so new
        that its group does not have them yet. To be asked while this node decides.
        """
        leader = self._cluster.replica
        assert leader is not None
        now = self._clock.now()
        unfit = set()
        for node_id in self._catalogue.nodes.keys() - {self._directory.node_id}:
            progress = leader.raft.progress(NodeId(node_id))
            if self._liveness.is_gone(node_id, now) or progress is None or not progress.counting:
                unfit.add(node_id)
        return unfit

    def unfit_to_copy_to(self) -> set[int]:
        """Nodes that nothing is copied to just now: the unfit ones, and those that are not heard of. Other than a new
        topic, what exists can wait for them.
        """
        silent = {one for one in self._catalogue.nodes if not self._liveness.is_alive(one)}
        return (silent - {self._directory.node_id}) | self.unfit()

    def alter_topic(
        self, request: client_pb2.AlterTopicRequest, reply: Callable[[client_pb2.AlterTopicResponse], None]
    ) -> None:
        """Change a topic's configs."""
        if not self._cluster.takes_requests:
            reply(client_pb2.AlterTopicResponse(error=self._cluster.not_leader()))
            return
        decision = decisions.alter_topic(self._catalogue, request)
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.AlterTopicResponse(error=decision))
            return
        if request.validate_only:
            preview = client_pb2.TopicMetadata(name=decision.name, topic_id=decision.topic_id, configs=decision.configs)
            reply(client_pb2.AlterTopicResponse(topic=preview))
            return

        def on_outcome(outcome: Outcome) -> None:
            if isinstance(outcome, client_pb2.Error):
                if outcome.code == client_pb2.NOT_YET_AVAILABLE:
                    self.alter_topic(request, reply)  # the catalogue moved on meanwhile: decide anew
                else:
                    reply(client_pb2.AlterTopicResponse(error=outcome))
            else:
                assert outcome.topic is not None
                reply(client_pb2.AlterTopicResponse(topic=self.topic_metadata(outcome.topic)))

        self._cluster.propose(internal_pb2.ClusterCommand(alter_topic=decision), on_outcome)

    def delete_topic(
        self, request: client_pb2.DeleteTopicRequest, reply: Callable[[client_pb2.DeleteTopicResponse], None]
    ) -> None:
        """Delete a topic and, by and by, its space on every node."""
        if not self._cluster.takes_requests:
            reply(client_pb2.DeleteTopicResponse(error=self._cluster.not_leader()))
            return
        decision = decisions.delete_topic(self._catalogue, request)
        if isinstance(decision, client_pb2.Error):
            reply(client_pb2.DeleteTopicResponse(error=decision))
            return

        def on_outcome(outcome: Outcome) -> None:
            error = outcome if isinstance(outcome, client_pb2.Error) else None
            reply(client_pb2.DeleteTopicResponse(error=error))

        self._cluster.propose(internal_pb2.ClusterCommand(delete_topic=decision), on_outcome)

    def describe_topic(
        self, request: client_pb2.DescribeTopicRequest, reply: Callable[[client_pb2.DescribeTopicResponse], None]
    ) -> None:
        """A topic with every config there is."""

        def answer(up_to_date: bool) -> None:
            topic = self._catalogue.topic(request.name)
            if topic is None:
                error = self._directory.no_topic(b"", request.name, up_to_date=up_to_date)
                reply(client_pb2.DescribeTopicResponse(error=error))
            else:
                configs = describe_configs(topic.configs)
                reply(client_pb2.DescribeTopicResponse(topic=self.topic_metadata(topic), configs=configs))

        if self._catalogue.topic(request.name) is not None:
            answer(True)
        else:
            self._cluster.catch_up(CATCH_UP_SECONDS, answer)

    # -------------------------------------------------------------------------------------------------- producer ids

    def init_producer(self, reply: Callable[[client_pb2.InitProducerResponse], None]) -> None:
        """Hand out the next id of this node's block; fetch another block when it is used up."""
        if self._next_producer_id < self._producer_ids_end:
            producer_id = self._next_producer_id
            self._next_producer_id += 1
            reply(client_pb2.InitProducerResponse(producer_id=producer_id, producer_epoch=0))
            return
        self._producers_waiting.append(reply)
        if len(self._producers_waiting) > 1:
            return
        command = internal_pb2.AllocateProducerIds(
            node_id=self._directory.node_id, incarnation=self._incarnation, count=decisions.PRODUCER_ID_BLOCK_SIZE
        )
        self._cluster.submit(
            internal_pb2.ClusterCommand(allocate_producer_ids=command), PRODUCER_IDS_SECONDS, self._on_producer_ids
        )

    def _on_producer_ids(self, outcome: Outcome) -> None:
        waiting, self._producers_waiting = self._producers_waiting, []
        if isinstance(outcome, CatalogueChange):
            self._next_producer_id = outcome.first_producer_id
            self._producer_ids_end = outcome.first_producer_id + outcome.producer_id_count
        for reply in waiting:
            if isinstance(outcome, CatalogueChange):
                self.init_producer(reply)
            else:
                reply(client_pb2.InitProducerResponse(error=outcome))


def _preview(decision: internal_pb2.CreateTopic) -> client_pb2.TopicMetadata:
    configs: Mapping[str, str] = decision.configs
    preview = client_pb2.TopicMetadata(name=decision.name, configs=dict(configs))
    for number, placement in enumerate(decision.placements):
        preview.partitions.add(partition=number, replicas=placement.replicas)
    return preview

"""What the leader of `__cluster` decides: requests in, commands out, checked against the state applied so far.

A decision names the catalogue version it was based on, and the state machine refuses it when that has moved on (then
NOT_YET_AVAILABLE comes back, and the leader decides anew). Randomness and time are passed in.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from quorumlog.node.metadata.catalogue import Catalogue, topic_exists
from quorumlog.node.metadata.configs import altered, validate_configs
from quorumlog.node.metadata.placement import PlacementNode, place
from quorumlog.node.metadata.topics import GROUPS_PARTITIONS, ID_BYTES, Node, Topic
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error
from quorumlog.proto.names import NameInvalid, check_topic_name

PARTITIONS_MAX = 1024
"""Partitions of one topic: each is a Raft group on every one of its replicas."""
REPLICAS_MAX = 7
INTERNAL_REPLICAS_MAX = 3
CLUSTER_VOTERS_MAX = 5
PRODUCER_ID_BLOCK_SIZE = 1000
"""Producer ids that a node takes at a time: rare enough to cost nothing, few enough to throw away at a restart."""


@dataclass(frozen=True, slots=True)
class TopicDefaults:
    """What a request that leaves them at 0 gets. Replicas are no more than there are nodes."""

    partitions: int = 1
    replicas: int = 3


def create_topic(
    catalogue: Catalogue,
    request: pb.CreateTopicRequest,
    *,
    rng: random.Random,
    now_ms: int,
    defaults: TopicDefaults = TopicDefaults(),
    unfit: Collection[int] = (),
) -> internal_pb2.CreateTopic | pb.Error:
    """Decide on a new topic: its id, its configs and where its replicas go.

    `rng` draws the topic id and breaks ties of placement; `now_ms` is milliseconds since the Unix epoch. Nodes in
    `unfit` (dead for a while, or whose `__cluster` is in repair) are passed over where others have room. Errors:
    INVALID_NAME, TOPIC_EXISTS, INVALID_REQUEST (too many partitions), INVALID_REPLICATION, INVALID_CONFIG.
    """
    try:
        check_topic_name(request.name)
    except NameInvalid as invalid:
        return make_error(pb.INVALID_NAME, invalid.message, hint=invalid.hint)
    if catalogue.topic(request.name) is not None:
        return topic_exists(request.name)
    configs = validate_configs(request.configs)
    if isinstance(configs, pb.Error):
        return configs
    partitions = request.partitions or defaults.partitions
    if partitions > PARTITIONS_MAX:
        return make_error(
            pb.INVALID_REQUEST,
            f"topic {request.name!r} asks for {partitions} partitions, and {PARTITIONS_MAX} are the most",
            hint=f"ask for 1 to {PARTITIONS_MAX} partitions",
        )
    open_nodes = catalogue.nodes.keys() - catalogue.draining
    replicas = request.replicas or min(defaults.replicas, max(1, len(open_nodes)))
    if (refusal := _refuse_replicas(catalogue, request.name, replicas)) is not None:
        return refusal
    return internal_pb2.CreateTopic(
        name=request.name,
        topic_id=draw_id(rng),
        configs=configs,
        placements=_placements(placement_nodes(catalogue, unfit), partitions, replicas, rng),
        catalogue_version=catalogue.catalogue_version,
        created_at_ms=now_ms,
    )


def _refuse_replicas(catalogue: Catalogue, name: str, replicas: int) -> pb.Error | None:
    draining = len(catalogue.draining)
    nodes = len(catalogue.nodes) - draining
    if replicas > nodes:
        drained = f" besides the {draining} being drained" if draining else ""
        return make_error(
            pb.INVALID_REPLICATION,
            f"topic {name!r} asks for {replicas} replicas, but the cluster has {nodes} {_plural('node', nodes)}"
            f"{drained}",
            hint=f"ask for at most {nodes} {_plural('replica', nodes)}" if nodes else "end a drain, or add a node",
        )
    if replicas > REPLICAS_MAX:
        return make_error(
            pb.INVALID_REPLICATION,
            f"topic {name!r} asks for {replicas} replicas, and {REPLICAS_MAX} are the most",
            hint="3 replicas outlive the loss of one node, 5 of two",
        )
    return None


def alter_topic(catalogue: Catalogue, request: pb.AlterTopicRequest) -> internal_pb2.AlterTopic | pb.Error:
    """Decide on new configs. Errors: UNKNOWN_TOPIC, INVALID_REQUEST (internal topic), INVALID_CONFIG."""
    topic = _user_topic(catalogue, request.name)
    if isinstance(topic, pb.Error):
        return topic
    configs = altered(topic.configs, request.set, request.reset)
    if isinstance(configs, pb.Error):
        return configs
    return internal_pb2.AlterTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        configs=configs,
        catalogue_version=catalogue.catalogue_version,
    )


def delete_topic(catalogue: Catalogue, request: pb.DeleteTopicRequest) -> internal_pb2.DeleteTopic | pb.Error:
    """Decide on deleting. Errors: UNKNOWN_TOPIC (also for an id that is not the present one), INVALID_REQUEST."""
    topic = _user_topic(catalogue, request.name)
    if isinstance(topic, pb.Error):
        return topic
    if request.topic_id and request.topic_id != topic.topic_id:
        return make_error(
            pb.UNKNOWN_TOPIC,
            f"topic {topic.name!r} with id {request.topic_id.hex()} is gone; one of that name with id "
            f"{topic.topic_id.hex()} is there",
            hint="leave the topic id out to delete the present one",
        )
    return internal_pb2.DeleteTopic(name=topic.name, topic_id=topic.topic_id)


def register_node(
    catalogue: Catalogue, descriptor: internal_pb2.NodeDescriptor
) -> internal_pb2.RegisterNode | pb.Error | None:
    """Decide on a node that has come up; None when the catalogue knows all of that. INVALID_REQUEST for a stranger."""
    if (stranger := catalogue.refuse_stranger(descriptor.node_id, descriptor.incarnation)) is not None:
        return stranger
    known = catalogue.nodes[descriptor.node_id]
    if known == replace(Node.of(descriptor), admitted_at_index=known.admitted_at_index):
        return None
    return internal_pb2.RegisterNode(node=descriptor)


def allocate_producer_ids(
    catalogue: Catalogue, node_id: int, incarnation: bytes
) -> internal_pb2.AllocateProducerIds | pb.Error:
    """Decide on the next block of producer ids for a node. INVALID_REQUEST for a stranger."""
    if (stranger := catalogue.refuse_stranger(node_id, incarnation)) is not None:
        return stranger
    return internal_pb2.AllocateProducerIds(node_id=node_id, incarnation=incarnation, count=PRODUCER_ID_BLOCK_SIZE)


def founding(
    nodes: Sequence[internal_pb2.NodeDescriptor], *, cluster_id: bytes, rng: random.Random, now_ms: int
) -> internal_pb2.Founding | pb.Error:
    """Decide on the founding record: `cluster_id` (empty: drawn) and the voters of `__cluster` among `nodes`.

    Voters are 1, 3 or 5, the most that the nodes allow, apart by host and rack. INVALID_REQUEST names what is wrong.
    """
    if not nodes:
        return _bad_founding("no nodes are named", "name at least one node")
    counts = Counter(node.node_id for node in nodes)
    if twice := sorted(node_id for node_id, count in counts.items() if count > 1):
        return _bad_founding(f"node {twice[0]} is named twice", "give every node a node_id of its own")
    if 0 in counts:
        return _bad_founding("a node has node_id 0", "node ids count from 1")
    for node in nodes:
        if len(node.incarnation) != ID_BYTES:
            return _bad_founding(f"node {node.node_id} names no incarnation", "found from nodes that run and wait")
    if cluster_id and len(cluster_id) != ID_BYTES:
        return _bad_founding(f"cluster id {cluster_id.hex()} is not a UUID", f"give {ID_BYTES} bytes, or none")
    voters = max(count for count in range(1, CLUSTER_VOTERS_MAX + 1, 2) if count <= len(nodes))
    candidates = [PlacementNode(node.node_id, node.host, node.rack) for node in nodes]
    return internal_pb2.Founding(
        cluster_id=cluster_id or draw_id(rng),
        nodes=sorted(nodes, key=lambda node: node.node_id),
        voters=sorted(place(candidates, 1, voters, rng)[0]),
        groups_partitions=GROUPS_PARTITIONS,
        founded_at_ms=now_ms,
    )


def found_cluster(record: internal_pb2.Founding, *, rng: random.Random) -> internal_pb2.FoundCluster:
    """Decide on the first command of `__cluster`: the founding record, and where `__groups` goes."""
    candidates = [PlacementNode(node.node_id, node.host, node.rack) for node in record.nodes]
    replicas = min(INTERNAL_REPLICAS_MAX, len(candidates))
    return internal_pb2.FoundCluster(
        founding=record,
        internal_placements=_placements(candidates, record.groups_partitions, replicas, rng),
    )


def placement_nodes(catalogue: Catalogue, unfit: Collection[int] = ()) -> list[PlacementNode]:
    """Return the nodes that may take replicas, with the replicas and preferred leaders the catalogue gives them.

    Those that are being drained are left out.
    """
    replicas: Counter[int] = Counter()
    leaders: Counter[int] = Counter()
    for name in sorted(catalogue.topics):
        for partition in catalogue.topics[name].partitions:
            replicas.update(partition.replicas)
            leaders[partition.replicas[0]] += 1
    return [
        PlacementNode(
            node.node_id,
            node.host,
            node.rack,
            replicas[node.node_id],
            leaders[node.node_id],
            fit=node.node_id not in unfit,
        )
        for node in catalogue.nodes.values()
        if node.node_id not in catalogue.draining
    ]


def draw_id(rng: random.Random) -> bytes:
    """Return a random UUID (version 4), 16 bytes."""
    return uuid.UUID(int=rng.getrandbits(128), version=4).bytes


def _placements(
    nodes: Iterable[PlacementNode], partitions: int, replicas: int, rng: random.Random
) -> list[internal_pb2.Placement]:
    return [internal_pb2.Placement(replicas=chosen) for chosen in place(nodes, partitions, replicas, rng)]


def _user_topic(catalogue: Catalogue, name: str) -> Topic | pb.Error:
    topic = catalogue.topic(name)
    if topic is None:
        return make_error(pb.UNKNOWN_TOPIC, f"topic {name!r} does not exist")
    if topic.internal:
        return make_error(
            pb.INVALID_REQUEST,
            f"topic {name!r} is internal",
            hint="internal topics belong to the cluster: they are neither altered nor deleted",
        )
    return topic


def _bad_founding(message: str, hint: str) -> pb.Error:
    return make_error(pb.INVALID_REQUEST, f"the cluster cannot be founded: {message}", hint=hint)


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"

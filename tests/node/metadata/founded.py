"""A catalogue of a founded cluster, and the ways in which the tests change it."""

import random
from typing import TypeVar

from quorumlog.node.metadata import decisions
from quorumlog.node.metadata.catalogue import Catalogue, CatalogueChange
from quorumlog.node.metadata.topics import Partition
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2

T = TypeVar("T")
NOW_MS = 1_700_000_000_000


def incarnation(node_id: int) -> bytes:
    return bytes([0xA0 + node_id]) * 16


def descriptor(node_id: int, host: str = "", rack: str = "") -> internal_pb2.NodeDescriptor:
    return internal_pb2.NodeDescriptor(
        node_id=node_id,
        incarnation=incarnation(node_id),
        client_address=f"10.0.0.{node_id}:7070",
        peer_address=f"10.0.0.{node_id}:7071",
        host=host or f"host-{node_id}",
        rack=rack,
    )


def good(result: T | pb.Error) -> T:
    """The value, where the test expects no error."""
    assert not isinstance(result, pb.Error), result
    return result


def bad(result: object) -> pb.Error:
    """The error, where the test expects one: with a message and a fix."""
    assert isinstance(result, pb.Error), result
    assert result.message
    assert result.hint
    return result


class Cluster:
    """Applies commands the way a replica does: encoded, decoded, applied."""

    def __init__(self, nodes: int = 3, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.catalogue = Catalogue()
        self.payloads: list[bytes] = []
        if nodes:
            descriptors = [descriptor(node_id) for node_id in range(1, nodes + 1)]
            record = good(decisions.founding(descriptors, cluster_id=b"", rng=self.rng, now_ms=NOW_MS))
            good(self.apply(found_cluster=decisions.found_cluster(record, rng=self.rng)))

    def apply(self, **command: object) -> CatalogueChange | pb.Error:
        payload = internal_pb2.ClusterCommand(**command).SerializeToString()  # type: ignore[arg-type]
        self.payloads.append(payload)
        return self.catalogue.apply(len(self.payloads), self.catalogue.decode(payload))

    def decide(self, **request: object) -> internal_pb2.CreateTopic | pb.Error:
        message = pb.CreateTopicRequest(**request)  # type: ignore[arg-type]
        return decisions.create_topic(self.catalogue, message, rng=self.rng, now_ms=NOW_MS)

    def create(self, name: str, **request: object) -> CatalogueChange:
        return good(self.apply(create_topic=good(self.decide(name=name, **request))))

    def delete(self, name: str) -> CatalogueChange:
        command = good(decisions.delete_topic(self.catalogue, pb.DeleteTopicRequest(name=name)))
        return good(self.apply(delete_topic=command))

    def alter(self, name: str, **change: object) -> CatalogueChange:
        request = pb.AlterTopicRequest(name=name, **change)  # type: ignore[arg-type]
        return good(self.apply(alter_topic=good(decisions.alter_topic(self.catalogue, request))))

    def wipe(self, node_id: int, anew: bytes) -> CatalogueChange | pb.Error:
        """Admit the node under another incarnation than the one the catalogue knows."""
        node = self.catalogue.nodes[node_id].descriptor()
        replaced, node.incarnation = node.incarnation, anew
        return self.apply(admit_node=internal_pb2.AdmitNode(node=node, replaced_incarnation=replaced))

    def move(self, partition: Partition, replicas: list[int]) -> CatalogueChange | pb.Error:
        """Wish the replicas of a partition on other nodes."""
        group = internal_pb2.GroupPlacement(
            group_id=partition.group_id, replicas=replicas, placement_version=partition.placement_version
        )
        return self.apply(change_placement=internal_pb2.ChangePlacement(groups=[group]))

    def report(self, partition: Partition) -> CatalogueChange:
        """Let the group's leader say that it has settled."""
        return good(self.apply(report_placement=settled(partition.group_id, partition.placement_version)))


def settled(group_id: int, placement_version: int = 0) -> internal_pb2.ReportPlacement:
    """What a leader reports of one group."""
    group = internal_pb2.SettledGroup(group_id=group_id, placement_version=placement_version)
    return internal_pb2.ReportPlacement(groups=[group])

"""From a node's answer about itself to the user's view of it."""

from collections.abc import Iterable

from quorumlog.descriptions import (
    Finding,
    MovingPartition,
    NodeStatus,
    PeerDescription,
    PlacementChange,
    ReplicaDescription,
    StorageDescription,
)
from quorumlog.proto import client_pb2 as pb


def node_status(node: pb.NodeInfo, answer: pb.StatusResponse) -> NodeStatus:
    """Return the view of `node` that its answer gives."""
    return NodeStatus(
        node_id=node.node_id,
        address=node.address,
        host=node.host,
        rack=node.rack,
        state=answer.state,
        version=answer.version,
        incarnation=answer.incarnation,
        replicas=tuple(_replica(replica) for replica in answer.replicas),
        findings=tuple(
            Finding(_severity(finding.severity), finding.subject, finding.message, finding.fix)
            for finding in answer.findings
        ),
        storage=StorageDescription(
            size_bytes=answer.storage.size_bytes,
            disk_free_bytes=answer.storage.disk_free_bytes,
            syncs=answer.storage.syncs,
            synced_bytes=answer.storage.synced_bytes,
            uptime_seconds=answer.storage.uptime_seconds,
            scrubbed_seconds_ago=(
                answer.storage.scrubbed_seconds_ago if answer.storage.HasField("scrubbed_seconds_ago") else None
            ),
            damage_found=answer.storage.damage_found,
            entries_mended=answer.storage.entries_mended,
        ),
        draining=node.draining,
    )


def _severity(severity: int) -> str:
    known = pb.Severity.DESCRIPTOR.values_by_number.get(severity)
    return str(known.name) if known is not None else f"SEVERITY_{severity}"


def _replica(replica: pb.ReplicaStatus) -> ReplicaDescription:
    return ReplicaDescription(
        group_id=replica.group_id,
        topic=replica.topic,
        partition=replica.partition,
        role=replica.role,
        leader_epoch=replica.leader_epoch,
        leader=replica.leader_node_id or None,
        commit_index=replica.commit_index,
        last_index=replica.last_index,
        first_index=replica.first_index,
        log_start_offset=replica.log_start_offset,
        high_watermark=replica.high_watermark,
        log_end_offset=replica.log_end_offset,
        size_bytes=replica.size_bytes,
        peers=tuple(PeerDescription(peer.node_id, peer.match_index, peer.state, peer.alive) for peer in replica.peers),
        counting=replica.counting,
        voters=tuple(replica.voters),
        learners=tuple(replica.learners),
        outgoing=tuple(replica.outgoing),
        wanted=tuple(replica.wanted),
        damaged_entries=replica.damaged_entries,
    )


def moving_partitions(answer: pb.StatusResponse) -> tuple[MovingPartition, ...]:
    """Return the partitions that are not yet as they shall be."""
    return tuple(
        MovingPartition(
            topic=one.topic,
            partition=one.partition,
            replicas=tuple(one.replicas),
            leaving=tuple(one.leaving),
            replicas_wanted=one.replicas_wanted,
            settled=one.settled,
        )
        for one in answer.moving
    )


def placement_changes(changes: Iterable[pb.PlacementChange]) -> tuple[PlacementChange, ...]:
    """Return the changes of a plan."""
    return tuple(PlacementChange(one.topic, one.partition, tuple(one.before), tuple(one.after)) for one in changes)

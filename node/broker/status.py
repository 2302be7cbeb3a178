"""What a node says about itself, and what it finds wrong: the matter of `cluster status` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from quorumlog.node.broker.admin import AdminPath
from quorumlog.node.broker.directory import Directory
from quorumlog.node.broker.hosting import Hosting
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.broker.produce import ProduceGate
from quorumlog.node.broker.retention import Retention
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.opened import Opened, Severity
from quorumlog.proto import client_pb2

_SEVERITIES: Final = {
    Severity.INFO: client_pb2.INFO,
    Severity.WARNING: client_pb2.WARNING,
    Severity.ERROR: client_pb2.PROBLEM,
}


def findings_of_opening(opened: Opened, subject: str) -> Iterator[client_pb2.Finding]:
    """What opening the data folder has found, as it is told to operators."""
    for finding in opened.findings:
        yield client_pb2.Finding(
            severity=_SEVERITIES[finding.severity], subject=subject, message=finding.message, fix=finding.fix
        )


class StatusPath:
    """Reads everything, changes nothing."""

    def __init__(
        self,
        *,
        opened: Opened,
        directory: Directory,
        multi: MultiRaft,
        hosting: Hosting,
        liveness: Liveness,
        retention: Retention,
        admin: AdminPath,
        gate: ProduceGate,
    ) -> None:
        self._opened = opened
        self._directory = directory
        self._multi = multi
        self._hosting = hosting
        self._liveness = liveness
        self._retention = retention
        self._admin = admin
        self._gate = gate

    def status(self) -> client_pb2.StatusResponse:
        """The state of this node as a whole."""
        catalogue = self._directory.catalogue
        response = client_pb2.StatusResponse(
            node_id=self._hosting.node_id,
            cluster_id=catalogue.cluster_id,
            incarnation=self._hosting.incarnation,
            state=self._state(),
            cluster_leader=self._directory.leader_of(CLUSTER_GROUP_ID),
        )
        response.nodes.extend(self._admin.node_info(node) for _, node in sorted(catalogue.nodes.items()))
        response.replicas.extend(self._replica(replica) for _, replica in sorted(self._multi.replicas.items()))
        response.findings.extend(self.findings())
        response.storage.size_bytes = self._opened.storage.size_bytes()
        response.storage.syncs = self._opened.storage.syncs
        return response

    def _state(self) -> str:
        if self._gate.stopping:
            return "stopping"
        if any(not replica.counting for replica in self._multi.replicas.values()):
            return "repair"
        return "member"

    def _replica(self, replica: Replica) -> client_pb2.ReplicaStatus:
        raft = replica.raft
        status = client_pb2.ReplicaStatus(
            group_id=replica.group_id,
            topic=replica.descriptor.topic,
            partition=replica.descriptor.partition,
            role="stopped" if replica.stopped is not None else raft.role.value,
            leader_epoch=raft.term,
            leader_node_id=raft.leader_id,
            commit_index=raft.commit_index,
            last_index=raft.last_index,
            first_index=raft.first_index,
            size_bytes=replica.log.size_bytes,
            counting=replica.counting,
        )
        if replica.partition is not None:
            status.log_start_offset = replica.partition.log_start_offset
            status.high_watermark = replica.high_watermark
            status.log_end_offset = replica.log_end_offset
        for member in replica.members:
            progress = raft.progress(member) if member != replica.node_id else None
            if progress is not None:
                status.peers.add(
                    node_id=member,
                    match_index=progress.match_index,
                    state=progress.state.value,
                    alive=self._liveness.is_alive(member),
                )
        return status

    def findings(self) -> Iterator[client_pb2.Finding]:
        """What is wrong, as far as this node can see, and what to do."""
        me = f"node {self._hosting.node_id}"
        yield from findings_of_opening(self._opened, me)
        if self._gate.disk_full is not None:
            yield _problem(me, self._gate.disk_full, "free disk space, or shorten the retention of topics")
        for group_id, name in sorted(self._hosting.lost.items()):
            yield _problem(
                f"{me}, group {group_id}",
                f"the replica of {name} was here and is gone from the database",
                "it follows without voting; replace the node's disk if it is failing, and keep the other replicas up",
            )
        for replica in self._multi.replicas.values():
            yield from self._replica_findings(me, replica)
        for held in self._retention.held.values():
            group = self._directory.catalogue.group(held.group_id)
            name = f"{group.topic} partition {group.partition}" if group else f"group {held.group_id}"
            yield client_pb2.Finding(
                severity=client_pb2.WARNING,
                subject=name,
                message=f"{held.size_bytes} bytes are kept although retention would drop some of them: the replica on "
                f"node {held.node_id} holds the log only up to index {held.match_index}",
                fix=f"bring node {held.node_id} back, so that it catches up",
            )
        for node_id, node in sorted(self._directory.catalogue.nodes.items()):
            if node_id != self._hosting.node_id and not self._liveness.is_alive(node_id):
                yield client_pb2.Finding(
                    severity=client_pb2.WARNING,
                    subject=f"node {node_id}",
                    message=f"not heard of by {me}; its peer address is {node.peer_address}",
                    fix="start it again, or check the network between the two",
                )

    def _replica_findings(self, me: str, replica: Replica) -> Iterator[client_pb2.Finding]:
        name = f"{replica.descriptor.topic} partition {replica.descriptor.partition}"
        if replica.stopped is not None:
            yield _problem(f"{me}, {name}", replica.stopped, "start the release that wrote the entry, or a newer one")
        if not replica.counting:
            yield _problem(
                f"{me}, {name}",
                "the replica is in repair: it has forgotten something, so it follows without voting or leading",
                "keep the other replicas up; this release cannot make it whole again",
            )
        if not replica.raft.leader_id and replica.stopped is None:
            yield _problem(
                name,
                f"{me} knows no leader: too few of the nodes {', '.join(map(str, replica.voters))} answer",
                "start the nodes that are down",
            )


def _problem(subject: str, message: str, fix: str) -> client_pb2.Finding:
    return client_pb2.Finding(severity=client_pb2.PROBLEM, subject=subject, message=message, fix=fix)

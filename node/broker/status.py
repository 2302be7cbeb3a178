"""What a node says about itself: the matter of `cluster status` and, with its findings, of `doctor`."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from quorumlog.node.broker.admin import AdminPath
from quorumlog.node.broker.directory import Directory
from quorumlog.node.broker.findings import Findings, has_forgotten
from quorumlog.node.broker.hosting import Hosting
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.broker.mending import Mending
from quorumlog.node.broker.produce import ProduceGate
from quorumlog.node.broker.scrubbing import Scrubbing
from quorumlog.node.broker.snapshots import Snapshots
from quorumlog.node.clock import Clock
from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, CLUSTER_TOPIC
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.opened import Opened
from quorumlog.proto import client_pb2


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
        admin: AdminPath,
        gate: ProduceGate,
        findings: Findings,
        snapshots: Snapshots,
        scrubbing: Scrubbing,
        mending: Mending,
        clock: Clock,
    ) -> None:
        self._opened = opened
        self._directory = directory
        self._multi = multi
        self._hosting = hosting
        self._liveness = liveness
        self._admin = admin
        self._gate = gate
        self._findings = findings
        self._snapshots = snapshots
        self._scrubbing = scrubbing
        self._mending = mending
        self._clock = clock

    def status(self, speaking: Collection[int] = ()) -> client_pb2.StatusResponse:
        """The state of this node as a whole; `speaking` as in `Findings.look`."""
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
        response.findings.extend(self._findings.look(speaking))
        response.cluster_voters.extend(catalogue.voters)
        response.moving.extend(self._cluster_moving())
        for topic, partition, wanted in reassigning.moving(catalogue):
            response.moving.add(
                topic=topic.name,
                partition=partition.partition,
                replicas=partition.replicas,
                leaving=[one.node_id for one in partition.leaving],
                replicas_wanted=wanted,
                settled=partition.settled,
                placement_version=partition.placement_version,
            )
        response.storage.size_bytes = self._opened.storage.size_bytes()
        response.storage.syncs = self._opened.storage.syncs
        if self._scrubbing.last_pass is not None:
            response.storage.scrubbed_seconds_ago = self._clock.now() - self._scrubbing.last_pass.ended_at
        response.storage.damage_found = self._scrubbing.found
        response.storage.entries_mended = self._mending.mended
        return response

    def _state(self) -> str:
        if self._gate.stopping:
            return "stopping"
        if any(has_forgotten(replica, self._opened) for replica in self._multi.replicas.values()):
            return "repair"
        cluster = self._multi.replicas.get(CLUSTER_GROUP_ID)
        if cluster is None or not cluster.counting:
            return "joining"  # admitted, and not yet acquainted with the cluster
        return "member"

    def _cluster_moving(self) -> Iterator[client_pb2.MovingPartition]:
        """The metadata group, while others vote in it than shall, or while a node that is drained shall."""
        catalogue = self._directory.catalogue
        replica = self._multi.replicas.get(CLUSTER_GROUP_ID)
        if replica is None or not replica.voters or not catalogue.voters:
            return
        voting = {*replica.configuration.voters, *replica.configuration.outgoing}
        wanted = set(catalogue.voters)
        if voting != wanted or wanted & catalogue.draining:
            yield client_pb2.MovingPartition(
                topic=CLUSTER_TOPIC,
                replicas=catalogue.voters,
                leaving=sorted(voting - wanted),
                replicas_wanted=len(wanted),
                settled=voting == wanted,
                placement_version=catalogue.voters_version,
            )

    def _wanted(self, group_id: int) -> tuple[int, ...]:
        catalogue = self._directory.catalogue
        if group_id == CLUSTER_GROUP_ID:
            return catalogue.voters
        group = catalogue.group(group_id)
        return group.replicas if group is not None else ()

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
            voters=replica.configuration.voters,
            learners=replica.configuration.learners,
            outgoing=replica.configuration.outgoing,
            wanted=self._wanted(replica.group_id),
            damaged_entries=len(replica.log.damaged),
        )
        if replica.partition is not None:
            status.log_start_offset = replica.partition.log_start_offset
            status.high_watermark = replica.high_watermark
            status.log_end_offset = replica.log_end_offset
        for member in replica.members:
            progress = raft.progress(member) if member != replica.node_id else None
            if progress is not None:
                position, size_bytes = self._snapshots.progress(replica.group_id, member) or (0, 0)
                status.peers.add(
                    node_id=member,
                    match_index=progress.match_index,
                    state=progress.state.value,
                    alive=self._liveness.is_alive(member),
                    snapshot_position=position,
                    snapshot_size_bytes=size_bytes,
                )
        return status

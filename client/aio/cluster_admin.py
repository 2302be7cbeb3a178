"""What operators do with the cluster as a whole."""

import asyncio
from collections.abc import Mapping, Sequence

from quorumlog.aio.admin import DEFAULT_TIMEOUT
from quorumlog.aio.channels import Connection
from quorumlog.aio.cluster import ATTEMPT_SECONDS, Cluster, Deadline
from quorumlog.descriptions import (
    ClusterStatus,
    MovingPartition,
    NodeDescription,
    NodeStatus,
    PlacementChange,
    Recovery,
)
from quorumlog.durations import Timeout, limit
from quorumlog.errors import InvalidRequest, NotLeader, QuorumlogError
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import TopicPartition
from quorumlog.status import moving_partitions, node_status, placement_changes


class ClusterAdmin:
    """The cluster as a whole; `client.cluster`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def status(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> ClusterStatus:
        """Ask every node how it is. A node that does not answer is in the result as unreachable."""
        deadline = Deadline(limit("timeout", timeout))

        async def metadata(connection: Connection, seconds: float) -> pb.MetadataResponse:
            return await connection.log.Metadata(pb.MetadataRequest(no_topics=True), timeout=seconds)

        async def status(connection: Connection, seconds: float) -> pb.StatusResponse:
            return await connection.admin.Status(pb.StatusRequest(), timeout=seconds)

        answer = await self._cluster.ask_anyone(metadata, deadline.left())
        leader = answer.cluster_leader.node_id if answer.HasField("cluster_leader") else None
        moving: dict[int, tuple[MovingPartition, ...]] = {}

        async def one(node: pb.NodeInfo) -> NodeStatus:
            try:
                seconds = deadline.remaining(ATTEMPT_SECONDS)
                told = await self._cluster.ask(node.address, status, seconds)
                moving[node.node_id] = moving_partitions(told)
                return node_status(node, told)
            except QuorumlogError as error:
                return NodeStatus(
                    node.node_id, node.address, node.host, node.rack, "unreachable", error=error.message or error.code
                )

        nodes = await asyncio.gather(*(one(node) for node in sorted(answer.nodes, key=lambda node: node.node_id)))
        told_by = leader if leader in moving else min(moving, default=None)
        return ClusterStatus(answer.cluster_id, leader, tuple(nodes), moving[told_by] if told_by is not None else ())

    async def moving(self, *, timeout: Timeout = DEFAULT_TIMEOUT) -> tuple[MovingPartition, ...]:
        """Return what is not yet where it shall be, as the leader of the cluster's metadata says."""

        async def call(connection: Connection, seconds: float) -> pb.StatusResponse:
            answer = await connection.admin.Status(pb.StatusRequest(), timeout=seconds)
            if answer.cluster_leader.node_id != answer.node_id:
                message = f"node {answer.node_id} does not lead the metadata group"
                raise NotLeader(message, code="NOT_LEADER", leader=answer.cluster_leader.address)
            return answer

        return moving_partitions(await self._cluster.ask_cluster_leader(call, limit("timeout", timeout)))

    async def add(
        self, address: str, *, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> NodeDescription:
        """Take a node in that waits at this peer address; returns once the cluster knows it. It is given the data of
        partitions that lack replicas; `balance` gives it its share of the others.

        Raises:
            InvalidRequest: nothing waits there, or its node id is taken.
        """
        request = pb.AddNodeRequest(address=address, validate_only=validate_only)

        async def call(connection: Connection, seconds: float) -> pb.AddNodeResponse:
            return await connection.admin.AddNode(request, timeout=seconds)

        node = (await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))).node
        return NodeDescription(node.node_id, node.address, node.host, node.rack)

    async def remove(self, node_id: int, *, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Take a node out for good. It must be drained before.

        Raises:
            InvalidRequest: it is in use, or no member.
        """
        request = pb.RemoveNodeRequest(node_id=node_id, validate_only=validate_only)

        async def call(connection: Connection, seconds: float) -> pb.RemoveNodeResponse:
            return await connection.admin.RemoveNode(request, timeout=seconds)

        await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))

    async def drain(
        self, node_id: int, *, end: bool = False, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> tuple[PlacementChange, ...]:
        """Move everything off a node, and place nothing on it until the drain is ended. Returns what will move, at
        once: see `moving` for how far it is.

        Args:
            node_id: which one.
            end: end a drain: it may be placed on again.
            validate_only: say what would move, and do nothing.
            timeout: for the answer.

        Raises:
            InvalidRequest: no other nodes have room, or it is no member.
        """
        request = pb.DrainNodeRequest(node_id=node_id, end=end, validate_only=validate_only)

        async def call(connection: Connection, seconds: float) -> pb.DrainNodeResponse:
            return await connection.admin.DrainNode(request, timeout=seconds)

        answer = await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))
        return placement_changes(answer.changes)

    async def reassign(
        self,
        placements: Mapping[TopicPartition, Sequence[int]],
        *,
        validate_only: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> tuple[PlacementChange, ...]:
        """Move partitions to these nodes (the preferred leader first), all or none. As many replicas are wanted from
        then on. Returns what will move, at once: see `moving` for how far it is.

        Raises:
            InvalidRequest: a node, topic or partition is not there, or takes nothing; the message names it.
        """
        if not placements:
            raise InvalidRequest("no partition is named", hint="name some, or use balance to even everything out")
        request = pb.ReassignRequest(
            placements=[
                pb.PartitionPlacement(topic=one.topic, partition=one.partition, replicas=replicas)
                for one, replicas in placements.items()
            ],
            validate_only=validate_only,
        )
        return await self._reassign(request, timeout)

    async def balance(
        self, *, partitions_max: int | None = None, validate_only: bool = False, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> tuple[PlacementChange, ...]:
        """Even replicas and preferred leaders out over the nodes, with as few moves as possible. Returns what will
        move, at once: see `moving` for how far it is.

        Args:
            partitions_max: begin with so many; ask again when they have moved. None: all at once.
            validate_only: say what would move, and do nothing.
            timeout: for the answer.
        """
        if partitions_max is not None and partitions_max < 1:
            raise InvalidRequest(f"partitions_max={partitions_max} is not possible", hint="give a number of at least 1")
        return await self._reassign(
            pb.ReassignRequest(validate_only=validate_only, groups_max=partitions_max or 0), timeout
        )

    async def _reassign(self, request: pb.ReassignRequest, timeout: Timeout) -> tuple[PlacementChange, ...]:
        async def call(connection: Connection, seconds: float) -> pb.ReassignResponse:
            return await connection.admin.Reassign(request, timeout=seconds)

        answer = await self._cluster.ask_cluster_leader(call, limit("timeout", timeout))
        return placement_changes(answer.changes)

    async def init(
        self, nodes: Mapping[int, str], *, cluster_id: bytes = b"", timeout: Timeout = DEFAULT_TIMEOUT
    ) -> bytes:
        """Found a cluster, once, from nodes that wait, and return its id.

        Args:
            nodes: node id to peer address. The node at the first bootstrap address is asked, and must be among them.
            cluster_id: 16 bytes; empty: drawn.
            timeout: for all of it.

        Raises:
            Fatal: code ALREADY_FOUNDED where that has happened before.
        """
        if not nodes:
            raise InvalidRequest("no nodes to found a cluster from", hint="name each by its id and peer address")
        request = pb.InitClusterRequest(
            nodes=[pb.FoundingNode(node_id=number, address=address) for number, address in nodes.items()],
            cluster_id=cluster_id,
        )

        async def call(connection: Connection, seconds: float) -> pb.InitClusterResponse:
            return await connection.admin.InitCluster(request, timeout=seconds)

        seconds = limit("timeout", timeout)
        answer = await self._cluster.ask(self._cluster.bootstrap[0], call, 3600.0 if seconds is None else seconds)
        return answer.cluster_id

    async def recover(
        self,
        topic: str,
        partition: int,
        *,
        from_node: int | None = None,
        accept_loss: bool = False,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Recovery:
        """Let a partition go on from what one replica has, because a majority of its replicas is gone for good or has
        forgotten what it promised. Without `accept_loss` nothing is done: the answer says what may be gone.

        Args:
            topic: an internal one as well.
            partition: the number.
            from_node: whose replica it goes on from; None: one that remembers everything, and most, of those that
                answer.
            accept_loss: do it.
            timeout: for all of it.

        Raises:
            InvalidRequest: the partition has a leader, or no replica of it answers.
        """
        deadline = Deadline(limit("timeout", timeout))
        nodes = (await self.status(timeout=deadline.left())).nodes
        held = {
            node: replica
            for node in nodes
            for replica in node.replicas
            if (replica.topic, replica.partition) == (topic, partition) and from_node in (None, node.node_id)
        }
        if not held:
            who = "no node that answers" if from_node is None else f"node {from_node}"
            raise InvalidRequest(
                f"{who} has a replica of {topic}[{partition}]",
                hint="quorumlog cluster status says which nodes are there",
            )
        best = max(held, key=lambda node: (held[node].counting, held[node].leader_epoch, held[node].last_index))
        request = pb.RecoverRequest(topic=topic, partition=partition, accept_loss=accept_loss)

        async def call(connection: Connection, seconds: float) -> pb.RecoverResponse:
            return await connection.admin.Recover(request, timeout=seconds)

        answer = await self._cluster.ask(best.address, call, deadline.remaining(ATTEMPT_SECONDS))
        return Recovery(topic, partition, answer.from_node_id, answer.last_index, answer.first_offset_in_doubt)

    async def transfer(
        self, topic: str, partition: int, to_node_id: int, *, timeout: Timeout = DEFAULT_TIMEOUT
    ) -> None:
        """Let another replica lead a partition; returns once it does.

        Raises:
            QuorumlogError: it did not take over within `timeout`; the message says who leads.
        """
        deadline = Deadline(limit("timeout", timeout))
        await self._cluster.topic(topic, deadline.left())
        request = pb.TransferLeadershipRequest(topic=topic, partition=partition, to_node_id=to_node_id)

        async def call(connection: Connection, seconds: float) -> pb.TransferLeadershipResponse:
            return await connection.admin.TransferLeadership(request, timeout=seconds)

        await self._cluster.ask_partition_leader(topic, partition, call, deadline.left())

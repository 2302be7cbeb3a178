"""Cluster, topics and status on gRPC."""

from __future__ import annotations

from quorumlog.node.rpc.answers import Context, fail, unknown_fields
from quorumlog.node.rpc.service import ClientService
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import AdminServicer


class AdminService(ClientService, AdminServicer):
    """Cluster, topics, status."""

    async def InitCluster(  # noqa: N802 # the name in the contract
        self, request: client_pb2.InitClusterRequest, context: Context
    ) -> client_pb2.InitClusterResponse:
        """Found a cluster."""
        strange = unknown_fields(request)
        if strange is not None:
            await fail(context, strange)
        return await self.checked(await self.host.init_cluster(request), context)

    async def CreateTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.CreateTopicRequest, context: Context
    ) -> client_pb2.CreateTopicResponse:
        """A new topic."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.create_topic(request, reply))

    async def AlterTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.AlterTopicRequest, context: Context
    ) -> client_pb2.AlterTopicResponse:
        """New configs."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.alter_topic(request, reply))

    async def DeleteTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DeleteTopicRequest, context: Context
    ) -> client_pb2.DeleteTopicResponse:
        """The end of a topic."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.delete_topic(request, reply))

    async def DescribeTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DescribeTopicRequest, context: Context
    ) -> client_pb2.DescribeTopicResponse:
        """A topic with all its configs."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.describe_topic(request, reply))

    async def Status(  # noqa: N802 # the name in the contract
        self, request: client_pb2.StatusRequest, context: Context
    ) -> client_pb2.StatusResponse:
        """What this node sees."""
        return self.host.status()

    async def TransferLeadership(  # noqa: N802 # the name in the contract
        self, request: client_pb2.TransferLeadershipRequest, context: Context
    ) -> client_pb2.TransferLeadershipResponse:
        """Move a partition's leadership."""
        return await self.unary(request, context, lambda broker, reply: broker.transfers.transfer(request, reply))

    async def Recover(  # noqa: N802 # the name in the contract
        self, request: client_pb2.RecoverRequest, context: Context
    ) -> client_pb2.RecoverResponse:
        """Let a group go on from the replica here."""
        return await self.unary(request, context, lambda broker, reply: broker.recovery.recover(request, reply))

    async def AddNode(  # noqa: N802 # the name in the contract
        self, request: client_pb2.AddNodeRequest, context: Context
    ) -> client_pb2.AddNodeResponse:
        """Take a node in."""
        await self.broker(context)
        strange = unknown_fields(request)
        if strange is not None:
            await fail(context, strange)
        return await self.checked(await self.host.add_node(request), context)

    async def RemoveNode(  # noqa: N802 # the name in the contract
        self, request: client_pb2.RemoveNodeRequest, context: Context
    ) -> client_pb2.RemoveNodeResponse:
        """Take a node out."""
        return await self.unary(request, context, lambda broker, reply: broker.members.remove_node(request, reply))

    async def DrainNode(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DrainNodeRequest, context: Context
    ) -> client_pb2.DrainNodeResponse:
        """Empty a node, or place on it again."""
        return await self.unary(request, context, lambda broker, reply: broker.members.drain_node(request, reply))

    async def Reassign(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ReassignRequest, context: Context
    ) -> client_pb2.ReassignResponse:
        """Move partitions."""
        return await self.unary(request, context, lambda broker, reply: broker.members.reassign(request, reply))

"""Consumer groups on gRPC."""

from __future__ import annotations

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.groups import MemberStream
from quorumlog.node.rpc.answers import Context, unknown_fields
from quorumlog.node.rpc.service import STREAM_QUEUE_MAX, ClientService, Outgoing, read_and_write
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import GroupsServicer


class GroupsService(ClientService, GroupsServicer):
    """Consumer groups."""

    async def FindCoordinator(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FindCoordinatorRequest, context: Context
    ) -> client_pb2.FindCoordinatorResponse:
        """Who coordinates a group."""
        return await self.unary(request, context, lambda broker, reply: reply(broker.groups.find_coordinator(request)))

    async def GroupSession(  # type: ignore[override]  # noqa: N802 # as above
        self, request_iterator: object, context: Context
    ) -> None:
        """A member's life."""
        broker = await self.broker(context)
        outgoing = Outgoing()
        session = MemberStream(outgoing.put, outgoing.close)
        try:
            await read_and_write(self._read_member(broker, session, context, outgoing), _write_each(context, outgoing))
        finally:
            broker.groups.on_session_closed(session)
            self.host.wake()

    async def _read_member(self, broker: Broker, session: MemberStream, context: Context, outgoing: Outgoing) -> None:
        while True:
            request = await context.read()
            if not isinstance(request, client_pb2.GroupRequest):
                outgoing.close()
                return
            strange = unknown_fields(request)
            if strange is not None:
                outgoing.put(client_pb2.GroupResponse(error=strange))
                outgoing.close()
                return
            broker.groups.on_request(session, request)
            self.host.wake()
            while len(outgoing) > STREAM_QUEUE_MAX:
                await outgoing.changed()

    async def CommitOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.CommitOffsetsRequest, context: Context
    ) -> client_pb2.CommitOffsetsResponse:
        """Commit without membership."""
        return await self.unary(request, context, lambda broker, reply: broker.groups.commit_offsets(request, reply))

    async def FetchOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FetchOffsetsRequest, context: Context
    ) -> client_pb2.FetchOffsetsResponse:
        """Committed offsets."""
        return await self.unary(request, context, lambda broker, reply: broker.groups.fetch_offsets(request, reply))

    async def ListGroups(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ListGroupsRequest, context: Context
    ) -> client_pb2.ListGroupsResponse:
        """The groups coordinated here."""
        return await self.unary(request, context, lambda broker, reply: broker.groups.list_groups(reply))

    async def DescribeGroup(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DescribeGroupRequest, context: Context
    ) -> client_pb2.DescribeGroupResponse:
        """One group."""
        return await self.unary(request, context, lambda broker, reply: broker.groups.describe_group(request, reply))

    async def DeleteGroup(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DeleteGroupRequest, context: Context
    ) -> client_pb2.DeleteGroupResponse:
        """Delete a group without members."""
        return await self.unary(request, context, lambda broker, reply: broker.groups.delete_group(request, reply))


async def _write_each(context: Context, outgoing: Outgoing) -> None:
    while messages := await outgoing.take(1):
        await context.write(messages[0])

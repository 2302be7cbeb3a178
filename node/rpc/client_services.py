"""The client contract on gRPC. Every answer comes from the broker; here is only the carrying."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.groups import MemberStream
from quorumlog.node.broker.subscribe import Subscription
from quorumlog.node.rpc.answers import Context, fail, unknown_fields, unknown_produce_fields
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import AdminServicer, GroupsServicer, LogServicer
from quorumlog.proto.errors import make_error

log = logging.getLogger(__name__)

PROTOCOL_VERSION: Final = 1
PRODUCE_IN_FLIGHT_MAX: Final = 4096
"""Batches of one stream without their result yet; beyond it the stream is not read, and gRPC holds the client back."""

STREAM_QUEUE_MAX: Final = 4096
"""Answers of one stream waiting to be written; beyond it the stream is not read."""

ResponseT = TypeVar("ResponseT", bound=Message)


class ClientHost(Protocol):
    """What the services need of the node."""

    node_id: int
    version: str

    @property
    def broker(self) -> Broker | None:
        """None while the node waits to be founded."""

    def wake(self) -> None:
        """Have the broker pumped soon."""

    async def init_cluster(self, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
        """Found a cluster."""

    def status(self) -> client_pb2.StatusResponse:
        """The state of the node, founded or not."""


class _Service:
    """What the three services share."""

    def __init__(self, host: ClientHost) -> None:
        self._host = host

    async def _broker(self, context: Context) -> Broker:
        broker = self._host.broker
        if broker is None:
            error = make_error(client_pb2.NOT_FOUNDED, f"node {self._host.node_id} belongs to no cluster yet: it waits")
            await fail(context, error)
        return broker

    async def _unary(
        self, request: Message, context: Context, ask: Callable[[Broker, Callable[[ResponseT], None]], Any]
    ) -> ResponseT:
        """Ask the broker and wait for its answer; an error of the whole call becomes its status."""
        broker = await self._broker(context)
        strange = unknown_fields(request)
        if strange is not None:
            await fail(context, strange)
        answer: asyncio.Future[ResponseT] = asyncio.get_running_loop().create_future()

        def reply(response: ResponseT) -> None:
            if not answer.done():
                answer.set_result(response)

        try:
            give_up = ask(broker, reply)
        except Exception:
            name = type(request).__name__
            log.exception("a %s brought out a bug", name)
            await fail(context, make_error(client_pb2.UNKNOWN, f"node {self._host.node_id} failed at a {name}"))
        self._host.wake()
        try:
            response = await answer
        except asyncio.CancelledError:
            if callable(give_up):
                give_up()
            raise
        return await self._checked(response, context)

    async def _checked(self, response: ResponseT, context: Context) -> ResponseT:
        names = response.DESCRIPTOR.fields_by_name
        if "error" in names and response.HasField("error"):
            await fail(context, response.error)  # type: ignore[attr-defined]  # looked up by its descriptor
        return response


class _Outgoing:
    """Answers of a stream, written in order by one task; several may be gathered into one message by `take`."""

    def __init__(self) -> None:
        self._queue: deque[Any] = deque()
        self._filled = asyncio.Event()
        self._changed = asyncio.Event()
        self.closing = False

    def put(self, item: object) -> None:
        if not self._queue:
            self._filled.set()
        self._queue.append(item)
        self._changed.set()

    def close(self) -> None:
        self.closing = True
        self._filled.set()

    def __len__(self) -> int:
        return len(self._queue)

    async def take(self, count_max: int) -> list[Any]:
        """Wait for something; everything there is, up to `count_max`. Empty once closed and drained."""
        while not self._queue and not self.closing:
            self._filled.clear()
            await self._filled.wait()
        self._changed.set()
        return [self._queue.popleft() for _ in range(min(len(self._queue), count_max))]

    async def changed(self) -> None:
        """Wait until something is put or taken; for whoever reads no further while too much waits here."""
        self._changed.clear()
        await self._changed.wait()


class LogService(_Service, LogServicer):
    """Produce, fetch, offsets, metadata."""

    async def Hello(  # noqa: N802 # the name in the contract
        self, request: client_pb2.HelloRequest, context: Context
    ) -> client_pb2.HelloResponse:
        """Versions and cluster."""
        broker = await self._broker(context)
        if request.protocol_version > PROTOCOL_VERSION or request.protocol_version == 0:
            message = f"protocol version {request.protocol_version} is not spoken here, version {PROTOCOL_VERSION} is"
            await fail(context, make_error(client_pb2.UNSUPPORTED_VERSION, message))
        cluster_id = broker.founding.cluster_id
        if request.cluster_id and request.cluster_id != cluster_id:
            message = f"node {self._host.node_id} belongs to cluster {cluster_id.hex()}, not {request.cluster_id.hex()}"
            await fail(context, make_error(client_pb2.WRONG_CLUSTER, message))
        return client_pb2.HelloResponse(
            protocol_version=PROTOCOL_VERSION,
            cluster_id=cluster_id,
            node_id=self._host.node_id,
            version=self._host.version,
        )

    async def Metadata(  # noqa: N802 # the name in the contract
        self, request: client_pb2.MetadataRequest, context: Context
    ) -> client_pb2.MetadataResponse:
        """Topics and leaders."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.metadata(request, reply))

    # Streams are read and written through the context, for which the generated base class has no type.
    async def Produce(  # type: ignore[override]  # noqa: N802 # the name in the contract
        self, request_iterator: object, context: Context
    ) -> None:
        """Requests in, results out, neither waiting for the other."""
        broker = await self._broker(context)
        outgoing = _Outgoing()
        writer = asyncio.create_task(_write_results(context, outgoing))
        in_flight = 0

        def on_result(result: client_pb2.ProduceResult) -> None:
            nonlocal in_flight
            in_flight -= 1
            outgoing.put(result)

        try:
            while True:
                request = await context.read()
                if not isinstance(request, client_pb2.ProduceRequest):
                    break
                in_flight += len(request.batches)
                strange = unknown_produce_fields(request)
                if strange is None:
                    broker.producing.produce(request, on_result)
                else:
                    for position in range(len(request.batches)):
                        on_result(
                            client_pb2.ProduceResult(
                                correlation_id=request.correlation_id, batch=position, error=strange
                            )
                        )
                self._host.wake()
                while in_flight > PRODUCE_IN_FLIGHT_MAX or len(outgoing) > STREAM_QUEUE_MAX:
                    await outgoing.changed()
            while in_flight:
                await outgoing.changed()
            outgoing.close()
            await writer
        finally:
            writer.cancel()

    async def ProduceOnce(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ProduceRequest, context: Context
    ) -> client_pb2.ProduceResponse:
        """The unary twin."""

        def ask(broker: Broker, reply: Callable[[client_pb2.ProduceResponse], None]) -> None:
            response = client_pb2.ProduceResponse()
            if not request.batches:
                reply(response)

            def on_result(result: client_pb2.ProduceResult) -> None:
                response.results.append(result)
                if len(response.results) == len(request.batches):
                    response.results.sort(key=lambda one: one.batch)
                    reply(response)

            broker.producing.produce(request, on_result)

        return await self._unary(request, context, ask)

    async def Fetch(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FetchRequest, context: Context
    ) -> client_pb2.FetchResponse:
        """Long poll."""
        return await self._unary(request, context, lambda broker, reply: broker.fetching.fetch(request, reply))

    async def Subscribe(  # type: ignore[override]  # noqa: N802 # as above
        self, request_iterator: object, context: Context
    ) -> None:
        """A stream of records under byte credit."""
        broker = await self._broker(context)
        outgoing = _Outgoing()
        first = await context.read()
        if not isinstance(first, client_pb2.SubscribeRequest):
            return
        strange = unknown_fields(first)
        if strange is not None:
            await context.write(client_pb2.FetchResponse(error=strange))
            return
        subscription = broker.subscribing.open(first, outgoing.put)
        self._host.wake()
        writer = asyncio.create_task(self._write_pushed(context, outgoing, subscription))
        try:
            while subscription is not None:
                request = await context.read()
                if not isinstance(request, client_pb2.SubscribeRequest):
                    break
                strange = unknown_fields(request)
                if strange is not None:
                    outgoing.put(client_pb2.FetchResponse(error=strange))
                    break
                if not broker.subscribing.on_request(subscription, request, outgoing.put):
                    break
                self._host.wake()
            outgoing.close()
            await writer
        finally:
            writer.cancel()
            if subscription is not None:
                broker.subscribing.close(subscription)

    async def _write_pushed(self, context: Context, outgoing: _Outgoing, subscription: Subscription | None) -> None:
        while responses := await outgoing.take(1):
            await context.write(responses[0])
            if subscription is not None:
                subscription.on_written(responses[0])
                self._host.wake()

    async def ListOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ListOffsetsRequest, context: Context
    ) -> client_pb2.ListOffsetsResponse:
        """Earliest, latest, by time."""
        return await self._unary(request, context, lambda broker, reply: broker.offsets.list_offsets(request, reply))

    async def InitProducer(  # noqa: N802 # the name in the contract
        self, request: client_pb2.InitProducerRequest, context: Context
    ) -> client_pb2.InitProducerResponse:
        """A producer id."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.init_producer(reply))


class GroupsService(_Service, GroupsServicer):
    """Consumer groups."""

    async def FindCoordinator(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FindCoordinatorRequest, context: Context
    ) -> client_pb2.FindCoordinatorResponse:
        """Who coordinates a group."""
        return await self._unary(request, context, lambda broker, reply: reply(broker.groups.find_coordinator(request)))

    async def GroupSession(  # type: ignore[override]  # noqa: N802 # as above
        self, request_iterator: object, context: Context
    ) -> None:
        """A member's life."""
        broker = await self._broker(context)
        outgoing = _Outgoing()
        session = MemberStream(outgoing.put, outgoing.close)
        reader = asyncio.create_task(self._read_member(broker, session, context, outgoing))
        try:
            await _write_each(context, outgoing)
        finally:
            reader.cancel()
            broker.groups.on_session_closed(session)
            self._host.wake()

    async def _read_member(self, broker: Broker, session: MemberStream, context: Context, outgoing: _Outgoing) -> None:
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
            self._host.wake()
            while len(outgoing) > STREAM_QUEUE_MAX:
                await outgoing.changed()

    async def CommitOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.CommitOffsetsRequest, context: Context
    ) -> client_pb2.CommitOffsetsResponse:
        """Commit without membership."""
        return await self._unary(request, context, lambda broker, reply: broker.groups.commit_offsets(request, reply))

    async def FetchOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FetchOffsetsRequest, context: Context
    ) -> client_pb2.FetchOffsetsResponse:
        """Committed offsets."""
        return await self._unary(request, context, lambda broker, reply: broker.groups.fetch_offsets(request, reply))

    async def ListGroups(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ListGroupsRequest, context: Context
    ) -> client_pb2.ListGroupsResponse:
        """The groups coordinated here."""
        return await self._unary(request, context, lambda broker, reply: broker.groups.list_groups(reply))

    async def DescribeGroup(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DescribeGroupRequest, context: Context
    ) -> client_pb2.DescribeGroupResponse:
        """One group."""
        return await self._unary(request, context, lambda broker, reply: broker.groups.describe_group(request, reply))

    async def DeleteGroup(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DeleteGroupRequest, context: Context
    ) -> client_pb2.DeleteGroupResponse:
        """Delete a group without members."""
        return await self._unary(request, context, lambda broker, reply: broker.groups.delete_group(request, reply))


class AdminService(_Service, AdminServicer):
    """Cluster, topics, status."""

    async def InitCluster(  # noqa: N802 # the name in the contract
        self, request: client_pb2.InitClusterRequest, context: Context
    ) -> client_pb2.InitClusterResponse:
        """Found a cluster."""
        strange = unknown_fields(request)
        if strange is not None:
            await fail(context, strange)
        return await self._checked(await self._host.init_cluster(request), context)

    async def CreateTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.CreateTopicRequest, context: Context
    ) -> client_pb2.CreateTopicResponse:
        """A new topic."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.create_topic(request, reply))

    async def AlterTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.AlterTopicRequest, context: Context
    ) -> client_pb2.AlterTopicResponse:
        """New configs."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.alter_topic(request, reply))

    async def DeleteTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DeleteTopicRequest, context: Context
    ) -> client_pb2.DeleteTopicResponse:
        """The end of a topic."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.delete_topic(request, reply))

    async def DescribeTopic(  # noqa: N802 # the name in the contract
        self, request: client_pb2.DescribeTopicRequest, context: Context
    ) -> client_pb2.DescribeTopicResponse:
        """A topic with all its configs."""
        return await self._unary(request, context, lambda broker, reply: broker.admin.describe_topic(request, reply))

    async def Status(  # noqa: N802 # the name in the contract
        self, request: client_pb2.StatusRequest, context: Context
    ) -> client_pb2.StatusResponse:
        """What this node sees."""
        return self._host.status()

    async def TransferLeadership(  # noqa: N802 # the name in the contract
        self, request: client_pb2.TransferLeadershipRequest, context: Context
    ) -> client_pb2.TransferLeadershipResponse:
        """Move a partition's leadership."""
        return await self._unary(
            request, context, lambda broker, reply: broker.admin.transfer_leadership(request, reply)
        )


async def _write_results(context: Context, outgoing: _Outgoing) -> None:
    while results := await outgoing.take(1024):
        await context.write(client_pb2.ProduceResponse(results=results))


async def _write_each(context: Context, outgoing: _Outgoing) -> None:
    while messages := await outgoing.take(1):
        await context.write(messages[0])

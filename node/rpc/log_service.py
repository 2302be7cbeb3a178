"""Produce, fetch, offsets and metadata on gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.subscribe import Subscription
from quorumlog.node.rpc.answers import Context, fail, unknown_fields, unknown_produce_fields
from quorumlog.node.rpc.service import STREAM_QUEUE_MAX, ClientService, Outgoing, read_and_write
from quorumlog.proto import client_pb2
from quorumlog.proto.client_pb2_grpc import LogServicer
from quorumlog.proto.errors import make_error

PROTOCOL_VERSION: Final = 1
PRODUCE_IN_FLIGHT_MAX: Final = 4096
"""Batches of one stream without their result yet; beyond it the stream is not read, and gRPC holds the client back."""


class LogService(ClientService, LogServicer):
    """Produce, fetch, offsets, metadata."""

    async def Hello(  # noqa: N802 # the name in the contract
        self, request: client_pb2.HelloRequest, context: Context
    ) -> client_pb2.HelloResponse:
        """Versions and cluster."""
        broker = await self.broker(context)
        if request.protocol_version > PROTOCOL_VERSION or request.protocol_version == 0:
            message = f"protocol version {request.protocol_version} is not spoken here, version {PROTOCOL_VERSION} is"
            await fail(context, make_error(client_pb2.UNSUPPORTED_VERSION, message))
        cluster_id = broker.founding.cluster_id
        if request.cluster_id and request.cluster_id != cluster_id:
            message = f"node {self.host.node_id} belongs to cluster {cluster_id.hex()}, not {request.cluster_id.hex()}"
            await fail(context, make_error(client_pb2.WRONG_CLUSTER, message))
        return client_pb2.HelloResponse(
            protocol_version=PROTOCOL_VERSION,
            cluster_id=cluster_id,
            node_id=self.host.node_id,
            version=self.host.version,
        )

    async def Metadata(  # noqa: N802 # the name in the contract
        self, request: client_pb2.MetadataRequest, context: Context
    ) -> client_pb2.MetadataResponse:
        """Topics and leaders."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.metadata(request, reply))

    # Streams are read and written through the context, for which the generated base class has no type.
    async def Produce(  # type: ignore[override]  # noqa: N802 # the name in the contract
        self, request_iterator: object, context: Context
    ) -> None:
        """Requests in, results out, neither waiting for the other."""
        broker = await self.broker(context)
        outgoing = Outgoing()
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
                self.host.wake()
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

        return await self.unary(request, context, ask)

    async def Fetch(  # noqa: N802 # the name in the contract
        self, request: client_pb2.FetchRequest, context: Context
    ) -> client_pb2.FetchResponse:
        """Long poll."""
        return await self.unary(request, context, lambda broker, reply: broker.fetching.fetch(request, reply))

    async def Subscribe(  # type: ignore[override]  # noqa: N802 # as above
        self, request_iterator: object, context: Context
    ) -> None:
        """A stream of records under byte credit."""
        broker = await self.broker(context)
        outgoing = Outgoing()
        first = await context.read()
        if not isinstance(first, client_pb2.SubscribeRequest):
            return
        strange = unknown_fields(first)
        if strange is not None:
            await context.write(client_pb2.FetchResponse(error=strange))
            return
        subscription = broker.subscribing.open(first, outgoing.put)
        self.host.wake()
        try:
            await read_and_write(
                self._read_changes(broker, subscription, context, outgoing),
                self._write_pushed(context, outgoing, subscription),
            )
        finally:
            if subscription is not None:
                broker.subscribing.close(subscription)

    async def _read_changes(
        self, broker: Broker, subscription: Subscription | None, context: Context, outgoing: Outgoing
    ) -> None:
        while subscription is not None:
            # Credit holds back records only; what fails is answered without any.
            while len(outgoing) > STREAM_QUEUE_MAX:
                await outgoing.changed()
            request = await context.read()
            if not isinstance(request, client_pb2.SubscribeRequest):
                break
            strange = unknown_fields(request)
            if strange is not None:
                broker.subscribing.close(subscription)
                outgoing.put(client_pb2.FetchResponse(error=strange))
                break
            if not broker.subscribing.on_request(subscription, request, outgoing.put):
                break
            self.host.wake()
        outgoing.close()

    async def _write_pushed(self, context: Context, outgoing: Outgoing, subscription: Subscription | None) -> None:
        while responses := await outgoing.take(1):
            await context.write(responses[0])
            if subscription is not None:
                subscription.on_written(responses[0])
                self.host.wake()

    async def ListOffsets(  # noqa: N802 # the name in the contract
        self, request: client_pb2.ListOffsetsRequest, context: Context
    ) -> client_pb2.ListOffsetsResponse:
        """Earliest, latest, by time."""
        return await self.unary(request, context, lambda broker, reply: broker.offsets.list_offsets(request, reply))

    async def InitProducer(  # noqa: N802 # the name in the contract
        self, request: client_pb2.InitProducerRequest, context: Context
    ) -> client_pb2.InitProducerResponse:
        """A producer id."""
        return await self.unary(request, context, lambda broker, reply: broker.admin.init_producer(reply))


async def _write_results(context: Context, outgoing: Outgoing) -> None:
    while results := await outgoing.take(1024):
        await context.write(client_pb2.ProduceResponse(results=results))

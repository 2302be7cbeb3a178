"""A test double at the network border: two gRPC nodes in one process over the model log.

It has just enough of the contract for the client; what real nodes do is tested with real nodes.
"""

# ruff: noqa: N802 - the names of calls are the contract's

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import grpc

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import client_pb2_grpc as pb_grpc
from quorumlog.proto.errors import make_error
from tests.client.model_log import ModelPartition, columns_of

CLUSTER_ID = b"c" * 16


class FakeGroup:
    """Members, who owns what, and committed offsets. A partition moves only after its owner has released it."""

    def __init__(self) -> None:
        self.members: dict[str, asyncio.Queue[pb.GroupResponse]] = {}
        self.owner: dict[tuple[str, int], str] = {}
        self.releasing: set[tuple[str, int]] = set()
        self.committed: dict[tuple[str, int], tuple[int, int | None]] = {}
        self.epoch = 0
        self.joins = 0
        self.commits: list[tuple[str, int, int]] = []


class FakeCluster:
    """Two nodes on free ports of this machine, in a thread of their own; a context manager."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.addresses: list[str] = []
        self.topics: dict[str, list[ModelPartition]] = {}
        self.groups: dict[str, FakeGroup] = {}
        self.producers = 0
        self.hold_acks: asyncio.Event | None = None
        self.hold_node = ""
        self.hold_topics: asyncio.Event | None = None
        self.break_streams = 0
        self.refuse: Callable[[pb.PartitionBatch], pb.Error | None] = lambda batch: None
        self.limits: dict[str, int] = {}
        self.behind = ""
        self.questions = 0
        self.refuse_changes: pb.Error | None = None
        self.requests: list[list[int]] = []
        self.pongs = 0
        self.call_log: list[str] = []
        self.news = asyncio.Event()
        self._servers: list[grpc.aio.Server] = []

    @property
    def bootstrap(self) -> str:
        return ",".join(self.addresses)

    def __enter__(self) -> Self:
        self.thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    async def _start(self) -> None:
        for _ in range(2):
            server = grpc.aio.server()
            node = FakeNode(self)  # type: ignore[abstract] # calls that are not tested are not there
            pb_grpc.add_LogServicer_to_server(node, server)
            pb_grpc.add_GroupsServicer_to_server(node, server)
            pb_grpc.add_AdminServicer_to_server(node, server)
            node.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            self.addresses.append(node.address)
            await server.start()
            self._servers.append(server)

    async def _stop(self) -> None:
        for held in (self.hold_acks, self.hold_topics):
            if held is not None:
                held.set()
        await asyncio.gather(*(server.stop(None) for server in self._servers))

    def create(self, name: str, partitions: int) -> list[ModelPartition]:
        self.topics[name] = [
            ModelPartition(name, name.encode().ljust(16, b"0"), n, self.addresses[n % 2], leader_id=n % 2 + 1)
            for n in range(partitions)
        ]
        return self.topics[name]

    def recreate(self, topic: str, group: str) -> None:
        """Delete a topic and create it again, and let the group's members hear of it."""

        def recreate() -> None:
            self.topics[topic] = [
                ModelPartition(topic, b"again".ljust(16, b"0"), old.number, old.leader, leader_id=old.leader_id)
                for old in self.topics[topic]
            ]
            self.groups[group].committed.clear()
            self.rebalance(self.groups[group], sorted(self.topics))

        self.loop.call_soon_threadsafe(recreate)

    def wake(self) -> None:
        """Let long polls look again."""

        def wake() -> None:
            self.news.set()
            self.news = asyncio.Event()

        self.loop.call_soon_threadsafe(wake)

    def values(self, topic: str) -> list[bytes]:
        return [value for partition in self.topics[topic] for value in partition.values()]

    def ping(self, group: str) -> None:
        """Ping every member of a group."""

        def ping() -> None:
            for queue in self.groups[group].members.values():
                queue.put_nowait(pb.GroupResponse(ping=42))

        self.loop.call_soon_threadsafe(ping)

    # -- groups

    def rebalance(self, group: FakeGroup, topics: list[str]) -> None:
        group.epoch += 1
        members = sorted(group.members)
        wanted: dict[tuple[str, int], str] = {}
        everything = [(topic, p.number) for topic in topics for p in self.topics[topic]]
        for index, tp in enumerate(everything):
            if members:
                wanted[tp] = members[index % len(members)]
        for tp, owner in list(group.owner.items()):
            if owner not in group.members:
                del group.owner[tp]
                group.releasing.discard(tp)
            elif wanted.get(tp) != owner:
                group.releasing.add(tp)
        for tp, member in wanted.items():
            group.owner.setdefault(tp, member)
        for member, queue in group.members.items():
            mine = [tp for tp, owner in group.owner.items() if owner == member]
            queue.put_nowait(
                pb.GroupResponse(
                    assignment=pb.GroupAssignment(
                        group_epoch=group.epoch,
                        member_epoch=group.epoch,
                        assigned=[self._position(group, tp) for tp in mine if tp not in group.releasing],
                        revoked=[self._tp(tp) for tp in mine if tp in group.releasing],
                    )
                )
            )

    def _tp(self, tp: tuple[str, int]) -> pb.TopicPartition:
        return pb.TopicPartition(topic_id=self.topics[tp[0]][0].topic_id, topic=tp[0], partition=tp[1])

    def _position(self, group: FakeGroup, tp: tuple[str, int]) -> pb.OffsetAndEpoch:
        offset, epoch = group.committed.get(tp, (-1, None))
        return pb.OffsetAndEpoch(partition=self._tp(tp), offset=offset, leader_epoch=epoch)


class FakeNode(pb_grpc.LogServicer, pb_grpc.GroupsServicer, pb_grpc.AdminServicer):
    """One node; both are alike but for what they lead."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.address = ""

    async def Hello(self, request: pb.HelloRequest, context: Any) -> pb.HelloResponse:
        return pb.HelloResponse(protocol_version=1, cluster_id=CLUSTER_ID, node_id=1)

    async def Metadata(self, request: pb.MetadataRequest, context: Any) -> pb.MetadataResponse:
        cluster = self.cluster
        names = [] if request.no_topics else list(request.topics) or list(cluster.topics)
        cluster.questions += bool(names)
        if names and cluster.hold_topics is not None:
            await cluster.hold_topics.wait()
        nodes = [pb.NodeInfo(node_id=n + 1, address=a, up=True) for n, a in enumerate(cluster.addresses)]
        leader = pb.Leader(node_id=1, address=cluster.addresses[0], leader_epoch=1)
        return pb.MetadataResponse(
            cluster_id=CLUSTER_ID, nodes=nodes, topics=[self.topic(name) for name in names], cluster_leader=leader
        )

    def topic(self, name: str) -> pb.TopicMetadata:
        partitions = self.cluster.topics.get(name)
        if partitions is None:
            return pb.TopicMetadata(name=name, error=make_error(pb.UNKNOWN_TOPIC, f"no topic {name!r}"))
        if self.address == self.cluster.behind:
            return pb.TopicMetadata(name=name, error=make_error(pb.NOT_YET_AVAILABLE, f"{name!r} is not known here"))
        return pb.TopicMetadata(
            name=name,
            topic_id=partitions[0].topic_id,
            configs={"max.message.bytes": str(self.cluster.limits[name])} if name in self.cluster.limits else None,
            partitions=[
                pb.PartitionMetadata(
                    partition=p.number,
                    leader=pb.Leader(node_id=p.leader_id, address=p.leader, leader_epoch=p.leader_epoch)
                    if p.leader
                    else None,
                )
                for p in partitions
            ],
        )

    async def InitProducer(self, request: pb.InitProducerRequest, context: Any) -> pb.InitProducerResponse:
        self.cluster.producers += 1
        return pb.InitProducerResponse(producer_id=self.cluster.producers, producer_epoch=0)

    async def Produce(
        self, requests: AsyncIterator[pb.ProduceRequest], context: Any
    ) -> AsyncIterator[pb.ProduceResponse]:
        cluster = self.cluster
        async for request in requests:
            cluster.requests.append([part.batch.count for part in request.batches])
            results = [self.produce(request, index) for index in range(len(request.batches))]
            if cluster.break_streams:
                cluster.break_streams -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream breaks after the append")
            if cluster.hold_acks is not None and cluster.hold_node in ("", self.address):
                await cluster.hold_acks.wait()
            yield pb.ProduceResponse(results=results)

    def produce(self, request: pb.ProduceRequest, index: int) -> pb.ProduceResult:
        part = request.batches[index]
        result = pb.ProduceResult(correlation_id=request.correlation_id, batch=index)
        partition = self.cluster.topics[part.topic][part.partition]
        error = partition.leads(self.address) or self.cluster.refuse(part)
        if error is None:
            error, result.base_offset, result.duplicate = partition.produce(part.batch, part.attempt)
            self.cluster.wake()
        if error is not None:
            result.error.CopyFrom(error)
        return result

    async def Fetch(self, request: pb.FetchRequest, context: Any) -> pb.FetchResponse:
        news = self.cluster.news
        response = self.fetch(request)
        if not any(part.batches or part.HasField("error") for part in response.partitions):
            try:
                await asyncio.wait_for(news.wait(), request.max_wait_ms / 1000)
            except TimeoutError:
                return response
            return self.fetch(request)
        return response

    def fetch(self, request: pb.FetchRequest) -> pb.FetchResponse:
        response = pb.FetchResponse()
        for wanted in request.partitions:
            partition = self.cluster.topics[wanted.topic][wanted.partition]
            part = response.partitions.add(topic=wanted.topic, topic_id=wanted.topic_id, partition=wanted.partition)
            error = partition.leads(self.address)
            if error is None and not partition.log_start_offset <= wanted.offset <= partition.next_offset:
                error = make_error(
                    pb.OUT_OF_RANGE,
                    f"offset {wanted.offset} is not in the log",
                    log_start_offset=partition.log_start_offset,
                    log_end_offset=partition.next_offset,
                )
            if error is None and wanted.last_leader_epoch > partition.leader_epoch:
                error = make_error(pb.DIVERGED, "the logs part", end_offset=1, leader_epoch=partition.leader_epoch)
            if error is not None:
                part.error.CopyFrom(error)
                continue
            part.high_watermark = partition.next_offset
            size = 0
            for batch in partition.batches:
                if batch.base_offset + batch.count > wanted.offset and size < wanted.max_bytes:
                    part.batches.append(batch)
                    size += len(batch.payload)
        return response

    async def ListOffsets(self, request: pb.ListOffsetsRequest, context: Any) -> pb.ListOffsetsResponse:
        response = pb.ListOffsetsResponse()
        for wanted in request.partitions:
            partition = self.cluster.topics[wanted.topic][wanted.partition]
            listed = response.offsets.add(topic_id=wanted.topic_id, topic=wanted.topic, partition=wanted.partition)
            error = partition.leads(self.address)
            if error is not None:
                listed.error.CopyFrom(error)
            elif wanted.WhichOneof("position") == "earliest":
                listed.offset = partition.log_start_offset
            elif wanted.WhichOneof("position") == "latest":
                listed.offset = partition.next_offset
            else:
                listed.offset = partition.next_offset
                for batch in reversed(partition.batches):
                    for index, stamp in reversed(list(enumerate(columns_of(batch).timestamps_ms))):
                        if stamp >= wanted.timestamp_ms:
                            listed.offset = batch.base_offset + index
        return response

    # -- admin

    async def CreateTopic(self, request: pb.CreateTopicRequest, context: Any) -> pb.CreateTopicResponse:
        if self.cluster.refuse_changes is not None:
            return pb.CreateTopicResponse(error=self.cluster.refuse_changes)
        if request.name in self.cluster.topics:
            error = make_error(pb.TOPIC_EXISTS, f"topic {request.name!r} exists")
            return pb.CreateTopicResponse(error=error)
        self.cluster.create(request.name, request.partitions or 1)
        return pb.CreateTopicResponse(topic=self.topic(request.name))

    async def DescribeTopic(self, request: pb.DescribeTopicRequest, context: Any) -> pb.DescribeTopicResponse:
        topic = self.topic(request.name)
        return pb.DescribeTopicResponse(error=topic.error if topic.HasField("error") else None, topic=topic)

    async def DeleteTopic(self, request: pb.DeleteTopicRequest, context: Any) -> pb.DeleteTopicResponse:
        if self.cluster.topics.pop(request.name, None) is None:
            error = make_error(pb.UNKNOWN_TOPIC, f"no topic {request.name!r}")
            # As a node does it: a call that fails as a whole ends with a status, the error in its trailing metadata.
            context.set_trailing_metadata((("quorumlog-error-bin", error.SerializeToString()),))
            await context.abort(grpc.StatusCode.NOT_FOUND, error.message)
        return pb.DeleteTopicResponse()

    # -- groups: coordinated by the second node

    async def FindCoordinator(self, request: pb.FindCoordinatorRequest, context: Any) -> pb.FindCoordinatorResponse:
        leader = pb.Leader(node_id=2, address=self.cluster.addresses[1], leader_epoch=1)
        return pb.FindCoordinatorResponse(coordinator=leader)

    async def GroupSession(
        self, requests: AsyncIterator[pb.GroupRequest], context: Any
    ) -> AsyncIterator[pb.GroupResponse]:
        join = (await anext(aiter(requests))).join
        group = self.cluster.groups.setdefault(join.group, FakeGroup())
        group.joins += 1
        member = join.member_id or f"member-{group.joins}"
        queue: asyncio.Queue[pb.GroupResponse] = asyncio.Queue(maxsize=100)
        for tp in join.owned:
            group.owner.setdefault((tp.topic, tp.partition), member)
        group.members[member] = queue
        topics = list(join.topics)
        queue.put_nowait(
            pb.GroupResponse(
                joined=pb.GroupJoined(member_id=member, member_epoch=group.epoch, session_timeout_ms=10_000)
            )
        )
        self.cluster.rebalance(group, topics)
        reader = asyncio.ensure_future(self.read(requests, group, member, topics, queue))
        try:
            while True:
                response = await queue.get()
                if not response.WhichOneof("message"):
                    return
                yield response
        finally:
            reader.cancel()
            if group.members.get(member) is queue:
                del group.members[member]
                self.cluster.rebalance(group, topics)

    async def read(
        self,
        requests: AsyncIterator[pb.GroupRequest],
        group: FakeGroup,
        member: str,
        topics: list[str],
        queue: "asyncio.Queue[pb.GroupResponse]",
    ) -> None:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "pong":
                self.cluster.pongs += 1
            elif kind == "commit":
                results = []
                for entry in request.commit.offsets:
                    tp = (entry.partition.topic, entry.partition.partition)
                    result = pb.OffsetAndEpoch(partition=entry.partition, offset=entry.offset)
                    if group.owner.get(tp) == member:
                        epoch = entry.leader_epoch if entry.HasField("leader_epoch") else None
                        group.committed[tp] = (entry.offset, epoch)
                        group.commits.append((member, tp[1], entry.offset))
                    else:
                        result.error.CopyFrom(make_error(pb.PARTITION_NOT_OWNED, f"{tp} is not yours"))
                    results.append(result)
                committed = pb.GroupCommitted(commit_id=request.commit.commit_id, results=results)
                queue.put_nowait(pb.GroupResponse(committed=committed))
            elif kind == "release":
                for released in request.release.partitions:
                    group.releasing.discard((released.topic, released.partition))
                    group.owner.pop((released.topic, released.partition), None)
                self.cluster.rebalance(group, topics)
            elif kind == "leave":
                queue.put_nowait(pb.GroupResponse())

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Any) -> pb.ListGroupsResponse:
        mine = self.cluster.groups if self.address == self.cluster.addresses[1] else {}
        groups = [pb.GroupSummary(group=n, state="stable", members=len(g.members)) for n, g in mine.items()]
        return pb.ListGroupsResponse(groups=groups)

    async def DescribeGroup(self, request: pb.DescribeGroupRequest, context: Any) -> pb.DescribeGroupResponse:
        group = self.cluster.groups.get(request.group)
        if group is None:
            return pb.DescribeGroupResponse(error=make_error(pb.UNKNOWN_GROUP, f"no group {request.group!r}"))
        offsets = [self.cluster._position(group, tp) for tp in group.committed]
        return pb.DescribeGroupResponse(group=request.group, state="stable", offsets=offsets)

    async def CommitOffsets(self, request: pb.CommitOffsetsRequest, context: Any) -> pb.CommitOffsetsResponse:
        group = self.cluster.groups.setdefault(request.group, FakeGroup())
        if group.members:
            error = make_error(pb.GROUP_NOT_EMPTY, f"group {request.group!r} has members")
            return pb.CommitOffsetsResponse(error=error)
        for entry in request.offsets:
            group.committed[(entry.partition.topic, entry.partition.partition)] = (entry.offset, None)
        return pb.CommitOffsetsResponse()

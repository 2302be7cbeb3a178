"""What a client may get wrong: each answer names the thing and the fix, and nothing is appended."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from quorumlog import aio
from quorumlog.errors import Diverged, InvalidRequest, OffsetOutOfRange, RecordTooLarge
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import encode_columns, header_for, seal
from quorumlog.proto.compression import deflate
from tests.integration.cluster import LocalCluster, NodeProcess, eventually
from tests.integration.refusals import error_of

TOPIC = "bad-requests"
FUTURE_FIELD = b"\xfa\x3e\x03new"
"""Field 1007 with the bytes `new`, as a later release might send it."""


@pytest.fixture(scope="module")
def leader(shared: LocalCluster) -> NodeProcess:
    """Leads partition 0 of the topic, which has two."""
    shared.create_topic(TOPIC, 2, configs={"max.message.bytes": "100000"})
    return shared.leader(TOPIC)


@pytest.fixture(autouse=True)
def nothing_appended(leader: NodeProcess, shared: LocalCluster) -> Iterator[None]:
    yield
    for node in shared.nodes:
        replica = node.replica(TOPIC, 0)
        assert replica is not None
        assert replica.log_end_offset == 0


def batch_of(*values: bytes, **changes: Any) -> pb.RecordBatch:
    """A sound batch, sealed after `changes` to its header."""
    header = header_for(len(values), first_timestamp_ms=1_700_000_000_000)._replace(**changes)
    payload = encode_columns(list(values), [None] * len(values), {}, [1_700_000_000_000] * len(values))
    return seal(header, payload)


def refused(node: NodeProcess, data: pb.RecordBatch | pb.Rows, topic: str = TOPIC, partition: int = 0) -> pb.Error:
    """Why a batch is not taken; certainly not appended."""
    wanted = pb.PartitionBatch(topic=topic, partition=partition)
    (wanted.rows if isinstance(data, pb.Rows) else wanted.batch).CopyFrom(data)  # type: ignore[arg-type] # as it is
    (result,) = node.log.ProduceOnce(pb.ProduceRequest(batches=[wanted]), timeout=10.0).results
    assert result.HasField("error")
    assert result.error.outcome == pb.NOT_APPENDED
    return result.error


def says(error: pb.Error, code: int, *words: str) -> None:
    """The error has this code, and message and hint together name everything in `words`."""
    assert error.code == code, error
    text = f"{error.message}; {error.hint}"
    for word in words:
        assert word in text, text
    assert error.hint, f"no fix: {error}"


# --------------------------------------------------------------------------------------------------- names and numbers


def test_unknown_topic_and_partition(leader: NodeProcess) -> None:
    says(refused(leader, batch_of(b"x"), topic="nowhere"), pb.UNKNOWN_TOPIC, "'nowhere'", "quorumlog topic create")
    says(refused(leader, batch_of(b"x"), partition=7), pb.UNKNOWN_PARTITION, TOPIC, "0 to 1", "7")
    fetched = leader.log.Fetch(pb.FetchRequest(partitions=[pb.FetchPartition(topic="nowhere")]), timeout=10.0)
    says(fetched.partitions[0].error, pb.UNKNOWN_TOPIC, "'nowhere'")
    wanted = pb.ListOffsetsPartition(topic=TOPIC, partition=9, latest=True)
    listed = leader.log.ListOffsets(pb.ListOffsetsRequest(partitions=[wanted]), timeout=10.0)
    says(listed.offsets[0].error, pb.UNKNOWN_PARTITION, TOPIC, "9")


@pytest.mark.parametrize("name", ["", "white space", "ü", "a" * 250, "..", "__mine"])
def test_invalid_topic_name(shared: LocalCluster, leader: NodeProcess, name: str) -> None:
    node = shared.leader("__cluster")
    request = pb.CreateTopicRequest(name=name, partitions=1, replicas=1)
    says(error_of(lambda: node.admin.CreateTopic(request, timeout=10.0)), pb.INVALID_NAME, name[:20])


def test_invalid_group_name(shared: LocalCluster, leader: NodeProcess) -> None:
    request = pb.CommitOffsetsRequest(group="white space")
    error = error_of(lambda: shared.coordinator("white space").groups.CommitOffsets(request, timeout=10.0))
    says(error, pb.INVALID_NAME, "white space")


def test_more_replicas_than_nodes(shared: LocalCluster, leader: NodeProcess) -> None:
    node = shared.leader("__cluster")
    request = pb.CreateTopicRequest(name="many", partitions=1, replicas=5)
    error = error_of(lambda: node.admin.CreateTopic(request, timeout=10.0))
    says(error, pb.INVALID_REPLICATION, "'many'", "5 replicas", "3 nodes", "at most 3")


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        ({"retention.ms": "soon"}, ("retention.ms", "soon")),
        ({"retention.msec": "1"}, ("retention.msec", "retention.ms")),
        ({"durability": "replicated"}, ("durability", "replicated", "durable")),
        (
            {"max.message.bytes": "2000", "retention.bytes": "1000"},
            ("max.message.bytes=2000", "retention.bytes=1000", "raise retention.bytes"),
        ),
    ],
)
def test_topic_config_that_cannot_be(
    shared: LocalCluster, leader: NodeProcess, configs: dict[str, str], words: tuple[str, ...]
) -> None:
    node = shared.leader("__cluster")
    request = pb.CreateTopicRequest(name="configured", partitions=1, replicas=1, configs=configs)
    says(error_of(lambda: node.admin.CreateTopic(request, timeout=10.0)), pb.INVALID_CONFIG, *words)


def test_client_refuses_before_it_sends(shared: LocalCluster, leader: NodeProcess) -> None:
    async def scenario() -> None:
        async with aio.connect(shared.bootstrap) as client:
            with pytest.raises(InvalidRequest) as invalid:
                await client.topics.create("white space")
            assert "white space" in str(invalid.value)
            async with client.producer() as producer:
                with pytest.raises(RecordTooLarge) as large:
                    await producer.send(TOPIC, bytes(40 << 20))
            assert TOPIC in str(large.value)

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------------------------- batches


def test_record_over_the_limit(leader: NodeProcess) -> None:
    says(refused(leader, batch_of(bytes(200_000))), pb.RECORD_TOO_LARGE, TOPIC, "100000", "limit")
    rows = pb.Rows(records=[pb.Record(value=bytes(200_000))])
    says(refused(leader, rows), pb.RECORD_TOO_LARGE, TOPIC, "100000", "limit")


def test_wrong_crc(leader: NodeProcess) -> None:
    batch = batch_of(b"x")
    batch.crc ^= 1
    error = refused(leader, batch)
    says(error, pb.BATCH_CORRUPT, TOPIC, "partition 0", "CRC", "send it again")
    assert error.retriable


def test_compression_bomb(leader: NodeProcess) -> None:
    values = [bytes(1 << 20)] * 100
    columns = encode_columns(values, [None] * 100, {}, [0] * 100)
    bomb = seal(header_for(100, first_timestamp_ms=0, compression=pb.ZSTD), deflate(pb.ZSTD, columns))
    assert len(bomb.payload) < 100_000
    says(refused(leader, bomb), pb.COMPRESSION_BOMB, TOPIC, "smaller batches")


def test_unknown_enum_and_flag(leader: NodeProcess) -> None:
    says(refused(leader, batch_of(b"x", compression=9)), pb.UNSUPPORTED_VERSION, "compression 9", "4 zstd")
    says(refused(leader, batch_of(b"x", format=9)), pb.UNSUPPORTED_VERSION, "format 9", "COLUMNS")
    says(refused(leader, batch_of(b"x", flags=64)), pb.UNSUPPORTED_VERSION, "flags 0x40", "upgrade")
    request = pb.FetchRequest(format=9)  # type: ignore[arg-type] # a later release's
    says(error_of(lambda: leader.log.Fetch(request, timeout=10.0)), pb.UNSUPPORTED_VERSION, "format 9", "ROWS")
    join = pb.GroupJoin(group="g", topics=[TOPIC], mode=9)  # type: ignore[arg-type] # as above
    says(session_error(leader, pb.GroupRequest(join=join)), pb.UNSUPPORTED_VERSION, "mode number 9", "STREAM")


def test_batch_without_records_or_with_other_counts(leader: NodeProcess) -> None:
    says(refused(leader, pb.Rows()), pb.BATCH_INVALID, TOPIC, "no rows")
    says(refused(leader, batch_of(b"x", count=2)), pb.BATCH_INVALID, TOPIC, "last_offset_delta")


def session_error(node: NodeProcess, request: pb.GroupRequest) -> pb.Error:
    """The error with which a group's stream ends that begins like this; `node` need not coordinate it."""
    group = request.join.group
    found = node.groups.FindCoordinator(pb.FindCoordinatorRequest(group=group), timeout=10.0)
    with grpc.insecure_channel(found.coordinator.address) as channel:
        stub = type(node.groups)(channel)
        outgoing: queue.Queue[pb.GroupRequest | None] = queue.Queue()
        outgoing.put(request)
        answer = next(stub.GroupSession(iter(outgoing.get, None), timeout=10.0))
        outgoing.put(None)
    assert answer.HasField("error"), answer
    return answer.error


# ------------------------------------------------------------------------------------------------------ future fields


def with_future_field(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString() + FUTURE_FIELD)


def test_future_field_in_a_unary_request(leader: NodeProcess) -> None:
    for call, request in (
        (leader.log.Fetch, pb.FetchRequest()),
        (leader.log.ListOffsets, pb.ListOffsetsRequest()),
        (leader.log.ProduceOnce, pb.ProduceRequest()),
        (leader.log.Metadata, pb.MetadataRequest()),
        (leader.admin.CreateTopic, pb.CreateTopicRequest(name="x")),
        (leader.admin.InitCluster, pb.InitClusterRequest()),
        (leader.groups.CommitOffsets, pb.CommitOffsetsRequest(group="x")),
    ):
        error = error_of(partial(call, with_future_field(request), timeout=10.0))
        says(error, pb.UNSUPPORTED_VERSION, type(request).__name__, "upgrade the node")


def test_future_field_in_a_batch(leader: NodeProcess) -> None:
    request = with_future_field(produce_request(batch_of(b"x")))
    error = error_of(lambda: leader.log.ProduceOnce(request, timeout=10.0))
    says(error, pb.UNSUPPORTED_VERSION, "ProduceRequest", "upgrade the node")
    (result,) = next(iter(leader.log.Produce(iter([produce_request(with_future_field(batch_of(b"x")))])))).results
    says(result.error, pb.BATCH_INVALID, TOPIC, "field", "upgrade")


def produce_request(batch: pb.RecordBatch) -> pb.ProduceRequest:
    return pb.ProduceRequest(batches=[pb.PartitionBatch(topic=TOPIC, partition=0, batch=batch)])


@pytest.mark.parametrize("where", ["request", "batch"])
def test_future_field_on_a_produce_stream(leader: NodeProcess, where: str) -> None:
    batch = pb.PartitionBatch(topic=TOPIC, partition=0, batch=batch_of(b"x"))
    request = pb.ProduceRequest(correlation_id=5, batches=[with_future_field(batch) if where == "batch" else batch])
    if where == "request":
        request = with_future_field(request)
    (response,) = leader.log.Produce(iter([request]), timeout=10.0)
    (result,) = response.results
    assert result.correlation_id == 5
    says(result.error, pb.UNSUPPORTED_VERSION, "field", "upgrade the node")
    assert result.error.outcome == pb.NOT_APPENDED


def test_future_field_on_a_subscription(leader: NodeProcess) -> None:
    wanted = with_future_field(pb.FetchPartition(topic=TOPIC, partition=0))
    request = pb.SubscribeRequest(open=pb.SubscribeOpen(partitions=[wanted], credit_bytes=1000))
    answer = next(iter(leader.log.Subscribe(iter([request]), timeout=10.0)))
    says(answer.error, pb.UNSUPPORTED_VERSION, "field", "upgrade the node")


def test_future_field_and_unknown_message_on_a_group_session(leader: NodeProcess) -> None:
    join = with_future_field(pb.GroupJoin(group="g", topics=[TOPIC]))
    says(session_error(leader, pb.GroupRequest(join=join)), pb.UNSUPPORTED_VERSION, "field", "upgrade the node")


# -------------------------------------------------------------------------------------------------------------- epochs


@pytest.fixture
def own_topic(shared: LocalCluster, request: pytest.FixtureRequest) -> str:
    """A topic of one partition for this test alone."""
    name: str = "own-" + request.node.name.removeprefix("test_").replace("_", "-").partition("[")[0]
    shared.create_topic(name)
    return name


def append(node: NodeProcess, topic: str, batch: pb.RecordBatch) -> pb.ProduceResult:
    wanted = pb.PartitionBatch(topic=topic, batch=batch)
    (result,) = node.log.ProduceOnce(pb.ProduceRequest(batches=[wanted]), timeout=10.0).results
    return result


def test_stale_producer_epoch(shared: LocalCluster, own_topic: str) -> None:
    node = shared.leader(own_topic)
    assert not append(node, own_topic, batch_of(b"new", producer_id=77, producer_epoch=2)).HasField("error")
    stale = append(node, own_topic, batch_of(b"old", producer_id=77, producer_epoch=1)).error
    says(stale, pb.PRODUCER_FENCED, "producer 77 epoch 1", "close this one")
    assert stale.outcome == pb.NOT_APPENDED
    gap = append(node, own_topic, batch_of(b"gap", producer_id=77, producer_epoch=2, base_sequence=9)).error
    says(gap, pb.OUT_OF_ORDER_SEQUENCE, "sequence 9", "expected is 1")
    again = append(node, own_topic, batch_of(b"new", producer_id=77, producer_epoch=2))
    assert again.duplicate
    assert again.base_offset == 0
    assert [record.value for record in node.read(own_topic, 0, 1)] == [b"new"]


def test_stale_member_epoch(shared: LocalCluster, own_topic: str) -> None:
    group = own_topic
    coordinator = shared.coordinator(group)
    outgoing: queue.Queue[pb.GroupRequest | None] = queue.Queue()
    outgoing.put(pb.GroupRequest(join=pb.GroupJoin(group=group, topics=[own_topic])))
    answers = coordinator.groups.GroupSession(iter(outgoing.get, None), timeout=30.0)
    assignment = next(one.assignment for one in answers if one.HasField("assignment") and one.assignment.assigned)
    partition = assignment.assigned[0].partition

    def commit(epoch: int) -> pb.Error:
        offsets = [pb.OffsetAndEpoch(partition=partition, offset=0)]
        outgoing.put(pb.GroupRequest(commit=pb.GroupCommit(commit_id=1, member_epoch=epoch, offsets=offsets)))
        return next(one.committed for one in answers if one.HasField("committed")).results[0].error

    says(commit(assignment.member_epoch - 1), pb.STALE_MEMBER_EPOCH, group, "latest assignment")
    assert commit(assignment.member_epoch) == pb.Error()
    from_outside = pb.CommitOffsetsRequest(group=group, offsets=[pb.OffsetAndEpoch(partition=partition, offset=0)])
    error = error_of(lambda: coordinator.groups.CommitOffsets(from_outside, timeout=10.0))
    says(error, pb.GROUP_NOT_EMPTY, group, "stop the members")
    outgoing.put(None)


# ------------------------------------------------------------------------------------------------------------- offsets


def test_offset_out_of_range(shared: LocalCluster, own_topic: str) -> None:
    node = shared.leader(own_topic)
    append(node, own_topic, batch_of(b"a", b"b"))
    wanted = pb.FetchPartition(topic=own_topic, offset=99)
    (fetched,) = node.log.Fetch(pb.FetchRequest(partitions=[wanted]), timeout=10.0).partitions
    says(fetched.error, pb.OUT_OF_RANGE, own_topic, "99", "0 and 2", "earliest")
    assert (fetched.error.log_start_offset, fetched.error.log_end_offset) == (0, 2)
    negative = pb.FetchRequest(partitions=[pb.FetchPartition(topic=own_topic, offset=-5)])
    says(error_of(lambda: node.log.Fetch(negative, timeout=10.0)), pb.INVALID_REQUEST, "-5", "from 0")

    async def read() -> None:
        async with (
            aio.connect(shared.bootstrap) as client,
            client.consumer(partitions={own_topic: {0: 99}}) as consumer,
        ):
            with pytest.raises(OffsetOutOfRange) as caught:
                await consumer.poll(timeout=20.0)
            assert own_topic in str(caught.value)
            assert "99" in str(caught.value)

    asyncio.run(read())


@pytest.fixture
def two_epochs(shared: LocalCluster, own_topic: str) -> tuple[str, int, int]:
    """(topic, epoch of offsets 0 and 1, epoch of offsets 2 and 3)."""
    before = shared.leader(own_topic)
    first = append(before, own_topic, batch_of(b"a", b"b")).leader_epoch
    other = next(node for node in shared.nodes if node is not before)
    move = pb.TransferLeadershipRequest(topic=own_topic, partition=0, to_node_id=other.node_id)
    before.admin.TransferLeadership(move, timeout=10.0)

    def again() -> int:
        result = append(other, own_topic, batch_of(b"c", b"d"))
        assert not result.HasField("error") or result.error.retriable, result.error
        return 0 if result.HasField("error") else result.leader_epoch

    return own_topic, first, eventually("the other node leads", again)


def test_fetch_from_a_log_that_has_diverged(shared: LocalCluster, two_epochs: tuple[str, int, int]) -> None:
    topic, first, second = two_epochs
    node = shared.leader(topic)
    # Somebody has read a third record of the first epoch, which this log does not have.
    wanted = pb.FetchPartition(topic=topic, offset=3, last_leader_epoch=first)
    (fetched,) = node.log.Fetch(pb.FetchRequest(partitions=[wanted]), timeout=10.0).partitions
    says(fetched.error, pb.DIVERGED, topic, f"epoch {first}", "offset 2", "seek")
    assert (fetched.error.end_offset, fetched.error.leader_epoch) == (2, first)
    wanted = pb.FetchPartition(topic=topic, offset=3, last_leader_epoch=second)
    (fetched,) = node.log.Fetch(pb.FetchRequest(partitions=[wanted]), timeout=10.0).partitions
    assert not fetched.HasField("error"), fetched.error


def test_committed_offset_from_a_log_that_has_diverged(shared: LocalCluster, two_epochs: tuple[str, int, int]) -> None:
    topic, first, _ = two_epochs
    offset = pb.OffsetAndEpoch(partition=pb.TopicPartition(topic=topic), offset=4, leader_epoch=first)
    request = pb.CommitOffsetsRequest(group=topic, offsets=[offset])
    answer = shared.coordinator(topic).groups.CommitOffsets(request, timeout=10.0)
    assert not answer.results[0].HasField("error"), answer

    async def consume(**options: Any) -> list[int]:
        async with aio.connect(shared.bootstrap) as client, client.consumer(topic, group=topic, **options) as consumer:
            return [record.offset for record in await consumer.poll(timeout=20.0)]

    with pytest.raises(Diverged) as caught:
        asyncio.run(consume())
    assert topic in str(caught.value)
    assert caught.value.hint
    assert asyncio.run(consume(on_diverged="reset")) == [2, 3]

"""What cannot travel is refused at the door; what slips through, or breaks behind it, hurts nobody else and is told."""

import asyncio
import random

import pytest

import quorumlog
from quorumlog.aio.channels import Connection, Pool
from quorumlog.aio.produce_stream import ProduceStream, Request
from quorumlog.clock import monotonic
from quorumlog.errors import QuorumlogError, TimedOut
from quorumlog.partition_sender import Attempt
from quorumlog.pending import Headers
from quorumlog.producer_core import ProducerCore, ProducerSettings
from quorumlog.proto import client_pb2 as pb
from quorumlog.records import Offset
from quorumlog.waiting import Wait
from tests.client.fake_cluster import FakeCluster
from tests.client.test_consuming import fill

HALF_A_PAIR = "caf\udce9"  # what os.fsdecode makes of a name that is no UTF-8


def test_a_header_name_that_cannot_be_encoded_is_refused_at_once(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        producer.send("orders", b"v", headers={"café": b"1"}).result(10)
        with pytest.raises(quorumlog.InvalidRequest, match=r"header name 'caf\\udce9' is not valid Unicode"):
            producer.send("orders", b"v", headers={HALF_A_PAIR: b"1"})


NO_OFFSETS = [(2**63, "at most 9223372036854775807"), (-1, "at least 0"), (10.0, "of type float"), ("7", "of type str")]


@pytest.mark.parametrize(("offset", "fix"), NO_OFFSETS)
def test_an_offset_that_is_none_is_refused_wherever_it_is_given(cluster: FakeCluster, offset: int, fix: str) -> None:
    fill(cluster, "orders", 1, 5)
    with quorumlog.connect(cluster.bootstrap) as client:
        for place in (offset, Offset(offset), Offset(0, offset)):
            with pytest.raises(quorumlog.InvalidRequest, match=rf"offset of orders\[0\]=.*{fix}"):
                client.consumer(partitions={"orders": {0: place}})
        with client.consumer("orders") as consumer:
            assert len(consumer.poll(timeout=10.0)) > 0
            with pytest.raises(quorumlog.InvalidRequest, match=f"offset=.*{fix}"):
                consumer.seek("orders", 0, offset)
            with pytest.raises(quorumlog.InvalidRequest, match=f"leader_epoch of offset=.*{fix}"):
                consumer.seek("orders", 0, 0, leader_epoch=offset)
            consumer.seek("orders", 0, 4)
            assert [record.offset for record in consumer.poll(timeout=10.0)] == [4]


def test_numbers_that_do_not_fit_the_wire_are_refused_with_the_fix(cluster: FakeCluster) -> None:
    with quorumlog.connect(cluster.bootstrap) as client:
        with pytest.raises(quorumlog.InvalidRequest, match=r"partition of orders=0\.5 is of type float"):
            client.consumer(partitions={"orders": [0.5]})  # type: ignore[list-item] # what is tested
        with pytest.raises(quorumlog.InvalidRequest, match=r"no mapping.*\{\"orders\": \[0, 1\]\}"):
            client.consumer(partitions=["orders"])  # type: ignore[arg-type] # what is tested
        with pytest.raises(quorumlog.InvalidRequest, match="max_wait=inf is too long"):
            client.consumer("orders", max_wait=float("inf"))
        with pytest.raises(quorumlog.InvalidRequest, match=r"session_timeout=5000000 is too long.*49 days"):
            client.consumer("orders", group="g", session_timeout=5_000_000)
        with pytest.raises(quorumlog.InvalidRequest, match=r"prefetch_bytes=1000000\.0 is of type float"):
            client.consumer("orders", prefetch_bytes=1e6)  # type: ignore[arg-type] # what is tested
        with pytest.raises(quorumlog.InvalidRequest, match="stop=-1 is not possible"):
            client.consumer("orders", stop=-1)


def append(core: ProducerCore, topic: str, headers: Headers = ()) -> quorumlog.SendFuture:
    """Put a record into the buffer past the door."""
    future = core.append(topic, topic.encode().ljust(16, b"0"), 0, b"v", None, headers, 1000, monotonic())
    assert future is not None
    return future


def test_a_batch_that_cannot_be_encoded_fails_alone(cluster: FakeCluster) -> None:
    cluster.create("bad", 1)
    cluster.create("good", 1)
    with quorumlog.connect(cluster.bootstrap) as client:
        producer = client.producer()
        for topic in ("bad", "good"):
            producer.send(topic, b"first", partition=0).result(10)
        core = producer._producer._core
        assert core is not None
        with core.lock:  # so that both travel together
            bad = append(core, "bad", ((HALF_A_PAIR, b"1"),))
            good = append(core, "good")
            later = producer.send("bad", b"later", partition=0)
        assert good.result(10).offset == 1
        error = bad.exception(10)
        assert isinstance(error, quorumlog.DeliveryFailed)
        assert error.outcome is quorumlog.Outcome.NOT_APPENDED
        assert isinstance(error.batches[0].error.__cause__, UnicodeEncodeError | ValueError)
        assert later.exception(10) is error, "it travelled in the batch that cannot"
        with pytest.raises(quorumlog.DeliveryFailed, match=r"encoding records for bad\[0\] ended with Unicode"):
            producer.close()


def test_what_was_given_up_before_the_stream_was_connected_is_not_sent(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    leader = cluster.addresses[0]

    async def scenario() -> None:
        pool, connected = Pool("test"), asyncio.Event()
        core = ProducerCore(ProducerSettings(linger=0.0), 1, 0, random.Random(1))

        async def connect() -> Connection:
            await connected.wait()
            return await pool.get(leader, 10.0)

        def on_end(stream: ProduceStream, lost: list[Request], cause: QuorumlogError) -> None:
            assert lost == []

        unsendable: list[Attempt] = []
        stream = ProduceStream(
            leader,
            connect,
            compression=pb.NONE,
            request_timeout=10.0,
            on_result=lambda attempt, result, address: core.appended(attempt, result.base_offset),
            on_end=on_end,
            on_unsendable=lambda attempt, cause: unsendable.append(attempt),
            on_request_done=core.request_done,
        )
        given_up = append(core, "orders")
        ((address, attempts),) = core.poll(monotonic(), lambda sender: leader)
        stream.send(attempts)
        core.abandon(TimedOut("too late"))
        assert given_up.done()
        await asyncio.sleep(0)
        innocent = append(core, "other")
        cluster.create("other", 1)
        ((address, attempts),) = core.poll(monotonic(), lambda sender: leader)
        stream.send(attempts)
        connected.set()
        assert (await innocent).offset == 0
        assert (address, cluster.values("orders"), unsendable) == (leader, [], [])
        await stream.close()
        await pool.close()

    asyncio.run(scenario())


def test_a_fetch_that_cannot_be_made_is_told_to_the_reader(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 5)
    with quorumlog.connect(cluster.bootstrap) as client, client.consumer("orders") as consumer:
        assert len(consumer.poll(timeout=10.0)) > 0
        (cursor,) = consumer._consumer._core.cursors.values()

        async def seek_past_the_door() -> None:
            cursor.move(Offset(2**63))
            consumer._consumer._changed()

        client._portal.call(seek_past_the_door())
        with pytest.raises(quorumlog.Fatal, match=r"fetching from .* ended with ValueError") as caught:
            consumer.poll(timeout=10.0)
        assert isinstance(caught.value.__cause__, ValueError)
        consumer.seek("orders", 0, 4)
        assert [record.offset for record in consumer.poll(timeout=10.0)] == [4]


def broken(wait: Wait) -> None:
    raise ZeroDivisionError("in the callback")


def test_a_search_for_leaders_that_breaks_is_told_to_who_sends(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    partition.leader = ""
    with quorumlog.connect(cluster.bootstrap, on_waiting=broken) as client:
        producer = client.producer()
        future = producer.send("orders", b"v")
        with pytest.raises(quorumlog.DeliveryFailed, match="finding out who leads ended with ZeroDivisionError"):
            future.result(10)
        with pytest.raises(quorumlog.DeliveryFailed):
            producer.close()


def test_a_search_for_leaders_that_breaks_is_told_to_who_reads(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    partition.leader = ""
    with (
        quorumlog.connect(cluster.bootstrap, on_waiting=broken) as client,
        client.consumer("orders") as consumer,
        pytest.raises(quorumlog.Fatal, match="finding out who leads ended with ZeroDivisionError"),
    ):
        consumer.poll(timeout=10.0)

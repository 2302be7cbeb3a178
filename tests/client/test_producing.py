"""The producer over a real gRPC connection."""

import asyncio
import gc
import threading

import pytest

import quorumlog
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from tests.client.fake_cluster import FakeCluster


def test_a_record_is_acknowledged_with_its_place(cluster: FakeCluster) -> None:
    cluster.create("orders", 3)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        metadata = producer.send("orders", b"v", key=b"k", headers={"trace": b"1"}, timestamp=1700000000.5).result(10)
        assert (metadata.topic, metadata.offset, metadata.timestamp) == ("orders", 0, 1700000000.5)
        assert cluster.topics["orders"][metadata.partition].values() == [b"v"]


def test_records_with_the_same_key_keep_their_order(cluster: FakeCluster) -> None:
    cluster.create("orders", 5)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        for number in range(500):
            producer.send("orders", b"%d" % number, key=b"the key")
    logs = [partition.values() for partition in cluster.topics["orders"]]
    assert [log for log in logs if log] == [[b"%d" % number for number in range(500)]]


def test_leaving_the_context_flushes(cluster: FakeCluster) -> None:
    cluster.create("orders", 2)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        producer.send_many("orders", [b"%d" % number for number in range(10_000)])
    assert sorted(cluster.values("orders")) == sorted(b"%d" % number for number in range(10_000))


def test_send_many_keeps_keys_nulls_and_order(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    values = [b"a", None, b"c"]
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        (appended,) = producer.send_many("orders", values, keys=[b"x", None, b"z"]).result(10)
        assert (appended.base_offset, appended.count) == (0, 3)
        with client.consumer("orders", stop="latest") as consumer:
            assert [(record.key, record.value) for record in consumer] == [(b"x", b"a"), (None, None), (b"z", b"c")]


def test_a_record_leaves_at_once_while_nothing_is_in_flight(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer(linger=3600) as producer:
        assert producer.send("orders", b"v").result(10).offset == 0


def test_records_gather_while_a_request_is_in_flight(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    with quorumlog.connect(cluster.bootstrap) as client, client.producer(linger=3600) as producer:
        producer.send("orders", b"first")
        futures = [producer.send("orders", b"%d" % number) for number in range(100)]
        assert not futures[0].done()
        cluster.loop.call_soon_threadsafe(cluster.hold_acks.set)
        producer.flush(timeout=20)
        assert all(future.done() for future in futures)
    assert len(cluster.requests) <= 4, "linger gathers what is sent while a request is out"


def test_a_broken_stream_neither_loses_nor_doubles(cluster: FakeCluster) -> None:
    cluster.create("orders", 2)
    cluster.break_streams = 3
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        futures = [producer.send("orders", b"%d" % number) for number in range(1000)]
        producer.flush(timeout=30)
        assert all(future.result().offset >= 0 for future in futures)
    assert sorted(cluster.values("orders")) == sorted(b"%d" % number for number in range(1000))


def test_a_new_leader_is_followed(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        producer.send("orders", b"1").result(10)
        partition.leader, partition.leader_id, partition.leader_epoch = cluster.addresses[1], 2, 2
        assert producer.send("orders", b"2").result(10).offset == 1


def test_a_paused_leader_is_left_once_another_one_is_elected(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    cluster.hold_node = cluster.addresses[0]
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        future = producer.send("orders", b"v")
        partition.leader, partition.leader_id, partition.leader_epoch = cluster.addresses[1], 2, 2
        assert future.result(10).offset == 0, "the answer comes from the new leader while the old one keeps silent"
    assert cluster.values("orders") == [b"v"]


def test_an_unknown_topic_is_named_with_the_fix(cluster: FakeCluster) -> None:
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        client.producer() as producer,
        pytest.raises(quorumlog.UnknownTopic, match="'nowhere'") as caught,
    ):
        producer.send("nowhere", b"v", timeout=10)
    assert "quorumlog topic create" in caught.value.hint


def test_an_unknown_partition_and_text_are_refused_at_once(cluster: FakeCluster) -> None:
    cluster.create("orders", 2)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        with pytest.raises(quorumlog.UnknownPartition, match="no partition 7, only 0 to 1"):
            producer.send("orders", b"v", partition=7)
        with pytest.raises(quorumlog.InvalidRequest, match=r"value is of type str.*encode"):
            producer.send("orders", "text")  # type: ignore[arg-type] # what is tested
        with pytest.raises(quorumlog.InvalidRequest, match=r"'ql\.x' is reserved"):
            producer.send("orders", b"v", headers={"ql.x": b""})
        with pytest.raises(quorumlog.RecordTooLarge, match="over the limit of 1048576 bytes"):
            producer.send("orders", b"x" * (1 << 21))
        with pytest.raises(quorumlog.RecordTooLarge, match="over the limit"):
            producer.send_many("orders", [b"fine", b"x" * (1 << 21)])
    assert cluster.values("orders") == []


def test_a_limit_raised_under_a_producer_is_noticed(cluster: FakeCluster) -> None:
    for topic in ("one", "many"):
        cluster.create(topic, 1)
    large = b"x" * (3 << 20)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        for topic in ("one", "many"):
            producer.send(topic, b"first").result(10)
            cluster.limits[topic] = 4 << 20
        assert producer.send("one", large).result(10).offset == 1
        assert [part.base_offset for part in producer.send_many("many", [b"small", large]).result(10)] == [1, 2]


def test_a_limit_that_stands_is_not_asked_for_with_every_record_it_refuses(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.limits["orders"] = 4096
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        producer.send("orders", b"first").result(10)
        before = cluster.questions
        for _ in range(100):
            with pytest.raises(quorumlog.RecordTooLarge, match="over the limit of 1048576 bytes"):
                producer.send("orders", b"x" * (1 << 21))
        assert before < cluster.questions < before + 50


def test_flush_raises_for_what_was_not_delivered(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.refuse = lambda part: make_error(pb.RECORD_TOO_LARGE, "orders takes at most 10 bytes")
    with quorumlog.connect(cluster.bootstrap) as client:
        producer = client.producer()
        future = producer.send("orders", b"v")
        with pytest.raises(quorumlog.DeliveryFailed, match=r"1 record.*orders.*takes at most 10 bytes") as caught:
            producer.flush(timeout=10)
        assert caught.value.outcome is quorumlog.Outcome.NOT_APPENDED
        assert caught.value.batches[0].values == (b"v",)
        assert isinstance(future.exception(), quorumlog.DeliveryFailed)
        cluster.refuse = lambda part: None
        assert producer.send("orders", b"w").result(10).offset == 0
        producer.close()


def test_leaving_the_context_raises_for_what_was_not_delivered(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.refuse = lambda part: make_error(pb.INVALID_REQUEST, "no")
    with (
        quorumlog.connect(cluster.bootstrap) as client,
        pytest.raises(quorumlog.DeliveryFailed),
        client.producer() as producer,
    ):
        producer.send("orders", b"v")


def test_what_no_answer_came_for_may_be_appended(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    with quorumlog.connect(cluster.bootstrap) as client:
        producer = client.producer(delivery_timeout=0.3)
        error = producer.send("orders", b"v").exception(10)
        assert error is not None
        assert error.outcome is quorumlog.Outcome.UNKNOWN
        assert "doctor" in error.hint
        cluster.loop.call_soon_threadsafe(cluster.hold_acks.set)
        with pytest.raises(quorumlog.DeliveryFailed):
            producer.close()


def test_a_full_buffer_makes_send_wait_visibly(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    with quorumlog.connect(cluster.bootstrap) as client, client.producer(buffer_memory=100_000) as producer:
        producer.send("orders", b"x" * 90_000)
        with pytest.raises(quorumlog.TimedOut, match="100000 bytes are waiting to be acknowledged"):
            producer.send("orders", b"x" * 90_000, timeout=0.2)
        sender = threading.Thread(target=lambda: producer.send("orders", b"y" * 90_000).result(20))
        sender.start()
        cluster.loop.call_soon_threadsafe(cluster.hold_acks.set)
        sender.join(20)
        assert not sender.is_alive()
    assert [len(value or b"") for value in cluster.values("orders")] == [90_000, 90_000]


def test_many_threads_share_a_producer(cluster: FakeCluster) -> None:
    cluster.create("orders", 3)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:

        def work(thread: int) -> None:
            for number in range(300):
                producer.send("orders", b"%d-%d" % (thread, number))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(cluster.values("orders")) == sorted(b"%d-%d" % (t, n) for t in range(4) for n in range(300))


def test_a_forgotten_producer_is_warned_about(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()

    async def forget() -> None:
        client = await quorumlog.aio.connect(cluster.bootstrap)
        producer = client.producer()
        await producer.send("orders", b"v")
        with pytest.warns(ResourceWarning, match="1 records that are not acknowledged"):
            producer.__del__()
        cluster.loop.call_soon_threadsafe(cluster.hold_acks.set)  # type: ignore[union-attr] # set above
        await producer.close()
        await client.close()

    asyncio.run(forget())
    gc.collect()


def test_a_future_tells_its_callback_and_can_be_awaited(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)

    async def send() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client, client.producer() as producer:
            future = await producer.send("orders", b"v")
            told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: told.set_result(done.result().offset))
            assert (await future).offset == 0
            assert await told == 0
            with pytest.raises(quorumlog.InvalidRequest, match="await"):
                (await producer.send("orders", b"w")).result()
            assert len(await (await producer.send_many("orders", [b"x"] * 10))) == 1

    asyncio.run(send())


def test_a_send_that_is_not_awaited_is_warned_about_with_its_line(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)

    async def forget() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client, client.producer() as producer:
            with pytest.warns(RuntimeWarning, match=r"'Producer\.send' was never awaited") as caught:
                producer.send("orders", b"v")  # type: ignore[unused-coroutine] # what is tested
            assert caught[0].filename == __file__

    asyncio.run(forget())
    assert cluster.values("orders") == []


def test_a_closed_producer_says_so(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client:
        producer = client.producer()
        producer.send("orders", b"v")
        producer.close()
        with pytest.raises(quorumlog.Closed, match=r"client\.producer"):
            producer.send("orders", b"v")

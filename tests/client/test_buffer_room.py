"""Waiting for room in a producer's buffer: whatever makes room, or makes waiting pointless, is noticed."""

import asyncio
import threading

import pytest

import quorumlog
from quorumlog.aio.cluster import Deadline
from tests.client.fake_cluster import FakeCluster


@pytest.fixture
def held(cluster: FakeCluster) -> FakeCluster:
    """A cluster with a topic of two partitions; nothing is acknowledged but what the second node leads."""
    cluster.create("orders", 2)
    cluster.hold_acks = asyncio.Event()
    cluster.hold_node = cluster.addresses[0]
    return cluster


async def waiting(work: "asyncio.Task[object]") -> None:
    """Let work go on until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not work.done()


def test_room_that_was_made_before_the_wait_for_it_began_is_seen(held: FakeCluster) -> None:
    with (
        quorumlog.connect(held.bootstrap) as client,
        client.producer(buffer_memory=1000, batch_size=1000, delivery_timeout=20) as producer,
    ):
        producer.send("orders", b"held", partition=0)
        inner, loop = producer._producer, client._portal.loop
        busy = threading.Event()
        loop.call_soon_threadsafe(busy.wait, 20)
        acknowledged = producer.send("orders", b"x" * 600, partition=1)
        seen = inner.progress("orders")
        assert inner.try_send("orders", b"y" * 600, partition=1) is None, "the buffer is full"
        busy.set()
        acknowledged.result(20)
        ready = asyncio.run_coroutine_threadsafe(inner.ready("orders", Deadline(None), seen), loop)
        ready.result(20)
        assert inner.try_send("orders", b"y" * 600, partition=1) is not None
        held.loop.call_soon_threadsafe(held.hold_acks.set)  # type: ignore[union-attr] # set by the fixture


def test_many_records_pass_a_small_buffer(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client:
        with client.producer(buffer_memory=40_000, batch_size=40_000, linger=0) as producer:
            for _ in range(300):
                producer.send_many("orders", [b"x" * 30_000])
        assert client.offsets("orders") == {0: 300}


def test_what_is_given_up_makes_room(held: FakeCluster) -> None:
    async def scenario() -> None:
        async with quorumlog.aio.connect(held.bootstrap) as client:
            producer = client.producer(buffer_memory=1000, batch_size=1000, delivery_timeout=0.3)
            first = await producer.send("orders", b"x" * 900, partition=0)
            second = await asyncio.wait_for(producer.send("orders", b"y" * 900, partition=0), 10)
            assert first.done()
            assert isinstance(first.exception(), quorumlog.DeliveryFailed)
            with pytest.raises(quorumlog.DeliveryFailed):
                await second
            with pytest.raises(quorumlog.DeliveryFailed):
                await producer.close()

    asyncio.run(scenario())


def test_closing_ends_the_wait_for_room(cluster: FakeCluster) -> None:
    (partition,) = cluster.create("orders", 1)
    partition.leader = ""

    async def scenario() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client:
            producer = client.producer(buffer_memory=1000, batch_size=1000)
            await producer.send("orders", b"x" * 900)
            late = asyncio.create_task(producer.send("orders", b"y" * 900))
            await waiting(late)
            with pytest.raises(quorumlog.DeliveryFailed):
                await producer.close(timeout=0.1)
            with pytest.raises(quorumlog.Closed):
                await asyncio.wait_for(late, 10)

    asyncio.run(scenario())


def test_a_send_waits_no_longer_than_it_is_told_for_a_look_up_another_one_began(held: FakeCluster) -> None:
    held.hold_topics = asyncio.Event()

    async def scenario() -> None:
        async with quorumlog.aio.connect(held.bootstrap) as client:
            producer = client.producer()
            patient = asyncio.create_task(producer.send("orders", b"v", partition=1))
            await waiting(patient)
            with pytest.raises(quorumlog.TimedOut, match=r"topic orders was not looked up within 0\.05 s"):
                await asyncio.wait_for(producer.send("orders", b"v", partition=1, timeout=0.05), 10)
            held.loop.call_soon_threadsafe(held.hold_topics.set)  # type: ignore[union-attr] # set above
            assert (await (await patient)).offset == 0
            await producer.close()

    asyncio.run(scenario())


def test_who_waited_for_a_look_up_does_not_wait_for_room_as_well(held: FakeCluster) -> None:
    held.hold_topics = asyncio.Event()

    async def scenario() -> None:
        async with quorumlog.aio.connect(held.bootstrap) as client:
            producer = client.producer()
            sends = [asyncio.create_task(producer.send("orders", b"v", partition=0)) for _ in range(3)]
            for send in sends:
                await waiting(send)
            held.loop.call_soon_threadsafe(held.hold_topics.set)  # type: ignore[union-attr] # set above
            futures = await asyncio.wait_for(asyncio.gather(*sends), 10)
            assert not any(future.done() for future in futures), "nothing is acknowledged yet"
            held.loop.call_soon_threadsafe(held.hold_acks.set)  # type: ignore[union-attr] # set by the fixture
            await producer.close()

    asyncio.run(scenario())

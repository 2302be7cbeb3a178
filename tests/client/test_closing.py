"""A close that is cancelled, and the one after it; and a close in a callback."""

import asyncio
from concurrent.futures import Future

import pytest

import quorumlog
import quorumlog.aio
from tests.client.fake_cluster import FakeCluster
from tests.client.test_consuming import fill, until

PARTS = {"Consumer", "Dispatcher", "Fetcher", "Membership", "ProduceStream", "Producer"}


async def cancelled(closing: "asyncio.Task[None]") -> None:
    await asyncio.sleep(0)  # it runs until it waits for an answer
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing


def running() -> set[str]:
    """Return what producers and consumers have running in this loop."""
    names = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    return {name for name in names if name.partition(".")[0] in PARTS}


def test_a_member_whose_close_was_cancelled_does_not_stay_in_the_group(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 50)

    async def scenario() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client:
            consumer = client.consumer("orders", group="g")
            assert len(await consumer.poll(timeout=10.0)) + len(await consumer.poll(timeout=10.0)) == 50
            await cancelled(asyncio.create_task(consumer.close()))
            assert running() == set(), "nothing is left that answers pings or fetches"
            await asyncio.to_thread(until, lambda: not cluster.groups["g"].members)
            await consumer.close()
            async with client.consumer("orders", group="g") as next_member:
                assert await next_member.poll(timeout=10.0) != []

    asyncio.run(scenario())


def test_a_close_goes_on_where_one_was_cancelled_before_the_topic_was_looked_up(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)

    async def scenario() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client:
            consumer = client.consumer("orders")
            opening = asyncio.create_task(consumer.open())
            await asyncio.sleep(0)
            closing = asyncio.create_task(consumer.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(opening, closing, return_exceptions=True)
            await consumer.close()
            with pytest.raises(quorumlog.Closed):
                await consumer.poll(timeout=0)
            assert running() == set()

    asyncio.run(scenario())


def test_a_producer_whose_close_was_cancelled_tells_the_next_what_was_given_up(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()

    async def scenario() -> None:
        async with quorumlog.aio.connect(cluster.bootstrap) as client:
            producer = client.producer()
            await producer.send("orders", b"v")
            await cancelled(asyncio.create_task(producer.close()))
            with pytest.raises(quorumlog.DeliveryFailed, match="closed before the records were acknowledged"):
                await producer.close()
            await producer.close()

    asyncio.run(scenario())


def test_a_client_whose_close_was_cancelled_is_closed_by_the_next(cluster: FakeCluster) -> None:
    fill(cluster, "orders", 1, 5)
    cluster.hold_acks = asyncio.Event()

    async def scenario() -> None:
        client = await quorumlog.aio.connect(cluster.bootstrap)
        producer, consumer = client.producer(), client.consumer("orders", group="g")
        assert await consumer.poll(timeout=10.0) != []
        await producer.send("orders", b"v")
        await cancelled(asyncio.create_task(client.close()))
        with pytest.raises(quorumlog.DeliveryFailed):
            await client.close()
        assert (producer.closed, consumer.closed, running()) == (True, True, set())

    asyncio.run(scenario())


def test_a_close_in_a_callback_is_refused_and_closes_nothing(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    refusal: Future[BaseException] = Future()
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:

        def close(_: quorumlog.SendFuture) -> None:
            try:
                client.close()
            except quorumlog.InvalidRequest as error:
                refusal.set_result(error)

        producer.send("orders", b"a").add_done_callback(close)
        assert "do it in another thread" in str(refusal.result(20))
        futures = [producer.send("orders", b"b") for _ in range(10)]
        producer.flush(timeout=20)
        assert [future.result(20).offset for future in futures] == list(range(1, 11))

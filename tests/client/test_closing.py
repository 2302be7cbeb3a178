"""A close that is cancelled, and the one after it; a close in a callback, and none at all."""

import asyncio
import os
import subprocess
import sys
import textwrap
from concurrent.futures import Future

import pytest

import quorumlog
import quorumlog.aio
from quorumlog.process import PROCESS
from quorumlog.sync import leave_all
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


def run(program: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "GRPC_VERBOSITY": "NONE"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=environment, timeout=60, check=False, capture_output=True, text=True)


def test_a_program_that_ends_without_a_close_delivers_what_it_has_sent(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    ended = run(f"""
        import quorumlog

        def main():
            producer = quorumlog.connect({cluster.bootstrap!r}).producer()
            for number in range(1000):
                producer.send("orders", b"%d" % number)

        main()
    """)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert cluster.values("orders") == [b"%d" % number for number in range(1000)]


def test_a_program_that_ends_without_a_close_says_what_it_has_lost(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    ended = run(f"""
        import quorumlog, quorumlog.sync
        quorumlog.sync.EXIT_SECONDS = 0.1
        client = quorumlog.connect({cluster.bootstrap!r})
        client.producer().send("orders", b"v")
    """)
    assert "ended without closing its client: 1 record(s) for orders[0] were not delivered" in ended.stderr


def test_a_callback_that_never_returns_does_not_keep_a_program_from_ending(cluster: FakeCluster) -> None:
    cluster.create("orders", 1)
    ended = run(f"""
        import threading, quorumlog, quorumlog.sync
        quorumlog.sync.EXIT_SECONDS = 0.1
        held = threading.Event()
        client = quorumlog.connect({cluster.bootstrap!r})
        future = client.producer().send("orders", b"v")
        future.add_done_callback(lambda _: (held.set(), threading.Event().wait()))
        held.wait()
    """)
    assert "ended without closing its client: a callback holds its thread" in ended.stderr


def test_a_forked_child_that_ends_leaves_its_parents_client_alone(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.create("orders", 1)
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        with monkeypatch.context() as child:
            child.setattr(PROCESS, "generation", PROCESS.generation + 1)
            leave_all()
        assert caplog.messages == []
        assert producer.send("orders", b"v").result(20).offset == 0

"""Completions among callbacks that raise, and in a forked child."""

import asyncio
import logging
import os
import subprocess
import sys
import textwrap

import pytest

import quorumlog
from quorumlog.futures import BatchCompletion, SendFuture
from tests.client.fake_cluster import FakeCluster


def finished(batch: BatchCompletion) -> BatchCompletion:
    batch.timestamps_ms = [1500]
    batch.base_offset = 7
    batch.finish()
    return batch


def broken(future: SendFuture) -> None:
    raise ZeroDivisionError("in the callback")


def test_a_callback_that_raises_is_logged_and_keeps_nobody_from_waking(caplog: pytest.LogCaptureFixture) -> None:
    batch = BatchCompletion("orders", 0)
    future = SendFuture(batch, 0)
    told = []
    future.add_done_callback(broken)
    future.add_done_callback(lambda done: told.append(done.result().offset))
    finished(batch)
    assert told == [7]
    (entry,) = caplog.records
    assert (entry.name, entry.levelno) == ("quorumlog", logging.ERROR)
    assert "a done callback raised" in entry.message
    assert entry.exc_info is not None
    assert entry.exc_info[0] is ZeroDivisionError


def test_a_callback_that_raises_at_once_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    SendFuture(finished(BatchCompletion("orders", 0)), 0).add_done_callback(broken)
    assert "ZeroDivisionError: in the callback" in caplog.text


def test_flush_returns_after_a_callback_that_raised(cluster: FakeCluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.create("orders", 1)
    cluster.hold_acks = asyncio.Event()
    with quorumlog.connect(cluster.bootstrap) as client, client.producer() as producer:
        future = producer.send("orders", b"v")
        future.add_done_callback(broken)
        cluster.loop.call_soon_threadsafe(cluster.hold_acks.set)
        producer.flush(timeout=20)
        assert future.result(20).offset == 0
    assert "ZeroDivisionError: in the callback" in caplog.text


def test_a_child_forked_in_the_middle_of_a_completion_can_complete_its_own() -> None:
    program = textwrap.dedent("""
        import os, signal, threading
        from quorumlog import futures
        from quorumlog.pending import PendingBatch

        held, forked = threading.Event(), threading.Event()

        def complete():
            with futures._LOCK:
                held.set()
                forked.wait()

        threading.Thread(target=complete).start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            PendingBatch("orders", 0, 0.0, 1.0).complete(0)
            os._exit(0)
        forked.set()
        _, status = os.waitpid(child, 0)
        raise SystemExit(abs(os.waitstatus_to_exitcode(status)))
    """)
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == os.EX_OK


def test_a_child_is_told_that_what_its_parent_sent_is_not_its_own_to_wait_for() -> None:
    program = textwrap.dedent("""
        import asyncio, os, signal
        from quorumlog.errors import ForkedProcess
        from quorumlog.futures import BatchCompletion, BulkFuture, SendFuture

        pending, done = (BatchCompletion("orders", 0) for _ in range(2))
        done.timestamps_ms = [1500]
        done.finish()

        async def awaited():
            await SendFuture(pending, 0)

        if os.fork() == 0:
            signal.alarm(10)
            assert SendFuture(done, 0).result().timestamp == 1.5
            one, many = SendFuture(pending, 0), BulkFuture([(pending, 0, 1)])
            uses = [one.result, one.exception, many.result, many.exception, lambda: one.add_done_callback(print),
                    lambda: asyncio.run(awaited())]
            for use in uses:
                try:
                    use()
                except ForkedProcess as error:
                    assert "this future belongs to the process that forked this one" in str(error)
                else:
                    os._exit(1)
            os._exit(0)
        _, status = os.wait()
        raise SystemExit(abs(os.waitstatus_to_exitcode(status)))
    """)
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == os.EX_OK

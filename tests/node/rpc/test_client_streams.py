"""Streams of clients that send much and read little, over a broker without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from quorumlog.node.broker.subscribe import Subscription
from quorumlog.node.rpc.groups_service import GroupsService
from quorumlog.node.rpc.log_service import LogService
from quorumlog.node.rpc.service import STREAM_QUEUE_MAX
from quorumlog.proto import client_pb2 as pb
from tests.node.broker.lone_broker import LoneBroker, batch

END = object()


class Call:
    """The server's side of one call: requests to read, and answers that are written while the client reads."""

    def __init__(self, requests: Iterable[object]) -> None:
        self._requests = iter(requests)
        self.read_count = 0
        self.written: list[Any] = []
        self.client_reads = asyncio.Event()
        self.client_reads.set()
        self.answered = asyncio.Event()

    async def read(self) -> object:
        await asyncio.sleep(0)
        self.read_count += 1
        return next(self._requests, END)

    async def write(self, answer: object) -> None:
        await self.client_reads.wait()
        self.written.append(answer)
        self.answered.set()


async def turns(count: int) -> None:
    """Let the loop turn so often that whatever can happen by itself has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


class Host:
    """A node that pumps its broker as soon as it is woken."""

    node_id = 1
    version = "test"

    def __init__(self) -> None:
        self.lone = LoneBroker()
        self.broker = self.lone.broker

    def wake(self) -> None:
        self.lone.settle()


def test_a_produce_stream_goes_on_after_more_failures_at_once_than_may_wait_to_be_written() -> None:
    host = Host()
    host.lone.create("t")
    refused = pb.PartitionBatch(topic="t", partition=9)
    many = pb.ProduceRequest(correlation_id=1, batches=[refused] * (STREAM_QUEUE_MAX + 1))
    good = pb.ProduceRequest(correlation_id=2, batches=[pb.PartitionBatch(topic="t", batch=batch([b"x"]))])

    async def run() -> Call:
        call = Call([many, good])
        await LogService(host).Produce(None, call)  # type: ignore[arg-type]  # what it uses of them is there
        return call

    results = [result for answer in asyncio.run(run()).written for result in answer.results]
    assert len(results) == STREAM_QUEUE_MAX + 2
    assert results[-1].correlation_id == 2
    assert not results[-1].HasField("error")


def test_a_member_that_does_not_read_is_not_read_either() -> None:
    host = Host()
    host.lone.create("t")
    join = pb.GroupRequest(join=pb.GroupJoin(group="g", topics=["t"]))
    commit = pb.GroupRequest(commit=pb.GroupCommit(commit_id=1))

    async def run() -> Call:
        call = Call([join, *[commit] * (2 * STREAM_QUEUE_MAX)])
        session = asyncio.create_task(GroupsService(host).GroupSession(None, call))  # type: ignore[arg-type]
        await call.answered.wait()
        call.client_reads.clear()
        await turns(3 * STREAM_QUEUE_MAX)
        assert STREAM_QUEUE_MAX <= call.read_count <= STREAM_QUEUE_MAX + 100
        call.client_reads.set()
        await session
        return call

    call = asyncio.run(run())
    assert call.read_count == 2 * STREAM_QUEUE_MAX + 2


def test_a_subscriber_that_does_not_read_is_not_read_either() -> None:
    host = Host()
    host.lone.create("t")
    failing = [pb.FetchPartition(topic="t", partition=number) for number in range(1000, 1256)]
    change = pb.SubscribeRequest(change=pb.SubscribeChange(add=failing, remove=failing))
    changes = 2 * STREAM_QUEUE_MAX // len(failing)

    async def run() -> Call:
        call = Call([pb.SubscribeRequest(open=pb.SubscribeOpen(credit_bytes=1)), *[change] * changes])
        call.client_reads.clear()
        stream = asyncio.create_task(LogService(host).Subscribe(None, call))  # type: ignore[arg-type]
        await turns(5 * changes)
        assert call.read_count <= changes // 2 + 5
        assert not stream.done()
        call.client_reads.set()
        await stream
        return call

    call = asyncio.run(run())
    assert len(call.written) == changes * len(failing)


def test_a_group_session_ends_when_reading_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    closed: list[object] = []

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(host.broker.groups, "on_request", broken)
    monkeypatch.setattr(host.broker.groups, "on_session_closed", closed.append)

    async def run() -> None:
        call = Call([pb.GroupRequest(join=pb.GroupJoin(group="g", topics=["t"]))])
        session = asyncio.create_task(GroupsService(host).GroupSession(None, call))  # type: ignore[arg-type]
        await turns(100)
        assert session.done()
        await session

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(run())
    assert len(closed) == 1


def test_a_subscription_ends_when_writing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    host.lone.create("t")
    host.lone.produce("t", batch([b"x"]))

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Subscription, "on_written", broken)

    async def run() -> None:
        call = Call([])
        opening = pb.SubscribeOpen(partitions=[pb.FetchPartition(topic="t")], credit_bytes=1000)
        first = asyncio.get_running_loop().create_future()
        first.set_result(pb.SubscribeRequest(open=opening))
        silence = asyncio.get_running_loop().create_future()
        reads = iter((first, silence))
        monkeypatch.setattr(call, "read", lambda: next(reads))
        stream = asyncio.create_task(LogService(host).Subscribe(None, call))  # type: ignore[arg-type]
        await turns(100)
        assert stream.done()
        await stream

    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(run())

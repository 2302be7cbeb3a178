"""Throughput of a producer."""

import asyncio
from collections.abc import Callable

from quorumlog import aio
from quorumlog.bench.measure import Figures, Settings, cycle_lists, payload_lists
from quorumlog.cli.output import Progress
from quorumlog.clock import monotonic
from quorumlog.futures import BulkFuture, SendFuture

SAMPLE_EVERY = 500
"""Records of `send` to one whose latency is taken."""


async def produce(client: aio.Client, topic: str, settings: Settings, progress: Progress) -> Figures:
    """Send for `seconds` with one producer, then wait for what is under way.

    The latency of a record is the time from the call that took it to its acknowledgement, at this full load.
    """
    lists = payload_lists(settings)
    async with client.producer(buffer_memory=settings.buffer_memory_bytes) as producer:
        # Connections, the producer's id and the first sync are not what is measured.
        await producer.send(topic, lists[0][0])
        await producer.flush()
        if settings.api == "send":
            return await _by_send(producer, topic, settings, progress, lists)
        return await _by_send_many(producer, topic, settings, progress, lists)


async def _by_send_many(
    producer: aio.Producer, topic: str, settings: Settings, progress: Progress, lists: list[list[bytes]]
) -> Figures:
    latencies: list[float] = []
    records = 0

    async def follow(future: BulkFuture, sent_at: float) -> None:
        await future
        latencies.append(monotonic() - sent_at)

    begin = monotonic()
    until = begin + settings.seconds
    async with asyncio.TaskGroup() as followers:
        for values in cycle_lists(lists):
            sent_at = monotonic()
            if sent_at >= until:
                break
            followers.create_task(follow(await producer.send_many(topic, values), sent_at))
            records += len(values)
            progress.show(f"{records} records sent")
    return Figures(records, monotonic() - begin, latencies, {"records_per_call": len(lists[0])})


async def _by_send(
    producer: aio.Producer, topic: str, settings: Settings, progress: Progress, lists: list[list[bytes]]
) -> Figures:
    latencies: list[float] = []
    records = 0
    send = producer.send
    begin = monotonic()
    until = begin + settings.seconds
    for values in cycle_lists(lists):
        for start in range(0, len(values), SAMPLE_EVERY):
            sampled, *others = values[start : start + SAMPLE_EVERY]
            sent_at = monotonic()
            (await send(topic, sampled)).add_done_callback(_sampler(latencies, sent_at))
            for value in others:
                await send(topic, value)
            records += 1 + len(others)
        progress.show(f"{records} records sent")
        if monotonic() >= until:
            break
    await producer.flush()
    return Figures(records, monotonic() - begin, latencies, {"records_per_call": 1})


def _sampler(latencies: list[float], sent_at: float) -> Callable[[SendFuture], None]:
    def sample(_: SendFuture) -> None:
        latencies.append(monotonic() - sent_at)

    return sample

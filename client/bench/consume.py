"""Throughput of a consumer."""

from quorumlog import aio
from quorumlog.bench.measure import Figures, Settings, cycle_lists, payload_lists
from quorumlog.cli.output import Progress
from quorumlog.clock import monotonic

FILL_BYTES = 100_000_000
FILL_RECORDS_MAX = 1_000_000


async def consume(client: aio.Client, topic: str, settings: Settings, progress: Progress) -> Figures:
    """Fill the topic, then read it from beginning to end, again and again for `seconds`; counts values handed out."""
    filled = await _fill(client, topic, settings, progress)
    records = passes = 0
    begin = now = monotonic()
    while now - begin < settings.seconds:
        async with client.consumer(topic, start="earliest", stop="latest") as consumer:
            async for values in consumer.values():
                records += len(values)
                now = monotonic()
                progress.show(f"{records} records read")
                if now - begin >= settings.seconds:
                    break
        passes += 1
    return Figures(records, now - begin, (), {"records_in_topic": filled, "passes": passes})


async def _fill(client: aio.Client, topic: str, settings: Settings, progress: Progress) -> int:
    wanted = min(FILL_RECORDS_MAX, max(1, FILL_BYTES // max(settings.size_bytes, 1)))
    filled = 0
    async with client.producer(buffer_memory=settings.buffer_memory_bytes) as producer:
        for values in cycle_lists(payload_lists(settings)):
            await producer.send_many(topic, values)
            filled += len(values)
            progress.show(f"{filled} records written")
            if filled >= wanted:
                return filled
    raise AssertionError("the lists have no end")

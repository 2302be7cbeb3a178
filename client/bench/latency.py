"""How long one record takes."""

from quorumlog import aio
from quorumlog.bench.measure import Figures, Settings, cycle_lists, payload_lists
from quorumlog.cli.output import Progress
from quorumlog.clock import monotonic

WARM_UP_RECORDS = 200


async def latency(client: aio.Client, topic: str, settings: Settings, progress: Progress) -> Figures:
    """Send one record at a time with the default options, the next one after the acknowledgement of the one before."""
    values = (value for values in cycle_lists(payload_lists(settings)) for value in values)
    latencies: list[float] = []
    async with client.producer() as producer:
        for value, _ in zip(values, range(WARM_UP_RECORDS), strict=False):
            await (await producer.send(topic, value))
        begin = sent_at = monotonic()
        for value in values:
            await (await producer.send(topic, value))
            now = monotonic()
            latencies.append(now - sent_at)
            if now - begin >= settings.seconds:
                break
            progress.show(f"{len(latencies)} records acknowledged")
            sent_at = monotonic()
    return Figures(len(latencies), now - begin, latencies, {"linger": "default", "records_in_flight": 1})

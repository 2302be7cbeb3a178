"""Records written and read: `python -m quorumlog.chaos.workloads.log`."""

from __future__ import annotations

import asyncio
import sys

from quorumlog.chaos.workloads.producing import Producer, send_by_client
from quorumlog.chaos.workloads.program import Stage, run
from quorumlog.chaos.workloads.reading import Reader, list_offsets

PRODUCERS = 3
SHARES = {"produce": 0.4, "client": 0.2, "leader": 0.2, "follower": 0.1, "offsets": 0.1}
"""Of the rate, by what is done."""


async def play(stage: Stage) -> None:
    """Write and read until it is time to end."""
    rate, topic = stage.orders.rate, stage.orders.topic
    share = {what: rate * part for what, part in SHARES.items()}
    async with asyncio.TaskGroup() as group:
        for number in range(1, PRODUCERS + 1):
            producer = Producer(stage, f"{topic}-producer-{number}")
            group.create_task(producer.run(share["produce"] / PRODUCERS))
        group.create_task(send_by_client(stage, f"{topic}-client", share["client"]))
        group.create_task(Reader(stage, f"{topic}-reader", follows=False).run(share["leader"]))
        group.create_task(Reader(stage, f"{topic}-follower", follows=True).run(share["follower"]))
        group.create_task(list_offsets(stage, f"{topic}-offsets", share["offsets"]))


if __name__ == "__main__":
    sys.exit(run(__doc__, play))

"""A member of a group: writes every record it has handled as a line into a file, until it is stopped or killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from quorumlog import aio


async def consume(bootstrap: str, topic: str, group: str, path: Path) -> None:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with (
        aio.connect(bootstrap) as client,
        client.consumer(topic, group=group, session_timeout=2.0) as consumer,
    ):
        with path.open("a", buffering=1) as handled:
            try:
                async for record in consumer:
                    assert record.value is not None
                    handled.write(f"{record.partition} {record.offset} {record.value.decode()}\n")
            except asyncio.CancelledError:
                this.uncancel()  # asked to stop: leave the group in order


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])))

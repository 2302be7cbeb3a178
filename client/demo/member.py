"""One member of the demo's consumer group, a process of its own: `python -m quorumlog.demo.member`."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from quorumlog import aio
from quorumlog.clock import monotonic
from quorumlog.demo.files import Consumed, consumed_path
from quorumlog.demo.samples import decode
from quorumlog.demo.signals import report, stop_event
from quorumlog.demo.windows import Windows
from quorumlog.errors import QuorumlogError
from quorumlog.records import Record

OPEN_SECONDS = 30.0
POLL_SECONDS = 0.25
REPORT_SECONDS = 0.5
TOP = 5


async def run(bootstrap: str, topic: str, group: str, folder: Path, member: int) -> None:
    """Note and aggregate what the group gives this member, until told to stop."""
    stopping = stop_event()
    windows = Windows()
    consumed = 0
    with consumed_path(folder, member).open("a") as out:
        async with aio.connect(bootstrap) as client, client.consumer(topic, group=group) as consumer:
            # By itself first: the short wait of a poll is not for finding the topic and the group.
            await consumer.open(timeout=OPEN_SECONDS)
            next_report = monotonic()
            while not stopping.is_set():
                # What was handed out before is done now, and it is in the file.
                records = await consumer.poll(max_records=1000, timeout=POLL_SECONDS)
                consumed += note(records, out, windows)
                if monotonic() >= next_report:
                    next_report = monotonic() + REPORT_SECONDS
                    tell(member, consumed, sorted(place.partition for place in consumer.assignment()), windows)
            if consumed:
                await consumer.commit()
        tell(member, consumed, [], windows)


def note(records: Sequence[Record], out: TextIO, windows: Windows) -> int:
    """Write records to the file and count them in their windows; returns how many."""
    for record in records:
        assert record.key is not None
        assert record.value is not None
        identity, sample = decode(record.key, record.value)
        out.write(Consumed(record.partition, record.offset, identity).line())
        windows.add(record.timestamp, sample)
    out.flush()
    return len(records)


def tell(member: int, consumed: int, partitions: list[int], windows: Windows) -> None:
    """Report progress and what used the most in the last window that is over."""
    usages = windows.closed()
    busiest = sorted(usages.items(), key=lambda entry: (-entry[1].cpu_percent(), -entry[1].resident_bytes))
    top = [[pid, usage.name, usage.cpu_percent(), usage.resident_bytes, usage.samples] for pid, usage in busiest[:TOP]]
    report(kind="member", member=member, consumed=consumed, partitions=partitions, top=top)


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--member", type=int, required=True)
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.bootstrap, arguments.topic, arguments.group, arguments.folder, arguments.member))
    except QuorumlogError as error:
        sys.stderr.write(f"member {arguments.member}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

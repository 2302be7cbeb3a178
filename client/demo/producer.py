"""One producer of the demo, a process of its own: `python -m quorumlog.demo.producer`."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TextIO

from quorumlog import aio
from quorumlog.clock import monotonic
from quorumlog.demo.files import Ack, acks_path
from quorumlog.demo.samples import Identity, encode, sample_processes
from quorumlog.demo.signals import report, stop_event
from quorumlog.errors import QuorumlogError
from quorumlog.futures import SendFuture

PAUSE_SECONDS = 0.005
REPORT_SECONDS = 0.25


class Notes:
    """Writes each acknowledgement to the file, and counts."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.acked = 0
        self.failed = 0
        self.sent = 0

    def follow(self, future: SendFuture, identity: Identity, sent_at: float) -> None:
        """Note the acknowledgement of a record when it comes."""
        self.sent += 1

        def done(future: SendFuture) -> None:
            if future.exception() is not None:
                self.failed += 1
                return
            appended = future.result()
            self._out.write(Ack(appended.partition, appended.offset, identity, sent_at, monotonic()).line())
            self.acked += 1

        future.add_done_callback(done)

    def tell(self, producer: int) -> None:
        """Flush the file and report."""
        self._out.flush()
        report(kind="producer", producer=producer, sent=self.sent, acked=self.acked, failed=self.failed)


async def run(bootstrap: str, topic: str, folder: Path, producer_id: int, rate: float) -> None:
    """Send samples, about `rate` per second, until told to stop; then wait for every acknowledgement.

    Raises:
        DeliveryFailed: a record was given up.
    """
    stopping = stop_event()
    with acks_path(folder, producer_id).open("a") as out:
        notes = Notes(out)
        try:
            async with aio.connect(bootstrap) as client, client.producer() as producer:
                reporter = asyncio.create_task(_report(notes, producer_id))
                try:
                    await _send(producer, topic, notes, producer_id, rate, stopping)
                    await producer.flush()
                finally:
                    reporter.cancel()
        finally:
            notes.tell(producer_id)


async def _send(
    producer: aio.Producer, topic: str, notes: Notes, producer_id: int, rate: float, stopping: asyncio.Event
) -> None:
    begin = monotonic()
    while not stopping.is_set():
        for sample in sample_processes():
            identity = Identity(producer_id, notes.sent)
            sent_at = monotonic()
            future = await producer.send(topic, encode(identity, sample), key=sample.key)
            notes.follow(future, identity, sent_at)
        ahead = notes.sent / rate - (monotonic() - begin)
        await _pause(stopping, max(PAUSE_SECONDS, ahead))


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


async def _report(notes: Notes, producer_id: int) -> None:
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        notes.tell(producer_id)


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--producer", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="records per second")
    arguments = parser.parse_args()
    try:
        asyncio.run(run(arguments.bootstrap, arguments.topic, arguments.folder, arguments.producer, arguments.rate))
    except QuorumlogError as error:
        sys.stderr.write(f"producer {arguments.producer}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

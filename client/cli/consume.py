"""`quorumlog consume`: records to standard output."""

import argparse
import sys
from collections.abc import Callable
from typing import BinaryIO

from quorumlog.cli.arguments import Position, add_bootstrap, open_client, position, positive, whole_32
from quorumlog.cli.errors import UsageError
from quorumlog.cli.formats import FORMAT_HELP, formatter, record_json
from quorumlog.cli.output import Progress
from quorumlog.records import Record
from quorumlog.sync import Client, Consumer

RECORDS_AT_ONCE = 1000


def consume(parser: argparse.ArgumentParser) -> None:
    """Write the records of a topic to standard output."""
    parser.add_argument("topic")
    parser.add_argument(
        "-g", "--group", help="share the partitions with the group's other members, and remember how far"
    )
    parser.add_argument(
        "-o",
        "--offset",
        type=position,
        default=Position(word="earliest"),
        metavar="start|end|OFFSET|@TIME",
        help="where to begin; with -g only where the group has not been before (default start)",
    )
    parser.add_argument("-p", "--partition", type=whole_32, action="append", help="only this one; may be repeated")
    parser.add_argument("-n", "--count", type=positive, help="end after so many records")
    parser.add_argument(
        "--until",
        type=position,
        metavar="end|OFFSET|@TIME",
        help="end there; `end` is the end as it is at the beginning (default: never)",
    )
    parser.add_argument("--format", default="%v", metavar="FORMAT", help=FORMAT_HELP)
    parser.add_argument(
        "--output", choices=("table", "json"), default="table", help="json: one object per line instead of --format"
    )
    add_bootstrap(parser)
    parser.set_defaults(run=run_consume)


def run_consume(arguments: argparse.Namespace) -> int:
    """Consume until --count, --until or Ctrl-C."""
    if arguments.group is not None and (arguments.partition or arguments.offset.offset is not None):
        raise UsageError(
            "a group decides itself who reads which partition from where",
            "leave out -p, and set offsets with: quorumlog group reset GROUP --topic TOPIC --to OFFSET",
        )
    if arguments.until is not None and arguments.until.word == "earliest":
        raise UsageError("--until start would consume nothing", "use --until end")
    write = record_json if arguments.output == "json" else formatter(arguments.format)
    with open_client(arguments) as client, _consumer(client, arguments) as consumer:
        _copy(consumer, sys.stdout.buffer, write, arguments.count, committing=arguments.group is not None)
    return 0


def _consumer(client: Client, arguments: argparse.Namespace) -> Consumer:
    begin: Position = arguments.offset
    until: Position | None = arguments.until
    stop = None if until is None else until.offset if until.offset is not None else until.word or until.time
    start = begin.word or (begin.time if begin.time is not None else "earliest")
    if not arguments.partition and begin.offset is None:
        return client.consumer(arguments.topic, group=arguments.group, start=start, stop=stop)
    chosen = arguments.partition
    if not chosen:
        chosen = [part.partition for part in client.topics.describe(arguments.topic).partitions]
    if begin.offset is not None:
        return client.consumer(partitions={arguments.topic: dict.fromkeys(chosen, begin.offset)}, stop=stop)
    return client.consumer(partitions={arguments.topic: chosen}, start=start, stop=stop)


def _copy(
    consumer: Consumer, out: BinaryIO, write: Callable[[Record], bytes], count: int | None, *, committing: bool
) -> None:
    """Write records to `out`. What a group commits has been written before: asking for more comes after the flush."""
    progress = Progress()
    written = 0
    try:
        while count is None or written < count:
            wanted = RECORDS_AT_ONCE if count is None else min(RECORDS_AT_ONCE, count - written)
            records = consumer.poll(max_records=wanted, timeout=None)
            if not records:
                break
            out.write(b"".join(map(write, records)))
            out.flush()
            written += len(records)
            if not out.isatty():
                progress.show(f"{written} records")
        if committing and written:
            consumer.commit()
    finally:
        progress.clear()

"""`quorumlog produce`: lines of standard input become records."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from quorumlog.cli.arguments import add_bootstrap, duration, open_client, pair, whole_32
from quorumlog.cli.errors import CommandFailed, UsageError
from quorumlog.cli.formats import unescape
from quorumlog.cli.output import Progress
from quorumlog.cli.streams import reason
from quorumlog.errors import DeliveryFailed, QuorumlogError
from quorumlog.futures import SendFuture
from quorumlog.sync import Producer

LINE_BYTES_MAX = 16 << 20
"""No topic takes a larger batch. A line below that may still be over the limit of its topic."""


def produce(parser: argparse.ArgumentParser) -> None:
    """Send each line of standard input as a record."""
    parser.add_argument("topic")
    parser.add_argument("-K", "--key-delimiter", metavar="DELIM", help="what stands before the first DELIM is the key")
    parser.add_argument("-p", "--partition", type=whole_32, help="this one instead of the one the key chooses")
    parser.add_argument(
        "-H", "--header", type=pair, action="append", default=[], metavar="NAME=VALUE", help="on every record"
    )
    parser.add_argument("--compression", choices=("gzip", "snappy", "lz4", "zstd"), help="of batches")
    parser.add_argument(
        "--delivery-timeout",
        type=duration,
        default=120.0,
        metavar="SECONDS",
        help="how long a record is tried for (default 120)",
    )
    add_bootstrap(parser)
    parser.set_defaults(run=run_produce)


def run_produce(arguments: argparse.Namespace) -> int:
    """Send standard input; raises CommandFailed if a line was refused, DeliveryFailed if one was not delivered."""
    delimiter = None
    if arguments.key_delimiter is not None:
        delimiter = unescape(arguments.key_delimiter).encode()
        if not delimiter:
            raise UsageError("-K needs a delimiter, not an empty one", "for example -K : or -K '\\t'")
    headers = [(name, value.encode()) for name, value in arguments.header]
    progress = Progress()
    with (
        open_client(arguments) as client,
        client.producer(compression=arguments.compression, delivery_timeout=arguments.delivery_timeout) as producer,
    ):
        try:
            _send(producer, arguments, lines_of(sys.stdin.buffer), delimiter, headers, progress)
            producer.flush()
        finally:
            progress.clear()
    return 0


def _send(
    producer: Producer,
    arguments: argparse.Namespace,
    lines: Iterable[bytes],
    delimiter: bytes | None,
    headers: list[tuple[str, bytes | None]],
    progress: Progress,
) -> None:
    """Put every line into the producer's buffer; stops early once a delivery has failed."""
    oldest: SendFuture | None = None
    for number, line in enumerate(lines, 1):
        key, value = split_key(line, delimiter)
        try:
            future = producer.send(
                arguments.topic,
                value,
                key=key,
                headers=headers or None,
                partition=arguments.partition,
                timeout=arguments.delivery_timeout,
            )
        except DeliveryFailed:
            raise
        except QuorumlogError as error:
            raise CommandFailed(f"line {number}: {error.message}", error.hint) from error
        # An endless input must not hide that nothing is delivered any more.
        if oldest is None or oldest.done():
            if oldest is not None and (failure := oldest.exception()) is not None:
                raise failure
            oldest = future
        progress.show(f"{number} records sent to {arguments.topic}")


def lines_of(source: BinaryIO) -> Iterator[bytes]:
    """Yield lines without their ends, and never hold more than one of them.

    Raises:
        CommandFailed: a line is longer than any record can be, or the source cannot be read.
    """
    number = 0
    try:
        while line := source.readline(LINE_BYTES_MAX + 1):
            number += 1
            line = line.removesuffix(b"\n")
            if len(line) > LINE_BYTES_MAX:
                raise CommandFailed(
                    f"line {number}: a record of more than {LINE_BYTES_MAX} bytes is over the limit of every topic",
                    "send a smaller one, or keep the payload elsewhere and send a reference",
                )
            yield line
    except OSError as error:
        raise CommandFailed(
            f"cannot read standard input: {reason(error)}", "give it lines, for example with < FILE"
        ) from error


def split_key(line: bytes, delimiter: bytes | None) -> tuple[bytes | None, bytes]:
    """Return (key, value) of a line; no key without a delimiter."""
    if delimiter is None:
        return None, line
    key, found, value = line.partition(delimiter)
    return (key, value) if found else (None, line)

"""Arguments that several commands share, and how what users write is read."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from quorumlog.cli.errors import UsageError
from quorumlog.cli.waiting import Waiting
from quorumlog.sync import Client, connect

CONNECT_SECONDS = 10.0
CLIENT_ID = "quorumlog-cli"


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Add `-b`."""
    parser.add_argument(
        "-b",
        "--bootstrap",
        metavar="HOST:PORT[,...]",
        help="any nodes of the cluster (default: $QUORUMLOG_BOOTSTRAP, else localhost:7070)",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add `--output`."""
    parser.add_argument(
        "--output", choices=("table", "json"), default="table", help="table for people, json for programs"
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every command that asks the cluster once has."""
    add_bootstrap(parser)
    add_output(parser)
    parser.add_argument("--timeout", type=duration, default=30.0, metavar="SECONDS", help="give up then (default 30)")


def open_client(arguments: argparse.Namespace) -> Client:
    """Connect as `-b` and `--timeout` say, and tell on standard error what calls wait for; raises as
    `quorumlog.connect`, and without patience where nothing listens at any address."""
    timeout = min(CONNECT_SECONDS, getattr(arguments, "timeout", CONNECT_SECONDS))
    return connect(arguments.bootstrap, client_id=CLIENT_ID, timeout=timeout, on_waiting=Waiting())


def duration(text: str) -> float:
    """Return seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def utf8(given: str) -> str:
    """Return the argument as it is, if it is UTF-8: it becomes part of a request or of a record.

    What is not reaches a program as halves of surrogate pairs.
    """
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{os.fsencode(given)!r} is not UTF-8: write it in UTF-8") from None
    return given


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    return _whole(text, 1)


def whole(text: str) -> int:
    """Return a whole number of at least 0."""
    return _whole(text, 0)


def positive_32(text: str) -> int:
    """Return a whole number of at least 1 that travels in 32 bits."""
    return _whole(text, 1, 1 << 32)


def whole_32(text: str) -> int:
    """Return a whole number of at least 0 that travels in 32 bits."""
    return _whole(text, 0, 1 << 32)


def _whole(text: str, least: int, end: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    if end is not None and value >= end:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number below {end}")
    return value


def pair(given: str) -> tuple[str, str]:
    """Return (key, value) of `key=value`."""
    key, equals, value = utf8(given).partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{given!r} is not key=value")
    return key, value


def pairs(option: str, given: Sequence[tuple[str, str]] | None) -> dict[str, str]:
    """Return repeated `key=value` as a mapping.

    Raises:
        UsageError: a key is given twice.
    """
    result: dict[str, str] = {}
    for key, value in given or ():
        if key in result:
            raise UsageError(f"{option} gives {key} twice: {result[key]} and {value}", "give it once")
        result[key] = value
    return result


@dataclass(frozen=True, slots=True)
class Position:
    """A position in a log as the user wrote it: exactly one of the three is given. `time` is seconds since 1970-01-01
    UTC."""

    word: Literal["earliest", "latest"] | None = None
    offset: int | None = None
    time: float | None = None


def position(text: str) -> Position:
    """Return the position that `start`, `end`, an offset or `@TIME` names; TIME is seconds since 1970-01-01 UTC or ISO
    8601."""
    if text in ("start", "earliest", "beginning"):
        return Position(word="earliest")
    if text in ("end", "latest"):
        return Position(word="latest")
    if text.startswith("@"):
        return Position(time=_time(text[1:]))
    if text.isdecimal():
        return Position(offset=_whole(text, 0, 1 << 63))
    raise argparse.ArgumentTypeError(f"{text!r} is not start, end, an offset or @TIME")


def _time(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'@{text}' is not a time: write @1700000000 (seconds) or @2026-01-31T12:00:00+00:00"
        ) from None

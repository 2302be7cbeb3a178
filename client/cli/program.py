"""Finds the verb, runs it, and says how it ended."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any, NoReturn

from quorumlog.bench.command import bench
from quorumlog.cli.arguments import utf8
from quorumlog.cli.cluster import cluster
from quorumlog.cli.consume import consume
from quorumlog.cli.doctor import doctor
from quorumlog.cli.errors import FAILED, USAGE, UsageError, describe
from quorumlog.cli.group import group
from quorumlog.cli.produce import produce
from quorumlog.cli.topic import topic
from quorumlog.errors import InvalidRequest, QuorumlogError

GROUP = "quorumlog.commands"

VERBS = {verb.__name__: verb for verb in (topic, produce, consume, group, cluster, bench, doctor)}

EXTRAS = {
    "chaos": ("chaos", "breaks a cluster of its own on purpose, and judges what its clients were told"),
    "dev": ("node", "a local cluster in the foreground, every node a process of its own"),
    "node": ("node", "one server process"),
}
"""Verbs of parts that need more than the client: which extra brings them, and what they are."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like every other error of the program, and whose arguments are UTF-8 where no type of
    their own says otherwise."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.register("type", None, utf8)

    def add_subparsers(self, **settings: Any) -> Any:
        """Add commands, whose own parsers judge the arguments behind them."""
        commands = super().add_subparsers(**settings)
        commands.type = str
        return commands

    def error(self, message: str) -> NoReturn:
        """Print the error and end with exit code 2."""
        sys.stderr.write(describe(message, f"see {self.prog} --help"))
        raise SystemExit(USAGE)


def run(given: Sequence[str]) -> int:
    """Run the verb that the arguments name; returns the exit code.

    Raises:
        CommandFailed: it is right, but did not succeed.
        SystemExit: what was asked for is help, or the command is wrong.
    """
    try:
        return _run(given)
    except UsageError as error:
        sys.stderr.write(describe(error.message, error.hint))
        return USAGE
    except QuorumlogError as error:
        sys.stderr.write(describe(error.message, error.hint))
        # What the client could tell without asking a cluster is wrong usage.
        return USAGE if isinstance(error, InvalidRequest) and error.code == "CLIENT" else FAILED


def _run(given: Sequence[str]) -> int:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if given and given[0] in {*found, *EXTRAS} and given[0] not in VERBS:
        return _run_extra(given[0], found.get(given[0]), given[1:])
    parser = _parser(found)
    arguments = parser.parse_args(given)
    if "run" not in arguments:
        parser.print_help()
        return USAGE
    return int(arguments.run(arguments))


def _parser(found: dict[str, EntryPoint]) -> Parser:
    parser = Parser(
        prog="quorumlog",
        description="A distributed replicated log: topics, records, consumer groups, clusters.",
        epilog="`-b` or the environment variable QUORUMLOG_BOOTSTRAP names the cluster; the default is localhost:7070. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 the reader of the output has gone.",
    )
    parser.add_argument("--version", action="version", version=f"quorumlog {_version()}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, verb in VERBS.items():
        what = (verb.__doc__ or "").strip().splitlines()[0].rstrip(".")
        verb(verbs.add_parser(name, help=what, description=f"{what}."))
    for name in sorted({*found, *EXTRAS}):
        # Only for the overview: they are loaded when they are called, because loading a server takes a while.
        verbs.add_parser(name, help=EXTRAS[name][1] if name in EXTRAS else f"see quorumlog {name} --help")
    return parser


def _run_extra(name: str, point: EntryPoint | None, rest: Sequence[str]) -> int:
    extra = EXTRAS[name][0] if name in EXTRAS else name
    try:
        if point is None:
            raise ModuleNotFoundError(name=name)
        verb = point.load()
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "quorumlog" and point is not None:
            raise  # a part of the package itself: a bug, not something to install
        sys.stderr.write(describe(f"{name} needs: pip install 'quorumlog[{extra}]'"))
        return USAGE
    parser = Parser(prog=f"quorumlog {name}", description=(verb.__doc__ or "").strip())
    verb(parser)
    arguments = parser.parse_args(rest)
    return int(arguments.run(arguments))


def _version() -> str:
    try:
        return version("quorumlog")
    except PackageNotFoundError:
        return "0+unknown"

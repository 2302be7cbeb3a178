"""The verb `chaos`: break a cluster of one's own on purpose, and write down what its clients are told."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.runner import Orders, Run
from quorumlog.chaos.schedule import check_kinds
from quorumlog.chaos.workloads.catalogue import WORKLOADS, check_workloads
from quorumlog.cli.arguments import add_output, duration, whole
from quorumlog.cli.errors import INTERRUPTED
from quorumlog.cli.output import print_json, print_table
from quorumlog.errors import InvalidRequest

NODES_MAX = 9


def chaos(parser: argparse.ArgumentParser) -> None:
    """Break a cluster of one's own on purpose, and write down what its clients are told."""
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = verbs.add_parser("run", help="start a cluster, break it, and heal it")
    run.add_argument("--nodes", type=int, default=3, help="how many (default 3)")
    run.add_argument("--seconds", type=duration, default=60.0, help="how long faults come and go (default 60)")
    run.add_argument("--seed", type=whole, help="of the schedule (default: drawn, and printed)")
    run.add_argument("--faults", type=_names, default=("kill",), metavar="A,B", help=", ".join(FAULTS) + ", or all")
    run.add_argument("--workloads", type=_names, default=("log",), metavar="A,B", help=", ".join(WORKLOADS))
    run.add_argument("--schedule", type=Path, metavar="FILE", help="replay the schedule.json of another run")
    run.add_argument("--directory", type=Path, help="a new folder for the run (default: a temporary one, printed)")
    add_output(run)
    run.set_defaults(run=run_chaos)


def run_chaos(arguments: argparse.Namespace) -> int:
    """Run; returns the exit code."""
    if not 1 <= arguments.nodes <= NODES_MAX:
        raise InvalidRequest(
            f"--nodes {arguments.nodes} is not between 1 and {NODES_MAX}", hint="3 lose one node at a time, 5 two"
        )
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="quorumlog-chaos-"))
    faults = tuple(FAULTS) if arguments.faults == ("all",) else check_kinds(arguments.faults)
    orders = Orders(
        directory,
        arguments.nodes,
        arguments.seconds,
        seed,
        faults,
        check_workloads(arguments.workloads),
        arguments.schedule,
    )
    run = Run(orders, _say)
    try:
        asyncio.run(_interruptible(run))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say(f"interrupted; what there is of the run is in {directory}")
        return INTERRUPTED
    told = {"directory": str(directory), "seed": seed, "faults": len(run.plan)}
    if arguments.output == "json":
        print_json(told)
    else:
        print_table(("figure", "value"), list(told.items()))
    return 0


async def _interruptible(run: Run) -> None:
    """SIGTERM and the end of the terminal do what Ctrl-C does."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await run.run()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())

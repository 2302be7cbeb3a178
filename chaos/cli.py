"""The verb `chaos`: break a cluster of one's own on purpose, and judge what its clients were told."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.judge import Finding, Verdict, judge
from quorumlog.chaos.runner import Orders, Run
from quorumlog.chaos.schedule import check_kinds
from quorumlog.chaos.workloads.catalogue import WORKLOADS, check_workloads
from quorumlog.cli.arguments import add_output, duration, whole
from quorumlog.cli.errors import INTERRUPTED, UsageError
from quorumlog.cli.output import print_json
from quorumlog.errors import InvalidRequest

NODES_MAX = 9
EXIT_CODES = "Exit codes: 0 passed, 3 an anomaly, 4 invalid: too little happened for green to mean anything."


def chaos(parser: argparse.ArgumentParser) -> None:
    """Break a cluster of one's own on purpose, and judge what its clients were told."""
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = verbs.add_parser("run", help="start a cluster, break it, heal it, and judge the run", epilog=EXIT_CODES)
    run.add_argument("--nodes", type=int, default=3, help="how many (default 3)")
    run.add_argument("--seconds", type=duration, default=60.0, help="how long faults come and go (default 60)")
    run.add_argument("--seed", type=whole, help="of the schedule (default: drawn, and printed)")
    run.add_argument("--faults", type=_names, default=("kill",), metavar="A,B", help=", ".join(FAULTS) + ", or all")
    run.add_argument("--workloads", type=_names, default=("log",), metavar="A,B", help=", ".join(WORKLOADS))
    run.add_argument("--schedule", type=Path, metavar="FILE", help="replay the schedule.json of another run")
    run.add_argument("--directory", type=Path, help="a new folder for the run (default: a temporary one, printed)")
    add_output(run)
    run.set_defaults(run=run_chaos)
    again = verbs.add_parser("judge", help="judge the folder of a run once more", epilog=EXIT_CODES)
    again.add_argument("directory", type=Path, help="folder of the run")
    add_output(again)
    again.set_defaults(run=judge_again)


def run_chaos(arguments: argparse.Namespace) -> int:
    """Run and judge; returns the exit code."""
    if importlib.util.find_spec("rocksdict") is None:  # judging needs no server, running does
        raise UsageError("chaos run needs: pip install 'quorumlog[chaos]'", "")
    if not 1 <= arguments.nodes <= NODES_MAX:
        raise InvalidRequest(
            f"--nodes {arguments.nodes} is not between 1 and {NODES_MAX}", hint="3 lose one node at a time, 5 two"
        )
    workloads = check_workloads(arguments.workloads)
    faults = tuple(FAULTS) if arguments.faults == ("all",) else check_kinds(arguments.faults)
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="quorumlog-chaos-"))
    orders = Orders(directory, arguments.nodes, arguments.seconds, seed, faults, workloads, arguments.schedule)
    try:
        asyncio.run(_interruptible(Run(orders, _say)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _say(f"interrupted; what there is of the run is in {directory}")
        return INTERRUPTED
    verdict = judge(directory)
    if verdict.finding is Finding.PASSED:
        shutil.rmtree(directory / "data")  # what the nodes stored; all else stays
    return _tell(verdict, directory, seed, arguments.output)


def judge_again(arguments: argparse.Namespace) -> int:
    """Judge; returns the exit code."""
    verdict = judge(arguments.directory)
    return _tell(verdict, arguments.directory, None, arguments.output)


def _tell(verdict: Verdict, directory: Path, seed: int | None, output: str) -> int:
    if output == "json":
        told = {"directory": str(directory)} | ({} if seed is None else {"seed": seed})
        print_json(told | verdict.to_json())
    else:
        print(verdict.to_text())
        print(f"the run is in {directory}" + ("" if seed is None else f"; its seed is {seed}"))
    return verdict.finding.exit_code


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

"""`python -m quorumlog.chaos.sim`: simulate clusters, seed by seed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from quorumlog.chaos.sim import schedule, wall
from quorumlog.chaos.sim.failures import SimulationFailed, Verdict, verdict_of
from quorumlog.chaos.sim.many import compare
from quorumlog.chaos.sim.record import Record
from quorumlog.chaos.sim.seeds import PROCESSES, Job, perform, perform_all
from quorumlog.chaos.sim.shrink import shrink
from quorumlog.chaos.sim.swarm import Swarm
from quorumlog.chaos.sim.tally import Outcome, Tally

STORIES_MAX = 3


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m quorumlog.chaos.sim",
        description="Whole clusters under virtual time and faults drawn from seeds.",
        epilog="Exit codes: 0 green, 3 crash, 4 liveness, 5 correctness, 6 invalid (too little happened).",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, metavar="K", help="the first seed (default: drawn, and printed)")
    parser.add_argument("--seed", type=int, metavar="S", help="this seed alone, in this process")
    parser.add_argument("--nodes", type=int, default=0, metavar="N", help="nodes (default: each seed draws its own)")
    parser.add_argument("--seconds", type=float, default=120.0, help="of faults, simulated (default: %(default)g)")
    parser.add_argument("--for-seconds", type=float, metavar="T", help="begin no further seed after this long")
    parser.add_argument("--only", metavar="A,B,...", help="with --seed: these faults of its schedule alone, or none")
    parser.add_argument("--shrink", action="store_true", help="with --seed: look for the shortest schedule that fails")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="append outcomes there, and skip what is green there"
    )
    parser.add_argument("--processes", type=int, default=PROCESSES, help="at once (default: %(default)s)")
    parser.add_argument(
        "--many", metavar="NODES,GROUPS", help="instead: what so many groups cost that have nothing to do"
    )
    parser.add_argument("--keep-going", action="store_true", help="run all seeds whatever happens")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for. Returns the exit code."""
    options = arguments(words)
    if options.many is not None:
        return sleepers(*map(int, options.many.split(",")))
    if options.seed is not None:
        return one(options)
    return many(options)


def sleepers(nodes: int, groups: int) -> int:
    """Show what groups cost that have nothing to do."""
    try:
        for cost in compare(nodes, groups):
            print(cost, flush=True)
    except SimulationFailed as error:
        print(error)
        return verdict_of(error)
    return Verdict.GREEN


def one(options: argparse.Namespace) -> int:
    """One seed in this process."""
    strokes = None
    if options.only is not None:
        strokes = () if options.only == "none" else tuple(int(number) for number in options.only.split(","))
    job = Job(options.seed, options.nodes, options.seconds, strokes)
    print(f"seed {job.seed}", flush=True)
    outcome = perform(job)
    tally = Tally()
    tally.add(outcome)
    if outcome.verdict is not Verdict.GREEN:
        tell(outcome)
        if options.shrink:
            shorten(job, outcome.verdict)
    print(f"trace {outcome.trace}")
    print(tally.last_line())
    print(f"seed {job.seed}")
    return outcome.verdict


def shorten(job: Job, verdict: Verdict) -> None:
    """Print the shortest schedule that fails in the same class."""
    swarm = Swarm(job.seed, job.nodes, job.seconds)
    drawn = schedule.draw(swarm.rng, swarm.seconds, swarm.kinds_share)
    tried = 0

    def fails(strokes: Sequence[int]) -> bool:
        nonlocal tried
        tried += 1
        failed = perform(job._replace(strokes=tuple(strokes))).verdict is verdict
        print(f"shrink: {len(strokes)} faults {'still fail' if failed else 'are too few'}", file=sys.stderr)
        return failed

    numbers = [stroke.number for stroke in drawn] if job.strokes is None else list(job.strokes)
    left = shrink(numbers, fails)
    print(f"{len(left)} of {len(numbers)} faults are enough, after {tried} runs:")
    for stroke in drawn:
        if stroke.number in left:
            print(f"  {stroke.number:3d}  at {stroke.at:7.3f} s  {stroke.kind}")
    tell(perform(job._replace(strokes=tuple(left))))


def many(options: argparse.Namespace) -> int:
    """Many seeds in two processes."""
    first = SystemRandom().randrange(1 << 40) if options.first is None else options.first
    last = first + options.seeds - 1
    record = Record(options.record, Path(__file__).resolve().parents[2]) if options.record is not None else None
    done = record.green_seeds() if record is not None else set()
    print(f"seeds {first} to {last}" + (f", {len(done)} are green already" if done else ""), flush=True)
    began = wall.seconds()

    def jobs() -> list[Job]:
        return [Job(seed, options.nodes, options.seconds) for seed in range(first, last + 1) if seed not in done]

    tally = Tally()
    for outcome in perform_all(jobs(), options.processes):
        tally.add(outcome)
        if record is not None:
            record.add(outcome)
        if outcome.verdict is not Verdict.GREEN and tally.violations <= STORIES_MAX:
            tell(outcome)
        late = options.for_seconds is not None and wall.seconds() - began > options.for_seconds
        if late or (tally.failures and not options.keep_going):
            break
    passed = wall.seconds() - began
    if record is not None:
        seeds, seconds, acks = record.sums()
        print(f"green on this code so far: seeds {seeds}, simulated hours {seconds / 3600:.1f}, acks {acks}")
    pace = tally.simulated_seconds / 3600 / (passed / 60)
    rate = tally.simulated_seconds / max(tally.cpu_seconds, 1e-9)
    print(f"{pace:.2f} simulated hours per minute in {options.processes} processes, {rate:.0f} s per processor second")
    print(tally.last_line())
    print(f"seeds {first} to {first + max(tally.seeds, 1) - 1} and the verdict is {tally.verdict.name}")
    return tally.verdict


def tell(outcome: Outcome) -> None:
    """Print the story of a failure."""
    print(f"seed {outcome.seed} failed:")
    print(outcome.story)
    print(f"again: {outcome.command}")
    print(f"fewer faults: {outcome.command} --shrink", flush=True)


if __name__ == "__main__":
    sys.exit(main())

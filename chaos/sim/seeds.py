"""Seeds run one after the other in two processes, each to its outcome."""

from __future__ import annotations

import gc
import multiprocessing
import traceback
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from quorumlog.chaos.sim import wall
from quorumlog.chaos.sim.failures import SimulationFailed, Verdict, verdict_of
from quorumlog.chaos.sim.run import Run
from quorumlog.chaos.sim.story import replay_command, story
from quorumlog.chaos.sim.swarm import Swarm
from quorumlog.chaos.sim.tally import Outcome

PROCESSES: Final = 2
TRACEBACK_LINES: Final = 12


class Job(NamedTuple):
    """One seed and how it is to be run."""

    seed: int
    nodes: int = 0
    seconds: float = 120.0
    strokes: tuple[int, ...] | None = None


def perform(job: Job) -> Outcome:
    """Run a seed to its outcome. Nothing is raised."""
    began = wall.cpu_seconds()
    run = Run(Swarm(job.seed, job.nodes, job.seconds), job.strokes)
    failed: BaseException | None = None
    # The garbage of a run is mostly one world, and that goes with it; looking for more in between costs a tenth.
    gc.disable()
    try:
        run.go()
    except Exception as error:  # noqa: BLE001 # whatever it is, it is what the run has found
        failed = error
    finally:
        gc.enable()
    outcome = Outcome(
        seed=job.seed,
        verdict=Verdict.GREEN if failed is None else verdict_of(failed),
        trace=run.world.trace,
        simulated_seconds=run.world.clock.now() - run.began,
        cpu_seconds=0.0,
        acked=run.acked,
        counts=dict(run.world.counts),
    )
    if failed is not None:
        outcome.message = f"{type(failed).__name__}: {failed}"
        outcome.story = story(run, failed)
        if not isinstance(failed, SimulationFailed):
            trace = "".join(traceback.format_exception(failed)).splitlines()
            outcome.story += "\n" + "\n".join(trace[-TRACEBACK_LINES:])
        outcome.command = replay_command(run, job.strokes)
    del run, failed
    gc.collect()
    outcome.cpu_seconds = wall.cpu_seconds() - began
    return outcome


def perform_all(jobs: Iterable[Job], processes: int = PROCESSES) -> Iterator[Outcome]:
    """The outcomes as they come. Leaving the iteration early ends what is still running."""
    if processes == 1:
        for job in jobs:
            yield perform(job)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(perform, jobs)

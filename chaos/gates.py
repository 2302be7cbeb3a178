"""What a run must have had for a pass to mean something. Where one of these is missing the run is invalid."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.history.events import NEVER, Nemesis

PER_SECOND_MIN: Final = 50.0
IN_WINDOW_MIN: Final = 100
WINDOW_SECONDS_MIN: Final = 1.0
FINAL_READS_SHARE_MIN: Final = 0.95
SECOND: Final = 1_000_000_000
RECOVERY: Final = 10 * SECOND
BUG: Final = 70
"""Exit code of a node that ends because of a bug."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition: what was measured, what is asked for, and what that means in words."""

    name: str
    measured: float
    required: float
    explanation: str

    @property
    def open(self) -> bool:
        """Whether the condition holds."""
        return self.measured >= self.required


def gates(evidence: Evidence) -> list[Gate]:
    """Return every condition with what was measured, also those that hold."""
    return [
        _throughput(evidence),
        *_windows(evidence),
        *_bites(evidence),
        _final_reads(evidence),
        *_drained(evidence),
        _own_values(evidence),
        _nodes(evidence),
    ]


def _throughput(evidence: Evidence) -> Gate:
    history = evidence.history
    seconds = history.run.get("seconds")
    if not isinstance(seconds, int | float) or seconds <= 0:
        times = history.successes
        seconds = (times[-1] - times[0]) / SECOND if len(times) > 1 else 0.0
    per_second = len(history.successes) / seconds if seconds else 0.0
    text = f"{len(history.successes)} operations succeeded in {seconds:.1f} s, {per_second:.1f} per second"
    return Gate("throughput", round(per_second, 1), PER_SECOND_MIN, text)


def _windows(evidence: Evidence) -> Iterator[Gate]:
    """While a fault lasts enough has to succeed: 100 operations, in a window of less than two seconds 50 per second.

    Shorter than a second says nothing. Where faults together leave no majority nothing need succeed meanwhile, so the
    ten seconds after the last of them count as well.
    """
    times = evidence.history.successes
    ends = {id(fault): _end(fault, times) for fault in evidence.history.faults}
    for fault in evidence.history.faults:
        ended = ends[id(fault)]
        seconds = (ended - fault.invoked) / SECOND
        if seconds <= WINDOW_SECONDS_MIN:
            continue
        together = [
            other
            for other in evidence.history.faults
            if other.invoked <= ended and fault.invoked <= ends[id(other)] + _lingers(other)
        ]
        until = ended
        if not _majority_left(evidence.history.run.get("nodes"), together):
            until = max(ends[id(other)] for other in together) + RECOVERY
        required = min(IN_WINDOW_MIN, round(PER_SECOND_MIN * seconds))
        count = bisect_right(times, until) - bisect_left(times, fault.invoked)
        text = (
            f"{count} operations succeeded from {evidence.seconds(fault.invoked)} s to {evidence.seconds(until)} s, "
            f"around {fault.kind} on {', '.join(map(str, fault.targets)) or 'nothing'}"
        )
        yield Gate(f"window {fault.kind} {fault.process} #{fault.number}", count, required, text)


def _end(fault: Nemesis, times: list[int]) -> int:
    return fault.completed if fault.completed != NEVER else max([fault.invoked, *times[-1:]])


def _lingers(fault: Nemesis) -> int:
    """A node that was hit takes its time to come back; a link is there at once."""
    return RECOVERY if any(str(target).startswith("node ") for target in fault.targets) else 0


def _majority_left(nodes: object, faults: list[Nemesis]) -> bool:
    """Whether some node that is not hit has links that are not hit, both ways, to a majority of such nodes and itself.

    Targets are "node 1" and "1>2", a link in one direction; others hit neither.
    """
    if not isinstance(nodes, int):
        return True
    targets = {str(target) for fault in faults for target in fault.targets}
    whole = [node for node in range(1, nodes + 1) if f"node {node}" not in targets]
    reached = (sum(not {f"{one}>{two}", f"{two}>{one}"} & targets for two in whole) for one in whole)
    return any(2 * count > nodes for count in reached)


def _bites(evidence: Evidence) -> Iterator[Gate]:
    """Every fault that was planned began as often as planned, and of each something was seen."""
    planned = Counter(str(one.get("fault")) for one in evidence.history.planned)
    begun = Counter(fault.kind for fault in evidence.history.faults)
    bit = Counter(fault.kind for fault in evidence.history.faults if fault.bit and not fault.failed)
    for kind in sorted(planned | begun):
        required = max(planned[kind], begun[kind])
        text = f"{kind} was planned {planned[kind]} times, began {begun[kind]} times and bit {bit[kind]} times"
        yield Gate(f"bite {kind}", bit[kind], required, text)


def _final_reads(evidence: Evidence) -> Gate:
    reads = evidence.history.final_reads
    complete = sum(read.ok for read in reads)
    share = complete / len(reads) if reads else 0.0
    text = f"{complete} of {len(reads)} final reads are complete"
    return Gate("final reads", round(share, 4), FINAL_READS_SHARE_MIN, text)


def _drained(evidence: Evidence) -> Iterator[Gate]:
    """Every partition with acknowledged records was read in the end, on one replica at least."""
    wanted = [log for log in evidence.living_logs() if any(produce.ok for produce in log.produces)]
    missing = [log.tp for log in wanted if not log.dumps]
    text = f"{len(wanted) - len(missing)} of {len(wanted)} partitions with acknowledged records were read in the end"
    if missing:
        text += f"; not {', '.join(missing[:10])}"
    yield Gate("drained", len(wanted) - len(missing), len(wanted), text)


def _own_values(evidence: Evidence) -> Gate:
    """A value that was written by two operations proves nothing, whatever becomes of it."""
    twice = evidence.written_twice
    text = f"{len(twice)} values were written by two operations" + (f", such as {twice[0]}" if twice else "")
    return Gate("values", -len(twice), 0, text)


def _nodes(evidence: Evidence) -> Gate:
    """No node ended, or logged an exception, because of a bug: by status 70, or by a signal that no fault has sent."""
    run = evidence.history.run
    ends = [
        one for one in run.get("exits") or () if not one["expected"] and (one["status"] < 0 or one["status"] == BUG)
    ]
    told = [f"node {one['node']} (pid {one['pid']}) ended with {one['status']}" for one in ends]
    told += [str(line) for line in run.get("bugs") or ()]
    text = f"{len(told)} times a node showed a bug" + (f": {told[0]}" if told else "")
    return Gate("nodes", -len(told), 0, text)

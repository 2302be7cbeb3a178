"""The order in which records stand: K6, K7, K8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, Log
from quorumlog.chaos.checkers.sweep import sweep
from quorumlog.chaos.history.events import Fetch, ListOffsets, Operation, Produce


class Span(NamedTuple):
    """The lowest and the highest offset of what an operation has appended or read."""

    lowest: int
    highest: int
    operation: Operation


def realtime_order(evidence: Evidence) -> Iterator[Anomaly]:
    """K6: what was completed before something else was invoked stands after it.

    For two produces of different processes (of one process it is K7): offsets of the first are all below those of the
    second. For a read and a produce: a record whose writing began after the read does not stand below the end that the
    read told (where the read returned it, it is K23). O(N log N).
    """
    for log in evidence.all_logs():
        writes = [span for span in (_span(log, produce) for produce in log.produces) if span is not None]
        bounds = _HighestOfOthers()
        for later, completes in sweep([*writes, *_reads(log)], lambda one: one.operation):
            if completes:
                bounds.add(later)
                continue
            if not isinstance(later.operation, Produce):
                continue
            earlier = bounds.above(later)
            if earlier is not None and not _was_read_before(log, later.operation):
                yield anomaly(
                    evidence,
                    "K6",
                    log.tp,
                    f"offset {earlier.highest} was {_verb(earlier.operation)} before the writing of what stands at "
                    f"offset {later.lowest} began",
                    earlier.operation,
                    later.operation,
                )


def _was_read_before(log: Log, produce: Produce) -> bool:
    reads = (log.first_read.get(value) for value in produce.values)
    return any(read is not None and read.completed < produce.invoked for read in reads)


class _HighestOfOthers:
    """The highest offset of all completed operations, of those of other processes where a produce is compared."""

    def __init__(self) -> None:
        self._read: Span | None = None
        self._written: list[Span] = []  # the highest two of different processes, the higher one first

    def add(self, span: Span) -> None:
        if not isinstance(span.operation, Produce):
            if self._read is None or span.highest > self._read.highest:
                self._read = span
            return
        best: dict[str, Span] = {}
        for one in sorted([*self._written, span], key=lambda one: -one.highest):
            best.setdefault(one.operation.process, one)
        self._written = list(best.values())[:2]

    def above(self, later: Span) -> Span | None:
        """Return what was completed and stands at the place of `later` or above it."""
        for span in self._written:
            if span.operation.process != later.operation.process and span.highest >= later.lowest:
                return span
        return self._read if self._read is not None and self._read.highest >= later.lowest else None


def _verb(operation: Operation) -> str:
    return "written" if isinstance(operation, Produce) else "known as committed"


def _found(log: Log, produce: Produce) -> list[int]:
    return [log.found[value].offset for value in produce.values if value in log.found and value not in log.strewn]


def _span(log: Log, produce: Produce) -> Span | None:
    """Where the values of an operation were found; where none was, what its acknowledgement says."""
    if produce.failed:
        return None  # where it may not be at all, it has no order
    found = _found(log, produce)
    if found:
        return Span(min(found), max(found), produce)
    if not log.strewn.isdisjoint(produce.values):
        return None
    if produce.ok and produce.base_offset is not None:
        count = len(produce.values) if produce.batch else 1
        return Span(produce.base_offset, produce.base_offset + count - 1, produce)
    return None


def _reads(log: Log) -> Iterator[Span]:
    replies: list[Fetch | ListOffsets] = [*log.fetches, *log.listings]
    for told in replies:
        if told.high_watermark:
            yield Span(0, told.high_watermark - 1, told)
    for poll in log.polls:
        offsets = [record.offset for record in poll.records if record.tp == log.tp]
        yield Span(min(offsets), max(offsets), poll)


def program_order(evidence: Evidence) -> Iterator[Anomaly]:
    """K7: records that one process has written to one partition stand in the order in which it wrote them, as long as
    they are acknowledged or found; of one operation they stand in its order (of a batch it is K8). O(N).
    """
    for log in evidence.all_logs():
        latest: dict[str, Span] = {}
        for produce in log.produces:
            span = _span(log, produce)
            if span is None:
                continue
            before = latest.get(produce.process)
            if before is not None and before.highest >= span.lowest:
                yield anomaly(
                    evidence,
                    "K7",
                    log.tp,
                    f"{produce.process} wrote what stands at offset {before.highest} before what stands at offset "
                    f"{span.lowest}",
                    before.operation,
                    produce,
                )
            if before is None or span.highest > before.highest:
                latest[produce.process] = span
            if not produce.batch:
                found = _found(log, produce)
                if found != sorted(found):
                    yield anomaly(evidence, "K7", log.tp, f"records of one operation stand at {found}", produce)


def torn_batches(evidence: Evidence) -> Iterator[Anomaly]:
    """K8: the records of one batch stand side by side, in their order, and have one term. O(N)."""
    for log in evidence.all_logs():
        for produce in log.produces:
            if not produce.batch or len(produce.values) < 2:
                continue
            found = [
                (place, log.found[value])
                for place, value in enumerate(produce.values)
                if value in log.found and value not in log.strewn
            ]
            bases = {sighting.offset - place for place, sighting in found}
            terms = {sighting.term for _, sighting in found if sighting.term is not None}
            if len(bases) > 1 or len(terms) > 1:
                places = ", ".join(f"{one.offset} (term {one.term})" for _, one in found)
                yield anomaly(evidence, "K8", log.tp, f"records of one batch stand at {places}", produce)

"""What reads leave out, and what they tell of the ends of logs: K9, K10, K11."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, Log, offsets_of
from quorumlog.chaos.checkers.stints import stints
from quorumlog.chaos.checkers.sweep import sweep
from quorumlog.chaos.history.events import Fetch, FinalRead, ListOffsets, Operation, Produce


def skips(evidence: Evidence) -> Iterator[Anomaly]:
    """K9: a read leaves out a record that others have read.

    A fetch with records begins at the first visible one from the offset asked (or the log's beginning) on, goes upward,
    and leaves none out. What a member of a group is given of a partition goes upward, and on where the poll before
    ended, as long as it keeps the partition; what was trimmed may be left out. That it goes back is K32. O(N log N).
    """
    for log in evidence.all_logs():
        for fetch in log.fetches:
            if fetch.records:
                yield from _skips_of_fetch(evidence, log, fetch)
    for stint in stints(evidence):
        log = evidence.log(stint.tp)
        position: int | None = None
        before: Operation | None = None
        for poll, offsets in stint.given:
            if offsets != sorted(set(offsets)):
                yield anomaly(evidence, "K9", log.tp, f"one poll has offsets {_few(offsets)}", poll)
                break
            begin = max(offsets[0] if position is None else position, log.trimmed)
            missing = log.unseen_between(begin, offsets[-1], offsets)
            if missing is not None:
                text = f"the polls of {stint.member} leave out offset {missing}"
                yield anomaly(evidence, "K9", log.tp, text, before, poll)
            position, before = offsets[-1] + 1, poll


def _skips_of_fetch(evidence: Evidence, log: Log, fetch: Fetch) -> Iterator[Anomaly]:
    offsets = [record.offset for record in fetch.records]
    if offsets != sorted(set(offsets)) or offsets[0] < fetch.wanted:
        text = f"a fetch from offset {fetch.wanted} has offsets {_few(offsets)}"
        yield anomaly(evidence, "K9", log.tp, text, fetch)
        return
    missing = log.unseen_between(max(fetch.wanted, fetch.start), offsets[-1], offsets)
    if missing is not None:
        seen = log.reads.get(missing)
        text = f"a fetch from offset {fetch.wanted} to {offsets[-1]} leaves out offset {missing}"
        yield anomaly(evidence, "K9", log.tp, text, fetch, seen.operation if seen is not None else None)


def _few(offsets: list[int]) -> str:
    return f"{offsets[:20]}{' and more' if len(offsets) > 20 else ''}"


class _Bound(NamedTuple):
    """Records below `end` were committed when the operation was completed."""

    end: int
    operation: Operation | None


class _Highest:
    """The highest of the bounds known so far, for each reason to know them."""

    def __init__(self) -> None:
        self._bounds: dict[object, _Bound] = {}

    def raise_to(self, key: object, end: int, operation: Operation) -> None:
        if end > self._bounds.get(key, _Bound(0, None)).end:
            self._bounds[key] = _Bound(end, operation)

    def of(self, key: object) -> _Bound:
        return self._bounds.get(key, _Bound(0, None))


def stale_reads(evidence: Evidence) -> Iterator[Anomaly]:
    """K10: a read does not know of what was committed before it began.

    The end of a log as its leader lists it is confirmed by a majority, so it is not below any end that anybody was
    told before, nor below what was acknowledged before. A fetch from a leader is not confirmed, and a leader that was
    deposed may not know of it yet: what it tells is not below what the same node told and acknowledged before in the
    same term. Fetches from other replicas do not see a log's end go back in one session. O(N log N).
    """
    for log in evidence.all_logs():
        highest = _Highest()
        operations: list[Operation] = [*log.produces, *log.fetches, *log.listings]
        for operation, completes in sweep(operations, lambda one: one):
            if completes:
                end = _end(log, operation)
                if end is not None:
                    for key in _told(operation):
                        highest.raise_to(key, end, operation)
            elif isinstance(operation, Fetch | ListOffsets):
                for key in _bound_by(operation):
                    bound = highest.of(key)
                    if operation.high_watermark < bound.end:
                        text = (
                            f"a read says that the log ends at {operation.high_watermark}, and {bound.end} was known "
                            "before it began"
                        )
                        yield anomaly(evidence, "K10", log.tp, text, bound.operation, operation)
                        break


def _end(log: Log, operation: Operation) -> int | None:
    if isinstance(operation, Fetch | ListOffsets):
        return operation.high_watermark
    if not isinstance(operation, Produce) or not operation.ok or operation.base_offset is None:
        return None
    for place, value in enumerate(operation.values):
        if value in log.found and operation.idempotent:
            return log.found[value].offset + (len(operation.values) - place if operation.batch else 1)
    return offsets_of(operation).stop


def _told(operation: Operation) -> Iterator[object]:
    yield "anybody"
    if isinstance(operation, Fetch) and not operation.leader:
        yield operation.session
    if isinstance(operation, Fetch | ListOffsets) or (isinstance(operation, Produce) and not operation.duplicate):
        yield operation.node, operation.term


def _bound_by(operation: Fetch | ListOffsets) -> Iterator[object]:
    if isinstance(operation, ListOffsets):
        yield "anybody"
    elif not operation.leader:
        yield operation.session
    elif operation.term is not None:
        yield operation.node, operation.term


def past_bounds(evidence: Evidence) -> Iterator[Anomaly]:
    """K11: a fetch returns a record at or above the end it tells, or below the beginning it tells; a beginning stands
    above its end. O(N).
    """
    for log in evidence.all_logs():
        for fetch in log.fetches:
            for record in fetch.records:
                if not fetch.start <= record.offset < fetch.high_watermark:
                    text = (
                        f"offset {record.offset} was read from a log that goes from {fetch.start} to "
                        f"{fetch.high_watermark}"
                    )
                    yield anomaly(evidence, "K11", log.tp, text, fetch)
                    break
        replies: list[Fetch | ListOffsets | FinalRead] = [*log.fetches, *log.listings, *log.dumps]
        for told in replies:
            if told.start > told.high_watermark:
                text = f"a log is said to go from {told.start} to {told.high_watermark}"
                yield anomaly(evidence, "K11", log.tp, text, told)

"""Terms and their leaders, and where logs begin: K13, K14."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, Log, Sighting, records_by_offset
from quorumlog.chaos.checkers.sweep import sweep
from quorumlog.chaos.history.events import NEVER, Fetch, FinalRead, ListOffsets, Produce

TRIM_SLACK_NS = 100_000_000
"""Records carry the time of their client in milliseconds, which may be a little before their operation began."""


def two_leaders(evidence: Evidence) -> Iterator[Anomaly]:
    """K13: two nodes lead one partition in one term, a record has two terms, or terms go down while offsets go up.

    A node shows that it leads by an acknowledgement (not of a duplicate, whose term is that of the first attempt) or by
    listing offsets. What a fetch says is the term of the node when it answered, which it need not lead. O(N log N).
    """
    for log in evidence.all_logs():
        leaders: dict[int, Produce | ListOffsets] = {}
        shown: list[Produce | ListOffsets] = [one for one in log.produces if one.ok and not one.duplicate]
        for operation in (*shown, *log.listings):
            if operation.term is None or operation.node is None:
                continue
            first = leaders.setdefault(operation.term, operation)
            if first.node != operation.node:
                text = f"nodes {first.node} and {operation.node} both lead in term {operation.term}"
                yield anomaly(evidence, "K13", log.tp, text, first, operation)
        for one, two in log.contradictions:
            if one.value == two.value:
                text = f"the record at offset {one.offset} has term {one.term} and term {two.term}"
                yield anomaly(evidence, "K13", log.tp, text, one.operation, two.operation)
        yield from _terms_go_down(evidence, log, [log.reads[offset] for offset in sorted(log.reads)])
        for dump in log.dumps:
            kept = [Sighting(one.offset, one.value, one.term, dump) for one in dump.records]
            yield from _terms_go_down(evidence, log, kept)
            yield from _other_term_than_read(evidence, log, dump)


def _terms_go_down(evidence: Evidence, log: Log, sightings: list[Sighting]) -> Iterator[Anomaly]:
    known = [sighting for sighting in sightings if sighting.term is not None]
    for one, two in pairwise(known):
        assert one.term is not None
        assert two.term is not None
        if one.term > two.term:
            text = f"the term is {one.term} at offset {one.offset} and {two.term} at offset {two.offset}"
            yield anomaly(evidence, "K13", log.tp, text, one.operation, two.operation)


def _other_term_than_read(evidence: Evidence, log: Log, dump: FinalRead) -> Iterator[Anomaly]:
    for offset, record in records_by_offset(dump).items():
        read = log.reads.get(offset)
        if read is None or read.value != record.value or None in (read.term, record.term) or read.term == record.term:
            continue
        text = f"the record at offset {offset} has term {read.term} and, in the end, term {record.term}"
        yield anomaly(evidence, "K13", log.tp, text, read.operation, dump)


def early_trims(evidence: Evidence) -> Iterator[Anomaly]:
    """K14: a log's beginning goes back, or passes a record that is younger than the retention time.

    The beginning is confirmed where a leader lists it, and then not below any that was told before; fetches from other
    replicas do not see it go back in one session. Retention is what run.json says: null keeps everything, {"ms": n}
    keeps what is younger; where there is also a limit of bytes, or nothing is said, any record may be trimmed.
    O(N log N).
    """
    retention = evidence.history.run.get("retention", {})
    for log in evidence.all_logs():
        yield from _goes_back(evidence, log)
        if retention is None or set(retention) == {"ms"}:
            yield from _too_young(evidence, log, retention)


def _goes_back(evidence: Evidence, log: Log) -> Iterator[Anomaly]:
    latest: dict[object, Fetch | ListOffsets] = {}
    told: list[Fetch | ListOffsets] = [*log.fetches, *log.listings]
    for operation, completes in sweep(told, lambda one: one):
        key = operation.session if isinstance(operation, Fetch) else None
        if completes:
            for one in {key, None}:
                if one not in latest or operation.start > latest[one].start:
                    latest[one] = operation
        elif isinstance(operation, Fetch) and operation.leader:
            continue
        elif key in latest and operation.start < latest[key].start:
            text = f"the log begins at {operation.start}, and began at {latest[key].start} before"
            yield anomaly(evidence, "K14", log.tp, text, latest[key], operation)


def _too_young(evidence: Evidence, log: Log, retention: dict[str, Any] | None) -> Iterator[Anomaly]:
    first_told: dict[int, Fetch | ListOffsets | FinalRead] = {}
    replies: list[Fetch | ListOffsets | FinalRead] = [*log.fetches, *log.listings, *log.dumps]
    for told in replies:
        if told.start and (told.start not in first_told or told.completed < first_told[told.start].completed):
            first_told[told.start] = told
    if not first_told:
        return
    placed = sorted((sighting.offset, evidence.writers[value].invoked) for value, sighting in log.found.items())
    offsets = [offset for offset, _ in placed]
    youngest = list(accumulate((invoked for _, invoked in placed), max))
    for start, told in sorted(first_told.items()):
        if retention is None:
            text = f"the log begins at {start}, and nothing is to be trimmed"
            yield anomaly(evidence, "K14", log.tp, text, told)
            return
        below = bisect_left(offsets, start)
        if below == 0 or told.completed == NEVER:
            continue
        age = told.completed - youngest[below - 1]
        if age + TRIM_SLACK_NS < int(retention["ms"]) * 1_000_000:
            text = f"the log begins at {start}, past a record of {age / 1e9:.3f} s, and {retention['ms']} ms are kept"
            yield anomaly(evidence, "K14", log.tp, text, told)

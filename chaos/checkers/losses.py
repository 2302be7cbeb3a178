"""Records that are gone, or were never to be read: K1, K12, K15."""

from __future__ import annotations

from collections.abc import Iterator

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, Log
from quorumlog.chaos.history.events import Produce


def lost_writes(evidence: Evidence) -> Iterator[Anomaly]:
    """K1: an acknowledged record that nobody has ever read, and that no final read has although it reaches there.

    A record of unknown outcome counts as acknowledged where another one of its batch was found: batches are appended
    as a whole. O(N).
    """
    for log in evidence.living_logs():
        for produce, value, offset in (*log.expected(), *_implied(log)):
            if value not in log.found and log.ought_to_be_kept(offset):
                yield anomaly(
                    evidence,
                    "K1",
                    log.tp,
                    f"{value} {_standing(produce)} at offset {offset} and is nowhere: {log.absence(offset)}",
                    produce,
                    *_beside(evidence, log, offset),
                )


def _standing(produce: Produce) -> str:
    return "was acknowledged" if produce.ok else "belongs to a batch that was found"


def _implied(log: Log) -> Iterator[tuple[Produce, str, int]]:
    for produce in log.produces:
        if produce.ok or not produce.batch or len(produce.values) < 2:
            continue
        bases = [log.found[value].offset - place for place, value in enumerate(produce.values) if value in log.found]
        if bases:
            for place, value in enumerate(produce.values):
                yield produce, value, bases[0] + place


def _beside(evidence: Evidence, log: Log, offset: int) -> list[Produce]:
    """Who wrote what stands before and after an offset."""
    near = (log.values.get(offset - 1), log.values.get(offset + 1))
    return [evidence.writers[value] for value in near if value is not None]


def lost_reads(evidence: Evidence) -> Iterator[Anomaly]:
    """K12: a record that a client has read, so that it was committed, and that no final read has although it reaches
    there. O(N).
    """
    for log in evidence.living_logs():
        for offset, sighting in log.reads.items():
            if sighting.value not in log.kept and log.ought_to_be_kept(offset):
                yield anomaly(
                    evidence,
                    "K12",
                    log.tp,
                    f"{sighting.value} was read at offset {offset} and is gone: {log.absence(offset)}",
                    evidence.writers[sighting.value],
                    sighting.operation,
                )


def not_drained(evidence: Evidence) -> Iterator[Anomaly]:
    """K15: after everything was healed an acknowledged record still cannot be read, or a replica is still behind.

    It cannot be read where every replica that has it does not count it as committed, or where all that could be read
    end before it. O(N).
    """
    for log in evidence.living_logs():
        if not log.dumps:
            continue
        ends = {dump.committed for dump in log.dumps}
        ahead = max(log.dumps, key=lambda dump: dump.committed)
        for dump in log.dumps:
            if dump.committed < max(ends):
                yield anomaly(
                    evidence,
                    "K15",
                    log.tp,
                    f"after the drain node {dump.node} has committed records up to {dump.committed}, "
                    f"node {ahead.node} up to {ahead.committed}",
                    dump,
                    ahead,
                )
        start = min(dump.start for dump in log.dumps)
        for produce, value, offset in log.expected():
            if value in log.first_read or offset < max(ends) or offset < start:
                continue
            if value in log.kept or (value not in log.found and log.unread):
                yield anomaly(
                    evidence,
                    "K15",
                    log.tp,
                    f"{value} was acknowledged at offset {offset}, but after the drain records can be read up to "
                    f"{max(ends)}",
                    produce,
                    ahead,
                )

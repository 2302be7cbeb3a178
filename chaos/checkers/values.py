"""What records are, and where they stand: K2 to K5, K19, K23."""

from __future__ import annotations

from collections.abc import Iterator

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, Log, records_by_offset
from quorumlog.chaos.history.values import fault_of


def duplicates(evidence: Evidence) -> Iterator[Anomaly]:
    """K2: a value at two offsets. Only what was written without idempotence may be. O(N)."""
    for log in evidence.all_logs():
        told = set()
        for second in log.again:
            writer = evidence.writers[second.value]
            if not writer.idempotent or (second.value, second.offset) in told:
                continue
            told.add((second.value, second.offset))
            first = log.found[second.value]
            yield anomaly(
                evidence,
                "K2",
                log.tp,
                f"{second.value} is at offset {first.offset} and at offset {second.offset}",
                writer,
                first.operation,
                second.operation,
            )


def inconsistent_offsets(evidence: Evidence) -> Iterator[Anomaly]:
    """K3: two values at one offset, as clients read them; or one that a client has read and another one in every
    final read that reaches there; or two that were acknowledged at one offset and never found. Replicas that differ
    among each other are K16. O(N).
    """
    for log in evidence.all_logs():
        for first, second in log.contradictions:
            if first.value != second.value:
                yield anomaly(
                    evidence,
                    "K3",
                    log.tp,
                    f"offset {first.offset} was read as {first.value} and as {second.value}",
                    first.operation,
                    second.operation,
                )
        yield from _read_and_kept(evidence, log)
        acknowledged: dict[int, str] = {}
        for produce, value, offset in log.expected():
            if value in log.found:
                continue
            other = acknowledged.setdefault(offset, value)
            if other != value:
                text = f"{other} and {value} were both acknowledged at offset {offset}"
                yield anomaly(evidence, "K3", log.tp, text, evidence.writers[other], produce)


def _read_and_kept(evidence: Evidence, log: Log) -> Iterator[Anomaly]:
    kept: dict[int, set[str]] = {}
    for dump in log.dumps:
        for offset, record in records_by_offset(dump).items():
            if record.value in log.found:
                kept.setdefault(offset, set()).add(record.value)
    for offset, sighting in log.reads.items():
        values = kept.get(offset)
        if values is not None and sighting.value not in values:
            yield anomaly(
                evidence,
                "K3",
                log.tp,
                f"offset {offset} was read as {sighting.value}, and in the end it is {min(values)}",
                sighting.operation,
                *log.dumps[:1],
            )


def aborted_reads(evidence: Evidence) -> Iterator[Anomaly]:
    """K4: a record that certainly was not appended, as its writer was told, is in the log. O(N)."""
    for log in evidence.all_logs():
        for produce in log.produces:
            if not produce.failed:
                continue
            for value in produce.values:
                sighting = log.found.get(value)
                if sighting is not None:
                    yield anomaly(
                        evidence,
                        "K4",
                        log.tp,
                        f"{value} was refused for certain and is at offset {sighting.offset}",
                        produce,
                        sighting.operation,
                    )


def phantoms(evidence: Evidence) -> Iterator[Anomaly]:
    """K5: a value that nobody has written to this partition: corrupt, from another partition, or from nowhere. O(N)."""
    for log in evidence.all_logs():
        for sighting in log.foreign:
            wrong = fault_of(sighting.value, log.tp) or "nobody has written it"
            yield anomaly(
                evidence,
                "K5",
                log.tp,
                f"at offset {sighting.offset} stands {sighting.value[:200]!r}: {wrong}",
                sighting.operation,
                evidence.writers.get(sighting.value),
            )


def wrong_acknowledgements(evidence: Evidence) -> Iterator[Anomaly]:
    """K19: a record was acknowledged at one offset and is found at others alone. What was written without idempotence
    may stand at several, of which not all need have been found. O(N).
    """
    for log in evidence.all_logs():
        elsewhere = {(one.value, one.offset) for one in log.again}
        for produce, value, offset in log.expected():
            sighting = log.found.get(value) if produce.idempotent else None
            if sighting is not None and sighting.offset != offset and (value, offset) not in elsewhere:
                yield anomaly(
                    evidence,
                    "K19",
                    log.tp,
                    f"{value} was acknowledged at offset {offset} and is at offset {sighting.offset}",
                    produce,
                    sighting.operation,
                )


def circles(evidence: Evidence) -> Iterator[Anomaly]:
    """K23: a circle of operations, each before the next in real time or read by the next, at least one read among them.

    Every such circle holds a read that was completed before what it read was invoked: were there none, a record read
    would always be invoked before its read is completed, and along any path the invocation of the first operation
    would precede the completion of the last; so the path cannot come back by real time. It is enough, then, to look
    at each read by itself. O(N).
    """
    for log in evidence.all_logs():
        for value, operation in log.first_read.items():
            writer = evidence.writers[value]
            if operation.completed < writer.invoked:
                text = f"{value} was read before its writing began"
                yield anomaly(evidence, "K23", log.tp, text, operation, writer)

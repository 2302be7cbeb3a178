"""What replicas have in the end: K16 to K18."""

from __future__ import annotations

from collections.abc import Iterator

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence, records_by_offset
from quorumlog.chaos.history.events import FinalRead, Produce, Record
from quorumlog.proto.batch import SEQUENCES


def divergences(evidence: Evidence) -> Iterator[Anomaly]:
    """K16: two replicas have different records at an offset that both have committed, or one lacks what the other has
    between its own beginning and end. A digest may be that of a record and all before it, so it is compared where both
    replicas begin at the same offset. Told once for each replica that differs from the first. O(N x replicas).
    """
    for log in evidence.all_logs():
        if not log.dumps:
            continue
        first, *others = log.dumps
        kept = records_by_offset(first)
        for dump in others:
            found = _difference(first, kept, dump)
            if found is not None:
                yield anomaly(evidence, "K16", log.tp, found, first, dump)


def _difference(first: FinalRead, kept: dict[int, Record], dump: FinalRead) -> str | None:
    there = records_by_offset(dump)
    digest = None if first.start == dump.start else -1
    begin, end = max(first.start, dump.start), min(first.committed, dump.committed)
    for offset in sorted(kept.keys() | there.keys()):
        if not begin <= offset < end:
            continue
        one, two = kept.get(offset), there.get(offset)
        if one is None or two is None or one[:digest] != two[:digest]:
            return f"at offset {offset} node {first.node} has {_told(one)} and node {dump.node} has {_told(two)}"
    return None


def _told(record: Record | None) -> str:
    if record is None:
        return "nothing"
    return (
        f"{record.value} (term {record.term}, producer {record.producer_id} epoch {record.epoch} "
        f"sequence {record.sequence}, digest {record.digest})"
    )


def sequence_gaps(evidence: Evidence) -> Iterator[Anomaly]:
    """K17: the records of a producer epoch in a partition, in the order of offsets, have sequences that go up by one,
    from 0 on where nothing was trimmed. Told once for each producer epoch. O(N x replicas).
    """
    for log in evidence.all_logs():
        told: set[tuple[int, int | None]] = set()
        for dump in log.dumps:
            latest: dict[tuple[int, int | None], Record] = {}
            for record in dump.records:
                if record.producer_id is None or record.sequence is None:
                    continue
                key = (record.producer_id, record.epoch)
                before = latest.get(key)
                latest[key] = record
                due = _due(dump, before)
                if due is None or record.sequence == due or key in told:
                    continue
                told.add(key)
                text = (
                    f"producer {record.producer_id} epoch {record.epoch} has sequence {record.sequence} at offset "
                    f"{record.offset}, where {due} is due"
                )
                yield anomaly(evidence, "K17", log.tp, text, *_writers(evidence, before, record), dump)


def _due(dump: FinalRead, before: Record | None) -> int | None:
    if before is not None and before.sequence is not None:
        return (before.sequence + 1) % SEQUENCES
    return 0 if dump.start == 0 else None


def zombies(evidence: Evidence) -> Iterator[Anomaly]:
    """K18: a record of a producer's earlier epoch stands after one of a later epoch. O(N x replicas)."""
    for log in evidence.all_logs():
        told: set[str] = set()
        for dump in log.dumps:
            latest: dict[int, Record] = {}
            for record in dump.records:
                if record.producer_id is None or record.epoch is None:
                    continue
                before = latest.setdefault(record.producer_id, record)
                assert before.epoch is not None
                if record.epoch > before.epoch:
                    latest[record.producer_id] = record
                elif record.epoch < before.epoch and record.value not in told:
                    told.add(record.value)
                    text = (
                        f"producer {record.producer_id} has epoch {record.epoch} at offset {record.offset}, after "
                        f"epoch {before.epoch} at offset {before.offset}"
                    )
                    yield anomaly(evidence, "K18", log.tp, text, *_writers(evidence, before, record), dump)


def _writers(evidence: Evidence, *records: Record | None) -> list[Produce | None]:
    return [evidence.writers.get(record.value) for record in records if record is not None]

"""What the cluster decides once: producer ids and topics: K33."""

from __future__ import annotations

from collections.abc import Iterator

from quorumlog.chaos.checkers.anomaly import Anomaly, anomaly
from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.checkers.sweep import sweep
from quorumlog.chaos.history.events import InitProducer, Meta

CREATE, DELETE = "create_topic", "delete_topic"


def decisions(evidence: Evidence) -> Iterator[Anomaly]:
    """K33: a producer id and epoch are given out twice, or the epoch of an id goes back in real time; or what callers
    were told of making and deleting a topic fits no order of these operations that keeps to real time.

    Topics are judged one by one by search (Wing and Gong; Lowe's memory of what was tried), of which the longest part
    is as wide as the operations that were under way at once.
    """
    yield from _producers(evidence)
    topics: dict[str, list[Meta]] = {}
    for meta in evidence.history.metas:
        if meta.command in (CREATE, DELETE) and not meta.failed:
            topics.setdefault(str(meta.arguments["topic"]), []).append(meta)
    for topic, metas in sorted(topics.items()):
        stuck = unexplained(metas)
        if stuck:
            told = ", ".join(f"{one.command} {one.result or 'done'}" for one in stuck)
            yield anomaly(evidence, "K33", topic, f"no order of events explains: {told}", *stuck)


def _producers(evidence: Evidence) -> Iterator[Anomaly]:
    given: dict[tuple[int, int], InitProducer] = {}
    latest: dict[int, InitProducer] = {}
    before: dict[int, InitProducer | None] = {}
    for one, completes in sweep(evidence.history.producers, lambda one: one):
        if not completes:
            before[id(one)] = latest.get(one.producer_id)
            continue
        first = given.setdefault((one.producer_id, one.epoch), one)
        if first is not one:
            text = f"producer {one.producer_id} epoch {one.epoch} was given out twice"
            yield anomaly(evidence, "K33", "producers", text, first, one)
        earlier = before[id(one)]
        if earlier is not None and earlier.epoch > one.epoch:
            text = f"producer {one.producer_id} got epoch {one.epoch} after epoch {earlier.epoch}"
            yield anomaly(evidence, "K33", "producers", text, earlier, one)
        if one.producer_id not in latest or one.epoch > latest[one.producer_id].epoch:
            latest[one.producer_id] = one


def unexplained(metas: list[Meta]) -> list[Meta]:
    """Return operations on one topic that no order explains: those that stand next where the furthest try is stuck.

    The list is empty where there is an order. Whether the topic was there in the beginning is not known. Operations of
    unknown outcome may take place at any time after they began, or never.
    """
    certain = [one for one in metas if one.ok]
    unknown = [one for one in metas if not one.ok]
    deepest = -1
    stuck: list[Meta] = []
    tried: set[tuple[int, int, bool]] = set()
    todo = [(0, 0, False), (0, 0, True)]
    while todo:
        state = todo.pop()
        if state in tried:
            continue
        tried.add(state)
        done, used, there = state
        left = [(place, one) for place, one in enumerate(certain) if not done >> place & 1]
        if not left:
            return []
        deadline = min(one.completed for _, one in left)
        open_now = [(place, one) for place, one in left if one.invoked <= deadline]
        if done.bit_count() > deepest:
            deepest, stuck = done.bit_count(), [one for _, one in open_now]
        for place, one in enumerate(unknown):
            if not used >> place & 1 and one.invoked <= deadline and there is not (one.command == CREATE):
                todo.append((done, used | 1 << place, one.command == CREATE))
        for place, one in open_now:
            after = _after(one, there)
            if after is not None:
                todo.append((done | 1 << place, used, after))
    return stuck


def _after(one: Meta, there: bool) -> bool | None:
    """Whether the topic is there after an operation with this result; None if it cannot have this result now."""
    creates = one.command == CREATE
    if one.result in ("exists", "missing"):
        return there if there is (one.result == "exists") else None
    return creates if there is not creates else None

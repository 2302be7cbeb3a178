"""The quick rules for order find exactly what a search through all orders finds, on histories small enough for that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from quorumlog.chaos.checkers.evidence import Evidence
from quorumlog.chaos.checkers.metadata import unexplained
from quorumlog.chaos.checkers.order import program_order, realtime_order
from quorumlog.chaos.checkers.reads import stale_reads
from quorumlog.chaos.checkers.register import Register, misread
from quorumlog.chaos.history.events import (
    NEVER,
    Commit,
    Committed,
    FinalRead,
    History,
    ListOffsets,
    Meta,
    Operation,
    Outcome,
    Position,
    Produce,
    Record,
)

HISTORIES = 4000
OPERATIONS_MAX = 8


def may_be_next(one: Operation, left: Sequence[Operation]) -> bool:
    """Whether no other operation that is left was completed before this one began."""
    return all(other.completed >= one.invoked for other in left)


def span(rng: random.Random) -> tuple[int, int]:
    begin = rng.randint(0, 20)
    return begin, begin + rng.choice([1, 3, 8])


# -- one register ------------------------------------------------------------------------------------------------------


def draw_register(rng: random.Random) -> list[Operation]:
    """Commits of an offset and reads of it."""
    operations: list[Operation] = []
    tags = [f"tag {number}" for number in range(rng.randint(1, 4))]
    for number, tag in enumerate(tags):
        begin, end = span(rng)
        outcome = rng.choices([Outcome.OK, Outcome.INFO, Outcome.FAIL], [6, 3, 1])[0]
        completed = NEVER if outcome is Outcome.INFO else end
        positions = {"t/0": Position(number, tag)}
        operations.append(Commit(f"c{number}", 1, begin, completed, outcome, "g", "m", 1, positions))
    for number in range(rng.randint(1, OPERATIONS_MAX - len(tags))):
        tag_number = rng.randrange(-1, len(tags))
        told = {} if tag_number < 0 else {"t/0": Position(tag_number, tags[tag_number])}
        operations.append(Committed(f"r{number}", 1, *span(rng), Outcome.OK, "g", told))
    return operations


def search_register(operations: Sequence[Operation]) -> bool:
    """Whether some order explains every read; what failed never happens, what is unknown need not."""

    def explained(left: tuple[Operation, ...], value: Position | None) -> bool:
        if all(one.outcome is Outcome.INFO for one in left):
            return True
        for one in left:
            if not may_be_next(one, left):
                continue
            rest = tuple(other for other in left if other is not one)
            if isinstance(one, Commit):
                if explained(rest, one.positions["t/0"]):
                    return True
            elif isinstance(one, Committed) and one.positions.get("t/0") == value and explained(rest, value):
                return True
        return False

    return explained(tuple(one for one in operations if not one.failed), None)


def test_zones_find_what_a_search_finds() -> None:
    rng = random.Random(28)
    verdicts = []
    for number in range(HISTORIES):
        operations = draw_register(rng)
        register = Register(
            {one.positions["t/0"].tag: (one, one.positions["t/0"]) for one in operations if isinstance(one, Commit)},
            [(one, one.positions.get("t/0")) for one in operations if isinstance(one, Committed)],
        )
        legal = search_register(operations)
        assert (misread(register) is None) is legal, f"history {number}: {operations}"
        verdicts.append(legal)
    assert HISTORIES / 10 < sum(verdicts) < HISTORIES * 9 / 10


# -- one log -----------------------------------------------------------------------------------------------------------


def draw_log(rng: random.Random) -> History:
    """Records that all stand in the log in the end, and lists of its end."""
    history = History({})
    spans = sorted((span(rng) for _ in range(rng.randint(1, 5))), key=lambda one: one[0] + rng.randint(0, 6))
    records = []
    for offset, (begin, end) in enumerate(spans):
        known = rng.random() < 0.8
        value = f"value {offset}"
        outcome, completed = (Outcome.OK, end) if known else (Outcome.INFO, NEVER)
        history.produces.append(
            Produce(
                rng.choice(["a", "b"]) if known else f"c{offset}", offset, begin, completed, outcome, "t/0", [value],
                False, True, None, None, None, offset if known else None, None, False, None,
            )
        )  # fmt: skip
        records.append(Record(offset, value))
    for number in range(rng.randint(0, OPERATIONS_MAX - len(spans))):
        begin, end = span(rng)
        told = min(len(spans), max(0, round(begin / 30 * len(spans)) + rng.choice([0, 0, 1, -1])))
        history.listings.append(ListOffsets(f"l{number}", 1, begin, end, Outcome.OK, "t/0", None, 0, told, None))
    history.produces.sort(key=lambda one: one.invoked)
    final = FinalRead("f", 1, 100, 101, Outcome.OK, 1, "t/0", records, 0, len(records), len(records))
    history.final_reads.append(final)
    return history


def search_log(history: History) -> bool:
    """Whether some order explains every offset and every end: records are appended at the end, lists tell it."""
    places = {record.value: record.offset for record in history.final_reads[0].records}

    def explained(left: tuple[Operation, ...], end: int) -> bool:
        if not left:
            return True
        for one in left:
            if not may_be_next(one, left):
                continue
            rest = tuple(other for other in left if other is not one)
            if isinstance(one, Produce):
                if places[one.values[0]] == end and explained(rest, end + 1):
                    return True
            elif isinstance(one, ListOffsets) and one.high_watermark == end and explained(rest, end):
                return True
        return False

    return explained((*history.produces, *history.listings), 0)


def test_order_and_staleness_find_what_a_search_finds() -> None:
    rng = random.Random(610)
    verdicts = []
    for number in range(HISTORIES):
        history = draw_log(rng)
        evidence = Evidence(history)
        found = [*realtime_order(evidence), *program_order(evidence), *stale_reads(evidence)]
        legal = search_log(history)
        if _one_after_the_other(history):
            assert (not found) is legal, f"history {number}: {history}"
            verdicts.append(legal)
    assert len(verdicts) / 10 < sum(verdicts) < len(verdicts) * 9 / 10


def _one_after_the_other(history: History) -> bool:
    """Whether processes do one thing at a time, as real ones do; otherwise K7 would ask for more than a search."""
    ends: dict[str, int] = {}
    for produce in history.produces:
        if produce.invoked <= ends.get(produce.process, -1):
            return False
        ends[produce.process] = produce.completed
    return True


# -- one topic ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What an operation on a topic does, by what it was told."""

    needs: bool
    leaves: bool


CHANGES = {
    "created": Change(needs=False, leaves=True),
    "exists": Change(needs=True, leaves=True),
    "deleted": Change(needs=True, leaves=False),
    "missing": Change(needs=False, leaves=False),
}


def draw_topic(rng: random.Random) -> list[Meta]:
    metas = []
    for number in range(rng.randint(1, OPERATIONS_MAX)):
        begin, end = span(rng)
        result = rng.choice(list(CHANGES))
        command = "create_topic" if result in ("created", "exists") else "delete_topic"
        known = rng.random() < 0.75
        told = (end, Outcome.OK) if known else (NEVER, Outcome.INFO)
        metas.append(Meta(f"p{number}", 1, begin, *told, command, "", {"topic": "t"}, result if known else None))
    return metas


def search_topic(metas: Sequence[Meta]) -> bool:
    def explained(left: tuple[Meta, ...], there: bool) -> bool:
        if not any(one.ok for one in left):
            return True
        for one in left:
            if not may_be_next(one, left):
                continue
            rest = tuple(other for other in left if other is not one)
            if one.ok:
                change = CHANGES[str(one.result)]
                if change.needs is there and explained(rest, change.leaves):
                    return True
            elif explained(rest, one.command == "create_topic"):
                return True
        return False

    return explained(tuple(metas), False) or explained(tuple(metas), True)


def test_topics_are_explained_as_a_search_explains_them() -> None:
    rng = random.Random(33)
    verdicts = []
    for number in range(HISTORIES // 2):
        metas = draw_topic(rng)
        legal = search_topic(metas)
        assert (not unexplained(metas)) is legal, f"history {number}: {metas}"
        verdicts.append(legal)
    assert len(verdicts) / 10 < sum(verdicts) < len(verdicts) * 9 / 10

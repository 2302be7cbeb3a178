"""Histories as those who break them see them: lines, paired, to be changed in place."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from quorumlog.chaos.history.events import History
from quorumlog.chaos.history.reading import gather
from quorumlog.chaos.history.values import value_of
from tests.chaos.model import World

Line = dict[str, Any]


@dataclass(eq=False)
class Op:
    """An operation: its line of invocation, and its completion where it has one; of a line by itself they are one."""

    begin: Line
    end: Line | None

    @property
    def function(self) -> str:
        return str(self.begin["f"])

    @property
    def process(self) -> str:
        return str(self.begin["p"])

    @property
    def invoked(self) -> int:
        return int(self.begin["t"])

    @property
    def completed(self) -> int:
        return int(self.end["t"]) if self.end is not None and self.end["e"] != "info" else 1 << 63

    @property
    def outcome(self) -> str:
        return str(self.end["e"]) if self.end is not None else "info"

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


class Tape:
    """A legal history to be broken.

    Args:
        world: that emitted it.
        seed: of what is drawn.
    """

    def __init__(self, world: World, seed: int) -> None:
        self.run = dict(world.run)
        self.rng = random.Random(seed)
        self.began = int(world.run["began_ns"])
        self.ops: list[Op] = []
        self._ghosts = 0
        pending: dict[tuple[str, int], Op] = {}
        for line in copy.deepcopy(world.lines):
            key = (line["p"], line["s"])
            if line["e"] == "invoke":
                pending[key] = op = Op(line, None)
                self.ops.append(op)
            elif key in pending:
                pending.pop(key).end = line
            else:
                self.ops.append(Op(line, line))
        self.last = max(line["t"] for line in world.lines if line["f"] != "final_read")

    def history(self) -> History:
        """What a judge sees."""
        lines = []
        for op in self.ops:
            lines.append(op.begin)
            if op.end is not None and op.end is not op.begin:
                lines.append(op.end)
        return gather(self.run, [], copy.deepcopy(lines))

    def of(self, *functions: str, tp: str | None = None) -> list[Op]:
        """Operations that succeeded, in an order that is drawn."""
        found = [op for op in self.ops if op.function in functions and op.ok and tp in (None, op.begin.get("tp"))]
        self.rng.shuffle(found)
        return found

    def dumps(self, tp: str) -> list[Op]:
        """Final reads of a partition; none unless all replicas could be read."""
        found = [op for op in self.ops if op.function == "final_read" and op.begin["tp"] == tp]
        return found if all(op.ok for op in found) else []

    def tps(self) -> list[str]:
        """Partitions that were read completely, and have something."""
        found = sorted({op.begin["tp"] for op in self.of("final_read") if op.begin["recs"]})
        self.rng.shuffle(found)
        return [tp for tp in found if self.dumps(tp)]

    def rows(self, tp: str) -> Iterator[tuple[Op, Row]]:
        """Every record that anybody read of a partition."""
        for op in self.ops:
            if not op.ok or op.end is None or "recs" not in op.end:
                continue
            for raw in op.end["recs"]:
                row = Row(op.function, raw)
                if (row.tp or op.begin.get("tp")) == tp:
                    yield op, row

    def drop_rows(self, tp: str, gone: Callable[[Op, Row], bool]) -> None:
        """Let records not have been read."""
        for op in self.ops:
            if op.ok and op.end is not None and "recs" in op.end:
                op.end["recs"] = [
                    raw
                    for raw in op.end["recs"]
                    if (raw[0] if op.function == "poll" else op.begin["tp"]) != tp
                    or not gone(op, Row(op.function, raw))
                ]

    def forget(self, gone: Iterable[Op]) -> None:
        """Let operations not have been; legal for reads."""
        without = set(map(id, gone))
        self.ops = [op for op in self.ops if id(op) not in without]

    def add(self, function: str, at: int, process: str, begin: Line, end: Line | None, event: str = "ok") -> Op:
        """Add an operation that lasts for a nanosecond."""
        self._ghosts += 1
        head = {"p": process, "s": 100_000 + self._ghosts, "f": function}
        op = Op(head | {"t": at, "e": "invoke"} | begin, None)
        if end is not None:
            op.end = head | {"t": at + 1, "e": event} | end
        self.ops.append(op)
        return op

    def tell(self, function: str, at: int, process: str, fields: Line) -> None:
        """Add a line by itself."""
        op = self.add(function, at, process, fields, None)
        op.begin["e"] = "ok"
        op.end = op.begin

    def ghost(self, tp: str, at: int, event: str | None = None) -> str:
        """Add the writing of one value, whose outcome nobody knows unless it is said; returns the value."""
        self._ghosts += 1
        value = value_of(tp, f"ghost-{self._ghosts}", 1, 1, 1)
        fields = {"tp": tp, "vals": [value], "acks": "all", "batch": False}
        self.add("produce", at, f"ghost-{self._ghosts}", fields, {} if event else None, event or "info")
        return value

    def append_to_dumps(self, tp: str, value: str, pid: int | None, epoch: int | None, sequence: int | None) -> None:
        """Let every replica have one more record in the end."""
        for dump in self.dumps(tp):
            line = dump.begin
            term = line["recs"][-1][1]
            line["recs"].append([line["hw"], term, pid, epoch, sequence, value, f"digest of {value}"])
            line["hw"] += 1
            line["commit"] = None


class Row:
    """One record of a read, whatever its shape."""

    PLACES: ClassVar[dict[str, dict[str, int]]] = {
        "fetch": {"offset": 0, "value": 1, "term": 2, "pid": 3, "epoch": 4, "sequence": 5},
        "final_read": {"offset": 0, "term": 1, "pid": 2, "epoch": 3, "sequence": 4, "value": 5, "digest": 6},
        "poll": {"tp": 0, "offset": 1, "value": 2},
    }  # fmt: skip

    def __init__(self, function: str, raw: list[Any]) -> None:
        self._places, self._raw = self.PLACES[function], raw

    def __getattr__(self, name: str) -> Any:
        place = self._places.get(name)
        return None if place is None else self._raw[place]

    def put(self, **fields: Any) -> None:
        """Change what there is of these fields."""
        for name, told in fields.items():
            if name in self._places:
                self._raw[self._places[name]] = told

"""Reads the history of a run: every file line by line, completions paired with what they complete."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from quorumlog.chaos.history.events import (
    NEVER,
    Commit,
    Committed,
    Delivered,
    Fetch,
    FinalRead,
    History,
    InitProducer,
    ListOffsets,
    Meta,
    Nemesis,
    Operation,
    Outcome,
    Ownership,
    Poll,
    Position,
    Produce,
    Record,
)
from quorumlog.errors import InvalidRequest

T = TypeVar("T", bound=Operation)

Line = dict[str, Any]
Head = tuple[str, int, int, int, Outcome]

COMPLETIONS = {outcome.value: outcome for outcome in Outcome}
NOT_OF_CLIENTS = frozenset({"nemesis", "final_read", "assign", "revoke"})


class HistoryInvalid(InvalidRequest):
    """A folder is no run, or its history cannot be read."""


def read(folder: Path) -> History:
    """Read a run.

    Raises:
        HistoryInvalid: the folder is no run; the message names what is missing, or the line that is wrong.
    """
    run = _json(folder / "run.json")
    if not isinstance(run, dict):
        raise HistoryInvalid(f"{folder / 'run.json'} is no object", hint=_HINT)
    schedule = folder / "schedule.json"
    planned = _json(schedule) if schedule.exists() else []
    if not isinstance(planned, list):
        raise HistoryInvalid(f"{schedule} is no list of faults", hint=_HINT)
    paths = sorted((folder / "history").glob("*.jsonl"))
    if not paths:
        raise HistoryInvalid(f"{folder} has no history: there is no history/*.jsonl", hint=_HINT)
    collector = _Collector(History(run, planned))
    # Millions of objects are made here and none is garbage: looking for some takes longer than all the rest.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for path in paths:
            collector.read(path)
        return collector.finish()
    finally:
        if collecting:
            gc.enable()


_HINT = "give the folder of a run, as `quorumlog chaos run` prints it"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise HistoryInvalid(f"{path.parent} is no run: {path.name}: {error.strerror}", hint=_HINT) from error
    except ValueError as error:
        raise HistoryInvalid(f"{path} is not JSON: {error}", hint=_HINT) from error


def _lines(path: Path) -> Iterator[tuple[int, Line]]:
    """The lines of a file. The last one may be torn: its process was killed while it wrote."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = json.loads(raw)
            except ValueError as error:
                if not raw.endswith(b"\n"):
                    return
                raise HistoryInvalid(f"{path}, line {number}, is not JSON: {error}") from error
            yield number, line


def gather(run: dict[str, Any], planned: list[dict[str, Any]], lines: Iterable[Line]) -> History:
    """Return the history of lines that stand in no file."""
    collector = _Collector(History(run, planned))
    for line in lines:
        collector.take(line)
    return collector.finish()


class _Collector:
    """Builds operations out of lines. Equal strings are kept once: a value is in a history about seven times."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._strings: dict[str, str] = {}
        self._open: dict[tuple[str, int], Line] = {}
        self._makers: dict[str, Callable[[Head, Line, Line], None]] = {
            "produce": self._produce,
            "fetch": self._fetch,
            "list_offsets": self._list_offsets,
            "poll": self._poll,
            "assign": self._ownership,
            "revoke": self._ownership,
            "commit": self._commit,
            "committed": self._committed,
            "init_pid": self._init_producer,
            "meta": self._meta,
            "final_read": self._final_read,
            "nemesis": self._nemesis,
        }

    def read(self, path: Path) -> None:
        """Take in one file."""
        for number, line in _lines(path):
            try:
                self.take(line)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise HistoryInvalid(
                    f"{path}, line {number}, is no event: {type(error).__name__}: {error}",
                    hint="quorumlog.chaos.history says what events look like",
                ) from error

    def take(self, line: Line) -> None:
        """Take in one line."""
        key = (self._keep(line["p"]), line["s"])
        event = line["e"]
        if event == "invoke":
            if key in self._open:
                raise ValueError(f"operation {key[1]} of {key[0]} begins twice")
            self._open[key] = line
        elif event in COMPLETIONS:
            began = self._open.pop(key, line)
            if began["f"] != line["f"]:
                raise ValueError(f"a {began['f']} is completed as a {line['f']}")
            self._make(began, line, COMPLETIONS[event])

    def _make(self, began: Line, ended: Line, outcome: Outcome) -> None:
        function = began["f"]
        completed = NEVER if outcome is Outcome.INFO else ended["t"]
        self._makers[function]((self._keep(began["p"]), began["s"], began["t"], completed, outcome), began, ended)
        if outcome is Outcome.OK and function not in NOT_OF_CLIENTS:
            self._history.successes.append(completed)

    def finish(self) -> History:
        """Nothing more comes: what is open stays unknown."""
        for line in self._open.values():
            self._make(line, line, Outcome.INFO)
        self._open.clear()
        history = self._history
        _sort(history.produces)
        _sort(history.fetches)
        _sort(history.listings)
        _sort(history.polls)
        _sort(history.ownerships)
        _sort(history.commits)
        _sort(history.committed_reads)
        _sort(history.producers)
        _sort(history.metas)
        _sort(history.final_reads)
        _sort(history.faults)
        history.successes.sort()
        return history

    def _keep(self, text: str) -> str:
        return self._strings.setdefault(text, text)

    def _produce(self, head: Head, began: Line, ended: Line) -> None:
        told = began | ended
        self._history.produces.append(
            Produce(
                *head,
                tp=self._keep(began["tp"]),
                values=[self._keep(value) for value in began["vals"]],
                batch=bool(began.get("batch", False)),
                idempotent=bool(began.get("idempotent", True)),
                producer_id=told.get("pid"),
                epoch=told.get("epoch"),
                base_sequence=told.get("base_seq"),
                base_offset=ended.get("base_offset"),
                term=ended.get("term"),
                duplicate=bool(ended.get("dup", False)),
                node=told.get("node"),
            )
        )

    def _fetch(self, head: Head, began: Line, ended: Line) -> None:
        if head[-1] is not Outcome.OK:
            return
        keep = self._keep
        self._history.fetches.append(
            Fetch(
                *head,
                tp=keep(began["tp"]),
                wanted=began["from"],
                leader=began["consistency"] == "leader",
                session=keep(began["session"]),
                node=ended.get("node", began.get("node")),
                records=[
                    Record(offset, keep(value), term, producer_id, epoch, sequence)
                    for offset, value, term, producer_id, epoch, sequence in ended["recs"]
                ],
                high_watermark=ended["hw"],
                start=ended["start"],
                term=ended.get("leader_term"),
            )
        )

    def _list_offsets(self, head: Head, began: Line, ended: Line) -> None:
        if head[-1] is not Outcome.OK:
            return
        self._history.listings.append(
            ListOffsets(
                *head,
                tp=self._keep(began["tp"]),
                node=ended.get("node", began.get("node")),
                start=ended["start"],
                high_watermark=ended["hw"],
                term=ended.get("term"),
            )
        )

    def _poll(self, head: Head, began: Line, ended: Line) -> None:
        if head[-1] is not Outcome.OK:
            return
        keep = self._keep
        self._history.polls.append(
            Poll(
                *head,
                group=keep(began["group"]),
                member=keep(began["member"]),
                generation=ended["gen"],
                partitions=[keep(tp) for tp in ended["tps"]],
                records=[Delivered(keep(tp), offset, keep(value)) for tp, offset, value in ended["recs"]],
            )
        )

    def _ownership(self, head: Head, began: Line, ended: Line) -> None:
        self._history.ownerships.append(
            Ownership(
                *head,
                group=self._keep(ended["group"]),
                member=self._keep(ended["member"]),
                generation=ended["gen"],
                partitions=[self._keep(tp) for tp in ended["tps"]],
                given=ended["f"] == "assign",
            )
        )

    def _positions(self, offsets: dict[str, Any]) -> dict[str, Position]:
        return {self._keep(tp): Position(offset, self._keep(tag)) for tp, (offset, tag) in offsets.items()}

    def _commit(self, head: Head, began: Line, ended: Line) -> None:
        self._history.commits.append(
            Commit(
                *head,
                group=self._keep(began["group"]),
                member=self._keep(began["member"]),
                generation=began["gen"],
                positions=self._positions(began["offsets"]),
            )
        )

    def _committed(self, head: Head, began: Line, ended: Line) -> None:
        if head[-1] is Outcome.OK:
            self._history.committed_reads.append(
                Committed(*head, group=self._keep(began["group"]), positions=self._positions(ended["offsets"]))
            )

    def _init_producer(self, head: Head, began: Line, ended: Line) -> None:
        if head[-1] is Outcome.OK:
            self._history.producers.append(InitProducer(*head, producer_id=ended["pid"], epoch=ended["epoch"]))

    def _meta(self, head: Head, began: Line, ended: Line) -> None:
        self._history.metas.append(
            Meta(
                *head,
                command=began["cmd"],
                identity=str(began["id"]),
                arguments=began["args"],
                result=ended.get("result"),
            )
        )

    def _final_read(self, head: Head, began: Line, ended: Line) -> None:
        read_it = head[-1] is Outcome.OK
        known = ended.get("commit") if read_it else 0
        self._history.final_reads.append(
            FinalRead(
                *head,
                node=ended["node"],
                tp=self._keep(ended["tp"]),
                records=[
                    Record(offset, self._keep(value), term, producer_id, epoch, sequence, digest)
                    for offset, term, producer_id, epoch, sequence, value, digest in (ended["recs"] if read_it else ())
                ],
                start=ended["start"] if read_it else 0,
                high_watermark=ended["hw"] if read_it else 0,
                committed=ended["hw"] if known is None else known,
            )
        )

    def _nemesis(self, head: Head, began: Line, ended: Line) -> None:
        told = began | ended
        self._history.faults.append(
            Nemesis(
                *head,
                kind=told["kind"],
                targets=list(told.get("targets") or ()),
                parameters=told.get("params") or {},
                bit=told.get("bit") or {},
            )
        )


def _sort(operations: list[T]) -> None:
    operations.sort(key=lambda one: (one.invoked, one.process, one.number))

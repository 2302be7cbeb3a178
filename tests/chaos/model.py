"""A model of a correct log: it emits histories that are legal, whatever the seed.

Everything here happens at one moment of virtual time, so that there is nothing to get wrong; what makes histories hard
to judge is around it: attempts whose outcome nobody is told, which take effect, or do not, or late; leaders that do not
know yet that they were deposed; replicas behind; logs that are trimmed while they are read; topics that come and go.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quorumlog.chaos.history.events import History
from quorumlog.chaos.history.reading import gather
from quorumlog.chaos.history.values import value_of

Line = dict[str, Any]
Play = Generator[int, None, None]

NODES = (1, 2, 3)
MS = 1_000_000
LONG = 400 * MS


@dataclass
class Row:
    """One record in the log."""

    value: str
    term: int
    writer: tuple[int, int] | None
    sequence: int | None
    at: int


@dataclass
class Partition:
    """A log that is committed as it is appended; `ends` is how far each node knows."""

    name: str
    rows: list[Row] = field(default_factory=list)
    start: int = 0
    term: int = 1
    leader: int = 1
    deposed: tuple[int, int, int, int] | None = None
    ends: dict[int, int] = field(default_factory=lambda: dict.fromkeys(NODES, 0))
    gone: bool = False
    epochs: dict[int, int] = field(default_factory=dict)

    def append(self, values: list[str], writer: tuple[int, int] | None, sequence: int | None, now: int) -> int | None:
        """Append a batch; returns its base offset, None if its writer is fenced."""
        if writer is not None:
            if self.epochs.get(writer[0], -1) > writer[1]:
                return None
            self.epochs[writer[0]] = writer[1]
        base = len(self.rows)
        for place, value in enumerate(values):
            self.rows.append(Row(value, self.term, writer, None if sequence is None else sequence + place, now))
        self.ends[self.leader] = len(self.rows)
        return base


class Process:
    """Writes the lines of one process; an unknown outcome renames it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.base = world, name
        self.life, self.number = 1, 0

    @property
    def name(self) -> str:
        return self.base if self.life == 1 else f"{self.base}#{self.life}"

    def invoke(self, function: str, **fields: Any) -> None:
        self.number += 1
        self.function = function
        self._line("invoke", fields)

    def ok(self, **fields: Any) -> None:
        self._line("ok", fields)

    def fail(self, **fields: Any) -> None:
        self._line("fail", fields)

    def tell(self, function: str, **fields: Any) -> None:
        self.number += 1
        self.function = function
        self._line("ok", fields)

    def info(self) -> None:
        """Nobody is told, and half of the time there is not even a line that says so."""
        if self.world.rng.random() < 0.5:
            self._line("info", {})
        self.life += 1
        self.number = 0

    def _line(self, event: str, fields: Line) -> None:
        head = {"t": self.world.now, "p": self.name, "s": self.number, "e": event, "f": self.function}
        self.world.lines.append(head | fields)


class World:
    """One run.

    Args:
        seed: of everything.
        length: of the run, in virtual nanoseconds.
    """

    def __init__(self, seed: int, length: int = LONG) -> None:
        self.rng = random.Random(seed)
        self.now = 1_000 * MS
        self.end = self.now + length
        self.lines: list[Line] = []
        self.partitions = {name: Partition(name) for name in ("t/0", "t/1")}
        self.retention: dict[str, int] | None = self.rng.choice([None, {"ms": 20}, {"ms": 20, "bytes": 1000}])
        self.run: Line = {
            "seed": seed,
            "nodes": 3,
            "seconds": length / 1e9,
            "began_ns": self.now,
            "retention": self.retention,
        }
        self._todo: list[tuple[int, int, Play]] = []
        self._count = 0
        self._producers = 0

    def spawn(self, play: Play, after: int = 0) -> None:
        """Let something happen beside everything else."""
        self._count += 1
        heapq.heappush(self._todo, (self.now + after, self._count, play))

    def play(self) -> None:
        """Let everything happen."""
        while self._todo:
            self.now, _, play = heapq.heappop(self._todo)
            wait = next(play, None)
            if wait is not None:
                self.spawn(play, wait)

    def soon(self) -> int:
        """Some time, hardly ever none."""
        return int(self.rng.expovariate(1.0) * MS)

    def history(self) -> History:
        """What a reader would read of it."""
        return gather(dict(self.run), [], [dict(line) for line in self.lines])

    def save(self, folder: Path, planned: Sequence[Line] = ()) -> Path:
        """Write it as the folder of a run; returns the folder."""
        (folder / "history").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(self.run))
        (folder / "schedule.json").write_text(json.dumps(list(planned)))
        files: dict[str, list[str]] = {}
        for line in self.lines:
            files.setdefault(line["p"].split("#")[0], []).append(json.dumps(line))
        for process, lines in files.items():
            (folder / "history" / f"{process}.jsonl").write_text("\n".join(lines) + "\n")
        return folder

    def living(self) -> Partition:
        """A partition whose topic is there."""
        return self.rng.choice([one for one in self.partitions.values() if not one.gone])

    def new_producer(self) -> int:
        """A producer id that nobody has."""
        self._producers += 1
        return self._producers


def batches(world: World, name: str) -> Play:
    """A producer of batches whose sequences are known."""
    rng, me = world.rng, Process(world, name)
    counter, known = 0, None
    while world.now < world.end:
        me.invoke("init_pid")
        yield world.soon()
        pid, epoch = (known[0], known[1] + 1) if known is not None and rng.random() < 0.3 else (world.new_producer(), 0)
        known = (pid, epoch)
        me.ok(pid=pid, epoch=epoch)
        sequences: dict[str, int] = {}
        certain = True
        while certain and world.now < world.end:
            yield world.soon()
            partition = world.living()
            counter += 1
            count = rng.randint(1, 3)
            values = [value_of(partition.name, me.name, counter, place, count) for place in range(1, count + 1)]
            sequence = sequences.get(partition.name, 0)
            identity = {"pid": pid, "epoch": epoch, "base_seq": sequence}
            me.invoke("produce", tp=partition.name, vals=values, acks="all", batch=True, **identity)
            yield world.soon()
            fate = "gone" if partition.gone else rng.choices(["ok", "fail", "info"], [80, 8, 12])[0]
            if fate == "ok":
                base = partition.append(values, known, sequence, world.now)
                assert base is not None
                told = {"base_offset": base, "term": partition.term, "node": partition.leader}
                sequences[partition.name] = sequence + count
                yield world.soon()
                # The answer to a retry comes from whoever leads now, with the term of the first attempt.
                retried = rng.random() < 0.1
                me.ok(**(told | {"dup": True, "node": partition.leader} if retried else told | {"dup": False}))
            elif fate == "info":
                certain = False
                unknown_append(world, partition, values, known, sequence)
                me.info()
            else:
                me.fail(error="refused")


def unknown_append(
    world: World, partition: Partition, values: list[str], writer: tuple[int, int] | None, sequence: int | None
) -> None:
    """An attempt of which nobody is told: it is done already, never, or later."""

    def late() -> Play:
        if not partition.gone:
            partition.append(values, writer, sequence, world.now)
        yield from ()

    if world.rng.random() < 0.7:
        world.spawn(late(), world.rng.choice([0, world.soon(), 20 * world.soon()]))


def singles(world: World, name: str, shared: dict[str, Any]) -> Play:
    """One of several processes that share a client's producer: sequences are told to nobody."""
    rng, me = world.rng, Process(world, name)
    counter = 0
    while world.now < world.end:
        yield world.soon()
        partition = world.living()
        counter += 1
        value = value_of(partition.name, me.name, counter, 1, 1)
        plain = shared.get("plain", False)
        me.invoke("produce", tp=partition.name, vals=[value], acks="all", batch=False, idempotent=not plain)
        yield world.soon()
        fate = "gone" if partition.gone else rng.choices(["ok", "fail", "info"], [85, 7, 8])[0]
        if fate in ("gone", "fail"):
            me.fail()
            continue
        if fate == "info" and rng.random() < 0.5:
            me.info()
            continue
        base = _append_shared(partition, value, shared, world.now)
        if plain and rng.random() < 0.2:
            yield world.soon()
            if not partition.gone:
                _append_shared(partition, value, shared, world.now)
        yield world.soon()
        if fate == "ok":
            me.ok(base_offset=base, term=None, dup=False)
        else:
            me.info()


def _append_shared(partition: Partition, value: str, shared: dict[str, Any], now: int) -> int:
    if shared.get("plain"):
        base = partition.append([value], None, None, now)
    else:
        sequence = shared.setdefault(partition.name, 0)
        shared[partition.name] += 1
        base = partition.append([value], (shared["pid"], 0), sequence, now)
    assert base is not None
    return base


def reader(world: World, name: str, *, follows: bool) -> Play:
    """Reads on where it ended, now and then again, from leaders or from one replica for a while."""
    rng, me = world.rng, Process(world, name)
    positions: dict[str, int] = {}
    session, node = 0, 1
    while world.now < world.end:
        yield world.soon()
        if rng.random() < 0.2:
            session, node = session + 1, rng.choice(NODES)
        partition = world.living()
        position = positions.get(partition.name, 0)
        if rng.random() < 0.2:
            position = rng.randint(0, position)
        whom, term, start, end = _replica(world, partition, node if follows else None)
        me.invoke(
            "fetch", tp=partition.name, max=1000, node=whom, consistency="follower" if follows else "leader",
            session=f"{name}/{session}/{whom}/{partition.name}", **{"from": position},
        )  # fmt: skip
        yield world.soon()
        if partition.gone or not start <= position <= end:
            positions[partition.name] = max(position, start) if position <= end else position
            me.fail()
            continue
        upto = min(end, position + rng.choice([0, 2, 5, 50]))
        records = [_record(partition, offset) for offset in range(position, upto)]
        yield world.soon()
        me.ok(recs=records, hw=end, start=start, leader_term=term)
        positions[partition.name] = max(positions.get(partition.name, 0), upto)


def _replica(world: World, partition: Partition, node: int | None) -> tuple[int, int, int, int]:
    """Whom to read from: node, term, beginning and end as they know it now."""
    if node is None and partition.deposed is not None and world.rng.random() < 0.3:
        return partition.deposed
    if node is None:
        return partition.leader, partition.term, partition.start, len(partition.rows)
    known = partition.ends[node]
    partition.ends[node] = world.rng.randint(max(known, partition.start), len(partition.rows))
    return node, partition.term, partition.start, partition.ends[node]


def _record(partition: Partition, offset: int) -> list[Any]:
    row = partition.rows[offset]
    pid, epoch = row.writer or (None, None)
    return [offset, row.value, row.term, pid, epoch, row.sequence]


def lister(world: World, name: str) -> Play:
    """Asks leaders where logs begin and end."""
    me = Process(world, name)
    while world.now < world.end:
        yield world.soon()
        partition = world.living()
        me.invoke("list_offsets", tp=partition.name, node=partition.leader)
        yield world.soon()
        told = {"start": partition.start, "hw": len(partition.rows), "term": partition.term, "node": partition.leader}
        yield world.soon()
        me.ok(**told)


def elections(world: World) -> Play:
    """Leaders change; the one before may answer fetches for a while."""
    while world.now < world.end:
        yield 10 * world.soon()
        partition = world.living()
        partition.deposed = (partition.leader, partition.term, partition.start, len(partition.rows))
        partition.term += world.rng.randint(1, 2)
        partition.leader = world.rng.choice([node for node in NODES if node != partition.leader])
        partition.ends[partition.leader] = len(partition.rows)


def trims(world: World) -> Play:
    """What is old goes."""
    while world.now < world.end and world.retention is not None:
        yield 5 * world.soon()
        partition = world.living()
        old = world.now - world.retention["ms"] * MS
        while partition.start < len(partition.rows) and partition.rows[partition.start].at < old:
            partition.start += 1
            # A leader of before is not asked any more once it lacks what readers need.
            partition.deposed = None


def final_reads(world: World) -> None:
    """All replicas are read, each row with a digest of it."""
    me = Process(world, "final")
    for partition in world.partitions.values():
        for node in NODES:
            if partition.gone:
                continue
            world.now += MS
            if world.rng.random() < 0.01:
                me.tell("final_read", node=node, tp=partition.name)
                world.lines[-1]["e"] = "fail"
                continue
            records = []
            for offset in range(partition.start, len(partition.rows)):
                _, value, term, pid, epoch, sequence = _record(partition, offset)
                records.append([offset, term, pid, epoch, sequence, value, f"digest of {value}"])
            end = len(partition.rows)
            commit = world.rng.choice([None, end])
            me.tell(
                "final_read", node=node, tp=partition.name, recs=records, start=partition.start, hw=end, commit=commit
            )

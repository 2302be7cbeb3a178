"""Faults of the network between nodes, by the proxy in front of each of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from itertools import permutations
from typing import Any

from quorumlog.chaos.faults.fault import Fault, Layout, end_task
from quorumlog.chaos.faults.proxy import Way

Pair = tuple[int, int]


class _Ways(Fault):
    """A fault of some directions between nodes, named as [from, to]."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._before: dict[Pair, tuple[int, int, int]] = {}

    def ways(self) -> dict[Pair, Way]:
        """The directions it is aimed at."""
        return {(a, b): self.scene.proxy.way(a, b) for a, b in self.parameters["ways"]}

    def aim(self) -> dict[Pair, Way]:
        """Take aim, and note what each has counted so far."""
        ways = self.ways()
        self.targets = [f"{a}>{b}" for a, b in ways]
        self._before = {pair: (way.chunks_held, way.chunks_delayed, way.bytes_passed) for pair, way in ways.items()}
        return ways

    def since(self) -> tuple[int, int, int]:
        """Chunks held, chunks delayed and bytes passed since it began."""
        held = delayed = passed = 0
        for pair, before in self._before.items():
            way = self.scene.proxy.way(*pair)
            held += way.chunks_held - before[0]
            delayed += way.chunks_delayed - before[1]
            passed += way.bytes_passed - before[2]
        return held, delayed, passed


class _Partition(_Ways):
    """Nothing passes in some directions. Afterwards what was held goes on, or the connections are reset."""

    _held: tuple[Way, ...] = ()

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the shape, and what becomes of the bytes that were held."""
        ways = cls.shape(rng, list(range(1, layout.nodes + 1)))
        return {"ways": [list(way) for way in sorted(ways)], "afterwards": rng.choice(("resume", "reset"))}

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw the directions that are cut."""
        raise NotImplementedError

    async def start(self) -> None:
        """Cut."""
        self.cut()

    async def stop(self) -> None:
        """Heal."""
        self.heal()

    def cut(self) -> None:
        """Hold every direction, if they are not held yet."""
        if not self._held:
            self._held = tuple(self.aim().values())
            for way in self._held:
                way.hold()

    def heal(self) -> None:
        """Let go of them."""
        if not self._held:
            return
        # What was held already when this began, by another fault, is held by this one as well.
        held = max(self.since()[0], sum(way.chunks_waiting for way in self._held))
        if held:
            self.bit["chunks_held"] = self.bit.get("chunks_held", 0) + held
        if self.parameters["afterwards"] == "reset":
            self.bit["resets"] = self.bit.get("resets", 0) + self.scene.proxy.reset(self._before)
        for way in self._held:
            way.release()
        self._held = ()


class Halves(_Partition):
    """Two halves that do not hear each other."""

    kind = "halves"

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw who is in the smaller half."""
        rng.shuffle(nodes)
        small = rng.randint(1, len(nodes) // 2)
        return both_ways((a, b) for a in nodes[:small] for b in nodes[small:])


class Isolate(_Partition):
    """One node that hears nobody and is heard by nobody."""

    kind = "isolate"

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw which one."""
        one = rng.choice(nodes)
        return both_ways((one, other) for other in nodes if other != one)


class OneWay(_Partition):
    """One node that hears the others but is not heard, or the other way round."""

    kind = "one_way"

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw which one, and which way."""
        one = rng.choice(nodes)
        outward = rng.random() < 0.5
        return {(one, other) if outward else (other, one) for other in nodes if other != one}


class Ring(_Partition):
    """Each node hears its neighbours in a ring alone; of three, two do not hear each other."""

    kind = "ring"

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw the order in the ring."""
        rng.shuffle(nodes)
        count = len(nodes)
        reach = max(1, count // 4)
        near = {
            frozenset((nodes[at], nodes[(at + step) % count])) for at in range(count) for step in range(1, reach + 1)
        }
        if count == 3:
            near.discard(frozenset(nodes[:2]))
        return {pair for pair in permutations(nodes, 2) if frozenset(pair) not in near}


class Bridge(_Partition):
    """Two halves that do not hear each other, and one node that hears both."""

    kind = "bridge"

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw who the bridge is."""
        rng.shuffle(nodes)
        middle = (len(nodes) + 1) // 2
        return both_ways((a, b) for a in nodes[1:middle] for b in nodes[middle:])


class Flapping(_Partition):
    """A partition in halves that comes and goes."""

    kind = "flapping"
    _task: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the pace as well."""
        pace = {"cut_seconds": round(rng.uniform(0.1, 1.5), 2), "healed_seconds": round(rng.uniform(0.1, 1.5), 2)}
        return super().draw(rng, layout) | pace

    @classmethod
    def shape(cls, rng: random.Random, nodes: list[int]) -> set[Pair]:
        """Draw the halves."""
        return Halves.shape(rng, nodes)

    async def start(self) -> None:
        """Begin with a cut."""
        self.cut()
        self._task = asyncio.create_task(self._flap())

    async def _flap(self) -> None:
        while True:
            await asyncio.sleep(self.parameters["cut_seconds"])
            self.heal()
            await asyncio.sleep(self.parameters["healed_seconds"])
            self.cut()

    async def stop(self) -> None:
        """Heal for good."""
        task, self._task = self._task, None
        await end_task(task)
        self.heal()


class Delay(_Ways):
    """Everything comes later, and not evenly."""

    kind = "delay"
    _on: tuple[Way, ...] = ()

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw how much, and where: everywhere, or around one node."""
        return {
            "ways": _some_ways(rng, layout),
            "delay_seconds": round(rng.uniform(0.01, 0.25), 3),
            "jitter_seconds": round(rng.uniform(0.0, 0.25), 3),
        }

    async def start(self) -> None:
        """Delay."""
        self._on = tuple(self.aim().values())
        for way in self._on:
            way.delay_seconds += self.parameters["delay_seconds"]
            way.jitter_seconds += self.parameters["jitter_seconds"]

    async def stop(self) -> None:
        """Delay no more."""
        for way in self._on:
            way.delay_seconds -= self.parameters["delay_seconds"]
            way.jitter_seconds -= self.parameters["jitter_seconds"]
            if way.delay_seconds < 1e-9:  # what sums of floats leave over
                way.delay_seconds = way.jitter_seconds = 0.0
        if self._on and self.since()[1]:
            self.bit = {"chunks_delayed": self.since()[1]}
        self._on = ()


class Rate(_Ways):
    """A few kilobytes per second, and no more."""

    kind = "rate"
    _on: tuple[Way, ...] = ()

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the rate, and where: everywhere, or around one node."""
        return {"ways": _some_ways(rng, layout), "bytes_per_second": rng.choice((4_000, 16_000, 64_000))}

    async def start(self) -> None:
        """Limit."""
        self._on = tuple(self.aim().values())
        for way in self._on:
            way.rates.append(float(self.parameters["bytes_per_second"]))

    async def stop(self) -> None:
        """Limit no more."""
        for way in self._on:
            way.rates.remove(float(self.parameters["bytes_per_second"]))
        if self._on and self.since()[2]:
            self.bit = {"bytes_passed_slowly": self.since()[2]}
        self._on = ()


class Stall(_Ways):
    """The connections of one node stop in the middle of a frame, then go on or are reset."""

    kind = "stall"
    _on: tuple[tuple[Way, int], ...] = ()

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw around which node, and what becomes of the bytes that were held."""
        return {"ways": _ways_of_one(rng, layout), "afterwards": rng.choice(("resume", "reset"))}

    async def start(self) -> None:
        """Let each stall with its next chunk."""
        self._on = tuple((way, way.chunks_split) for way in self.aim().values())
        for way, _ in self._on:
            way.stall_in_frame = True

    async def stop(self) -> None:
        """Let them go on."""
        split = 0
        if self._on and self.parameters["afterwards"] == "reset":
            self.scene.proxy.reset(self._before)
        for way, before in self._on:
            way.stall_in_frame = False
            if way.chunks_split > before:
                split += 1
                way.release()
        self._on = ()
        if split:
            self.bit = {"chunks_split": split}


class Reset(_Ways):
    """Connections are reset again and again."""

    kind = "reset"
    _task: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw where and how often."""
        return {"ways": _some_ways(rng, layout), "every_seconds": round(rng.uniform(0.2, 2.0), 2)}

    async def start(self) -> None:
        """Begin at once."""
        self.aim()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            broken = self.scene.proxy.reset(self._before)
            if broken:
                self.bit["resets"] = self.bit.get("resets", 0) + broken
            await asyncio.sleep(self.parameters["every_seconds"])

    async def stop(self) -> None:
        """Reset no more."""
        task, self._task = self._task, None
        await end_task(task)


def both_ways(pairs: Iterable[Pair]) -> set[Pair]:
    """The pairs, and each of them the other way round."""
    return {way for a, b in pairs for way in ((a, b), (b, a))}


def _some_ways(rng: random.Random, layout: Layout) -> list[list[int]]:
    if rng.random() < 0.5:
        return _ways_of_one(rng, layout)
    return [list(pair) for pair in permutations(range(1, layout.nodes + 1), 2)]


def _ways_of_one(rng: random.Random, layout: Layout) -> list[list[int]]:
    nodes = range(1, layout.nodes + 1)
    one = rng.choice(nodes)
    return [list(pair) for pair in permutations(nodes, 2) if one in pair]

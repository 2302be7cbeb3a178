"""The faults of a seed: a list that is drawn before the run begins, so that it can be replayed with some left out."""

from __future__ import annotations

import random
from collections.abc import Collection
from functools import partial
from typing import Final, NamedTuple

from quorumlog.chaos.sim.field import Field
from quorumlog.chaos.sim.kinds import KINDS

SECONDS_BETWEEN: Final = 2.0
"""Of simulated time, between two strokes on average."""


class Stroke(NamedTuple):
    """One fault: when, in seconds from the beginning, of what kind, and what its own choices are drawn from."""

    number: int
    at: float
    kind: str
    seed: int


def draw(rng: random.Random, seconds: float, kinds_share: float) -> list[Stroke]:
    """The strokes of one run, in their order. Only a share of the kinds takes part."""
    names = sorted(name for name, kind in KINDS.items() if kind.weight > 0)
    chosen = sorted(rng.sample(names, max(1, round(len(names) * kinds_share))))
    weights = [KINDS[name].weight for name in chosen]
    count = round(seconds / SECONDS_BETWEEN)
    times = sorted(rng.uniform(0.0, seconds) for _ in range(count))
    kinds = rng.choices(chosen, weights, k=count)
    return [
        Stroke(number, at, kind, rng.getrandbits(32))
        for number, (at, kind) in enumerate(zip(times, kinds, strict=True))
    ]


def begin(field: Field, strokes: Collection[Stroke]) -> None:
    """Let the strokes happen in their time."""
    for stroke in strokes:
        field.later(stroke.at, partial(_strike, field, stroke))


def _strike(field: Field, stroke: Stroke) -> None:
    if KINDS[stroke.kind].strike(field, random.Random(stroke.seed)):
        field.world.count(f"fault {stroke.kind}")

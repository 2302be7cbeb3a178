"""Partitions of all shapes, and clients that reach nobody."""

from __future__ import annotations

import random
from collections.abc import Iterable

from quorumlog.chaos.sim.channel import CLIENTS
from quorumlog.chaos.sim.field import Field

Link = tuple[int, int]


def alone(field: Field, rng: random.Random) -> bool:
    """One node is cut off from all others."""
    ids = _ids(field)
    one = rng.choice(ids)
    return _cut(field, rng, f"node {one} is alone", _between([one], [other for other in ids if other != one]))


def halves(field: Field, rng: random.Random) -> bool:
    """The nodes fall apart into two parts."""
    left, right = _parts(_ids(field), rng)
    return _cut(field, rng, f"{left} and {right} are apart", _between(left, right))


def ring(field: Field, rng: random.Random) -> bool:
    """Everybody sees a majority, and no two the same: each node reaches its neighbours on a ring only."""
    ids = _ids(field)
    if len(ids) < 4:
        return False
    rng.shuffle(ids)
    reach = len(ids) // 4 or 1
    place = {node: number for number, node in enumerate(ids)}
    links = [
        (one, two)
        for one in ids
        for two in ids
        if min((place[one] - place[two]) % len(ids), (place[two] - place[one]) % len(ids)) > reach
    ]
    return _cut(field, rng, f"a ring of {ids}", links)


def bridge(field: Field, rng: random.Random) -> bool:
    """Two parts that only one node reaches both of."""
    ids = _ids(field)
    if len(ids) < 3:
        return False
    middle = rng.choice(ids)
    left, right = _parts([one for one in ids if one != middle], rng)
    return _cut(field, rng, f"node {middle} is the bridge between {left} and {right}", _between(left, right))


def one_way(field: Field, rng: random.Random) -> bool:
    """What some nodes send to others is lost, the other way all is well."""
    left, right = _parts(_ids(field), rng)
    links = [(one, two) for one in left for two in right]
    return _cut(field, rng, f"{right} do not hear {left}", links)


def flapping(field: Field, rng: random.Random) -> bool:
    """A partition that comes and goes."""
    left, right = _parts(_ids(field), rng)
    links = set(_between(left, right))
    world = field.world
    field.tell(f"the links between {left} and {right} come and go")
    for _ in range(rng.randint(3, 8)):
        begin = rng.uniform(0.0, 6.0)
        field.later(begin, lambda: world.cut.update(links))
        field.later(begin + rng.uniform(0.05, 1.0), lambda: world.cut.difference_update(links))
    return bool(links)


def clients_cut(field: Field, rng: random.Random) -> bool:
    """Clients cannot reach a node, or do not hear it."""
    node_id = rng.choice(_ids(field))
    up, down = (CLIENTS, node_id), (node_id, CLIENTS)
    return _cut(field, rng, f"clients are cut off from node {node_id}", rng.choice([[up], [down], [up, down]]))


def _ids(field: Field) -> list[int]:
    return sorted(field.world.nodes)


def _parts(ids: list[int], rng: random.Random) -> tuple[list[int], list[int]]:
    """Two parts, neither empty unless there is but one node."""
    mixed = rng.sample(ids, len(ids))
    size = rng.randint(1, max(len(ids) - 1, 1))
    return sorted(mixed[:size]), sorted(mixed[size:])


def _between(left: Iterable[int], right: Iterable[int]) -> list[Link]:
    right = list(right)
    return [link for one in left for two in right for link in ((one, two), (two, one))]


def _cut(field: Field, rng: random.Random, what: str, links: Iterable[Link]) -> bool:
    new = set(links) - field.world.cut
    if not new:
        return False
    seconds = rng.choice([rng.uniform(0.1, 2.0), rng.uniform(1.0, 8.0)])
    field.tell(f"{what}, for {seconds:.1f} s")
    field.world.cut |= new

    def mend() -> None:
        field.world.cut -= new

    field.later(seconds, mend)
    return True

"""Where the replicas of new partitions go: even over nodes, hosts and racks. Pure.

Sets of replicas come first, one partition after the other, each replica on the least loaded node that keeps the set
apart; then single replicas move as long as that evens out the load; last, the preferred leaders are chosen among the
replicas. Choosing leaders last lets both be even: a leader chosen first would pull its replica along.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlacementNode:
    """A node that may take replicas, and what it has already. An empty `host` or `rack` was not given.

    A node that is not `fit` (dead for a while, or in repair) takes replicas and leaderships only where others have no
    room for them.
    """

    node_id: int
    host: str = ""
    rack: str = ""
    replicas: int = 0
    leaders: int = 0
    fit: bool = True

    @property
    def host_key(self) -> str:
        """The machine; a node that does not name one is alone on its own (hosts are names, so none contains a NUL)."""
        return self.host or f"\0{self.node_id}"


@dataclass(slots=True)
class _Load:
    replicas: Counter[int]
    leaders: Counter[int]
    tie: dict[int, float] = field(default_factory=dict)


def place(nodes: Iterable[PlacementNode], partitions: int, replicas: int, rng: random.Random) -> list[tuple[int, ...]]:
    """Return for each new partition the node ids of its replicas, the preferred leader first.

    Never two replicas of a partition on one host while another host has a node without one; racks likewise, where
    given. Within that, nodes that are fit come first, and replicas and preferred leaders are even over those, what the
    nodes have already counted in.
    The same arguments and generator state give the same answer. Needs `1 <= replicas <= len(nodes)`.
    """
    by_id = {node.node_id: node for node in sorted(nodes, key=lambda node: node.node_id)}
    assert 1 <= replicas <= len(by_id), f"{replicas} replicas do not fit on {len(by_id)} nodes"
    load = _Load(
        replicas=Counter({node_id: node.replicas for node_id, node in by_id.items()}),
        leaders=Counter({node_id: node.leaders for node_id, node in by_id.items()}),
    )
    sets: list[list[int]] = []
    for _ in range(partitions):
        load.tie = {node_id: rng.random() for node_id in by_id}
        chosen: list[int] = []
        for _ in range(replicas):
            chosen.append(_next_replica(by_id, chosen, load))
            load.replicas[chosen[-1]] += 1
        sets.append(chosen)
    _even_replicas(by_id, sets, load)
    leaders = _spread_leaders(by_id, sets, load)
    return [
        (leader, *(node_id for node_id in chosen if node_id != leader))
        for leader, chosen in zip(leaders, sets, strict=True)
    ]


def _next_replica(nodes: Mapping[int, PlacementNode], chosen: Collection[int], load: _Load) -> int:
    def key(node_id: int) -> tuple[int, int, bool, int, int, float]:
        node = nodes[node_id]
        beside = [nodes[other] for other in chosen]
        return (
            sum(other.host_key == node.host_key for other in beside),
            sum(other.rack == node.rack for other in beside) if node.rack else 0,
            not node.fit,
            load.replicas[node_id],
            load.leaders[node_id],
            load.tie[node_id],
        )

    return min((node_id for node_id in nodes if node_id not in chosen), key=key)


def crowding(nodes: Mapping[int, PlacementNode], chosen: Sequence[int]) -> tuple[int, int]:
    """How far a set of replicas is from being apart: pairs on one host, pairs in one rack. Lower is better."""
    hosts = Counter(nodes[node_id].host_key for node_id in chosen)
    racks = Counter(nodes[node_id].rack for node_id in chosen if nodes[node_id].rack)
    return (
        sum(count * (count - 1) // 2 for count in hosts.values()),
        sum(count * (count - 1) // 2 for count in racks.values()),
    )


def _even_replicas(nodes: Mapping[int, PlacementNode], sets: list[list[int]], load: _Load) -> None:
    """Move single new replicas to nodes with at least two fewer, where the set stays as far apart as it is."""
    moved = True
    while moved:
        moved = False
        for chosen in sets:
            for position, source in enumerate(chosen):
                before = crowding(nodes, chosen)
                targets = [
                    node_id
                    for node_id in nodes
                    if node_id not in chosen
                    and nodes[node_id].fit >= nodes[source].fit
                    and load.replicas[node_id] <= load.replicas[source] - 2
                    and crowding(nodes, [*chosen[:position], node_id, *chosen[position + 1 :]]) <= before
                ]
                if targets:
                    target = min(targets, key=lambda node_id: (load.replicas[node_id], node_id))
                    chosen[position] = target
                    load.replicas[source] -= 1
                    load.replicas[target] += 1
                    moved = True


def _spread_leaders(nodes: Mapping[int, PlacementNode], sets: Sequence[Sequence[int]], load: _Load) -> list[int]:
    """Choose a leader from each set, a fit one where there is any, so that leaders are as even as that allows.

    Least loaded first, then leadership is shifted along chains of partitions from a node to one with at least two
    fewer, until there is no such chain (a semi-matching is optimal exactly then: Harvey, Ladner, Lovasz, Tamir, 2003).
    """
    leaders: list[int] = []
    sets = [[one for one in chosen if nodes[one].fit] or chosen for chosen in sets]
    for chosen in sets:
        leader = min(chosen, key=lambda node_id: (load.leaders[node_id], chosen.index(node_id)))
        leaders.append(leader)
        load.leaders[leader] += 1
    while (chain := leader_chain(sets, leaders, load.leaders)) is not None:
        for partition, target in chain:
            load.leaders[leaders[partition]] -= 1
            load.leaders[target] += 1
            leaders[partition] = target
    return leaders


def leader_chain(
    sets: Sequence[Sequence[int]], leaders: Sequence[int], counts: Mapping[int, int]
) -> list[tuple[int, int]] | None:
    """Return changes (partition, new leader) that take one leadership from a node to one with at least two fewer."""
    led: dict[int, list[int]] = {}
    for partition, leader in enumerate(leaders):
        led.setdefault(leader, []).append(partition)
    for source in sorted(led, key=lambda node_id: (-counts[node_id], node_id)):
        reached: dict[int, tuple[int, int]] = {}  # node -> the partition that it would take over, and from whom
        queue = deque([source])
        while queue:
            giver = queue.popleft()
            for partition in led.get(giver, ()):
                for target in sets[partition]:
                    if target == source or target in reached:
                        continue
                    reached[target] = (partition, giver)
                    if counts[target] <= counts[source] - 2:
                        return _unwind(reached, source, target)
                    queue.append(target)
    return None


def _unwind(reached: Mapping[int, tuple[int, int]], source: int, target: int) -> list[tuple[int, int]]:
    chain = []
    while target != source:
        partition, giver = reached[target]
        chain.append((partition, target))
        target = giver
    return chain

"""Where the replicas of existing partitions are, and which few of them to move. Pure.

The rules are those of placement.py: apart first (no two on one host, then in one rack, while others have room), even
second. What differs is that a replica that stays costs nothing and one that moves is a copy of all its data: so every
change here is the best next one, and there are no more than it takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from quorumlog.node.metadata.placement import PlacementNode, crowding, leader_chain


class Layout:
    """The replica sets of all partitions, by number; the preferred leader is the first of each.

    Args:
        nodes: the members. Only those that are `fit` are given anything.
        sets: node ids of each partition's replicas. Changed in place by the methods.
    """

    def __init__(self, nodes: Iterable[PlacementNode], sets: Iterable[Sequence[int]]) -> None:
        self._nodes = {node.node_id: node for node in sorted(nodes, key=lambda node: node.node_id)}
        self.sets = [list(chosen) for chosen in sets]
        self._replicas = Counter(node_id for chosen in self.sets for node_id in chosen)
        self._leaders = Counter(chosen[0] for chosen in self.sets)

    def best(self, chosen: Collection[int], barred: Collection[int] = ()) -> int | None:
        """Return the fit node that should take the next replica beside those `chosen`; None when there is no room."""

        def key(node_id: int) -> tuple[int, int, int, int, int]:
            node = self._nodes[node_id]
            beside = [self._nodes[other] for other in chosen]
            return (
                sum(other.host_key == node.host_key for other in beside),
                sum(other.rack == node.rack for other in beside) if node.rack else 0,
                self._replicas[node_id],
                self._leaders[node_id],
                node_id,
            )

        free = (one for one, node in self._nodes.items() if node.fit and one not in chosen and one not in barred)
        return min(free, key=key, default=None)

    def add(self, number: int, barred: Collection[int] = ()) -> bool:
        """Give a partition one more replica, not on a node `barred`. False when there is no room."""
        target = self.best(self.sets[number], barred)
        if target is None:
            return False
        self._put(number, [*self.sets[number], target])
        return True

    def drop(self, number: int, node_id: int) -> None:
        """Take a replica away. Where it was the preferred leader, the one among the others that leads least becomes
        it.
        """
        rest = [one for one in self.sets[number] if one != node_id]
        assert rest, "the last replica is not dropped"
        if self.sets[number][0] == node_id:
            leader = min(rest, key=lambda one: (not self._nodes[one].fit, self._leaders[one]))
            rest = [leader, *(one for one in rest if one != leader)]
        self._put(number, rest)

    def evict(self, number: int, node_id: int, barred: Collection[int] = ()) -> bool:
        """Move a replica off a node. False when no other has room."""
        rest = [one for one in self.sets[number] if one != node_id]
        target = self.best(rest, {*barred, node_id})
        if target is None:
            return False
        self._put(number, [*self.sets[number], target])
        self.drop(number, node_id)
        return True

    def even(self, numbers: Sequence[int]) -> None:
        """Even replicas and preferred leaders of these partitions out over the fit nodes, with what others have counted
        in.

        From the fullest node to the emptiest that may take a replica, while that is at least two emptier: without hosts
        and racks to regard these are as few moves as there can be, because each lessens what is too much on one node or
        too little on another.
        """
        for number in numbers:
            while (apart := self._further_apart(number)) is not None:
                self._exchange(number, *apart)
        on_node: dict[int, set[int]] = {node_id: set() for node_id, node in self._nodes.items() if node.fit}
        for number in numbers:
            for node_id in self.sets[number]:
                if node_id in on_node:
                    on_node[node_id].add(number)
        while (move := self._evening_move(on_node)) is not None:
            number, source, target = move
            self._exchange(number, source, target)
            on_node[source].remove(number)
            on_node[target].add(number)
        self._even_leaders(numbers)

    def _further_apart(self, number: int) -> tuple[int, int] | None:
        """The exchange (from, to) that spreads a partition best over hosts and racks; None when none spreads it."""
        chosen = self.sets[number]
        now = crowding(self._nodes, chosen)
        if now == (0, 0):
            return None
        found: list[tuple[tuple[int, int], int, int, int]] = []
        for source in chosen:
            if not self._nodes[source].fit:
                continue
            rest = [one for one in chosen if one != source]
            target = self.best(rest, [source])
            if target is not None:
                after = crowding(self._nodes, [*rest, target])
                if after < now:
                    found.append((after, self._replicas[target] - self._replicas[source], source, target))
        if not found:
            return None
        _, _, source, target = min(found)
        return source, target

    def _evening_move(self, on_node: dict[int, set[int]]) -> tuple[int, int, int] | None:
        """A replica (partition, from, to) whose move evens the load out and keeps its partition as far apart as it
        is.
        """
        by_load = sorted(on_node, key=lambda node_id: (self._replicas[node_id], node_id))
        for source in reversed(by_load):
            for target in by_load:
                if self._replicas[target] > self._replicas[source] - 2:
                    break
                for number in sorted(on_node[source] - on_node[target]):
                    chosen = self.sets[number]
                    after = [target if one == source else one for one in chosen]
                    if crowding(self._nodes, after) <= crowding(self._nodes, chosen):
                        return number, source, target
        return None

    def _even_leaders(self, numbers: Sequence[int]) -> None:
        """Shift preferred leaderships along chains of partitions; see `placement.leader_chain`."""
        sets = [[one for one in self.sets[number] if self._nodes[one].fit] or self.sets[number] for number in numbers]
        leaders = [self.sets[number][0] for number in numbers]
        while (chain := leader_chain(sets, leaders, self._leaders)) is not None:
            for position, target in chain:
                leaders[position] = target
                number = numbers[position]
                self._put(number, [target, *(one for one in self.sets[number] if one != target)])

    def _exchange(self, number: int, source: int, target: int) -> None:
        self._put(number, [*self.sets[number], target])
        self.drop(number, source)

    def _put(self, number: int, chosen: list[int]) -> None:
        before = self.sets[number]
        self._replicas.subtract(before)
        self._replicas.update(chosen)
        self._leaders[before[0]] -= 1
        self._leaders[chosen[0]] += 1
        self.sets[number] = chosen

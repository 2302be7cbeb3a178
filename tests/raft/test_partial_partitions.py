"""Liveness under every way in which links between a few replicas can be down for good.

Pre-vote, check-quorum and stickiness can lock each other out (etcd issues 8243 and 8501). Whatever the links, each of
which may work one way only, a majority that is fully connected must have a leader and commit within ten election
timeouts. QUORUMLOG_RAFT_GRAPHS=5 tries those of five replicas, too, which takes half a minute.
"""

import os
import random
from collections.abc import Iterator
from itertools import combinations, permutations

import pytest

from quorumlog.raft import Config, HardState, Message, NodeId, NotLeader, Term
from tests.raft.memory_shell import MemoryLog, Shell, configuration, entry

Links = frozenset[tuple[int, int]]
ELECTION_TICKS = 10
TICKS = 10 * ELECTION_TICKS
SIZES = [2, 3, 4] + [5] * (os.environ.get("QUORUMLOG_RAFT_GRAPHS") == "5")
SHAPES = {2: 3, 3: 16, 4: 218, 5: 9608}  # of directed graphs, OEIS A000273


def graphs(size: int) -> list[Links]:
    """Every set of one-way links between `size` replicas, one of each shape."""
    pairs = list(permutations(range(1, size + 1), 2))
    orders = [dict(enumerate(order, 1)) for order in permutations(range(1, size + 1))]
    renamed = [[1 << pairs.index((to[one], to[two])) for one, two in pairs] for to in orders]
    seen = bytearray(1 << len(pairs))
    shapes = []
    for graph in range(1 << len(pairs)):
        if not seen[graph]:
            links = [place for place in range(len(pairs)) if graph >> place & 1]
            for bits in renamed:
                seen[sum(bits[place] for place in links)] = True
            shapes.append(frozenset(pairs[place] for place in links))
    return shapes


def two_way_graphs(size: int) -> list[Links]:
    """Those whose links all work both ways."""
    pairs = list(combinations(range(1, size + 1), 2))
    shapes: dict[tuple[tuple[int, int], ...], Links] = {}
    orders = [dict(enumerate(order, 1)) for order in permutations(range(1, size + 1))]
    for count in range(len(pairs) + 1):
        for some in combinations(pairs, count):
            shape = min(tuple(sorted(tuple(sorted((to[a], to[b]))) for a, b in some)) for to in orders)
            shapes.setdefault(shape, frozenset(some) | frozenset((b, a) for a, b in some))  # type: ignore[arg-type]
    return list(shapes.values())


def connected_majorities(size: int, links: Links) -> Iterator[tuple[int, ...]]:
    for some in combinations(range(1, size + 1), size // 2 + 1):
        if all(pair in links for pair in permutations(some, 2)):
            yield some


class PartialCluster:
    """Replicas with logs and terms of their own, synced at once, on links that stay as they are."""

    def __init__(self, size: int, links: Links, seed: int) -> None:
        rng = random.Random(seed)
        self.links = links
        self.network: list[Message] = []
        self.shells = {}
        for node_id in range(1, size + 1):
            terms = [1] * rng.randrange(3) + [1 + node_id] * rng.randrange(3)  # a tail that nobody else has
            self.shells[node_id] = Shell(
                node_id,
                configuration(*range(1, size + 1)),
                Config(NodeId(node_id), election_ticks=ELECTION_TICKS),
                random.Random(rng.random()),
                disk=MemoryLog([entry(index, term, b"%d" % term) for index, term in enumerate(terms, 1)]),
                disk_hard_state=HardState(Term(size + rng.randrange(1, 4)), NodeId(0)),
                send=self.network.append,
            )

    def turn(self) -> None:
        """One tick, and then the network until it is quiet."""
        for shell in self.shells.values():
            shell.node.tick()
        for _ in range(30):
            for shell in self.shells.values():
                while shell.node.has_ready():
                    shell.take()
                shell.sync()
            arriving = [one for one in self.network if (one.sender, one.to) in self.links]
            self.network.clear()
            if not arriving:
                return
            for message in arriving:
                self.shells[message.to].node.step(message)

    def commits(self) -> bool:
        """Whether some leader can commit an entry of its own within the time given."""
        for _ in range(TICKS):
            self.turn()
            for shell in self.shells.values():
                try:
                    shell.propose(b"new")
                except NotLeader:
                    continue
                wanted = shell.node.last_index
                self.turn()
                if shell.node.is_leader and shell.node.commit_index >= wanted:
                    return True
        return False


@pytest.mark.parametrize("size", SIZES)
def test_a_connected_majority_commits_whatever_the_other_links(size: int) -> None:
    shapes = graphs(size)
    assert len(shapes) == SHAPES[size]
    for links in shapes:
        if any(connected_majorities(size, links)):
            for seed in range(5):
                assert PartialCluster(size, links, seed).commits(), f"no leader with links {sorted(links)}, seed {seed}"


def test_a_connected_majority_of_five_commits_among_two_way_links() -> None:
    tried = 0
    for links in two_way_graphs(5):
        if any(connected_majorities(5, links)):
            tried += 1
            for seed in range(3):
                assert PartialCluster(5, links, seed).commits(), f"no leader with links {sorted(links)}, seed {seed}"
    assert tried == 20


def test_without_a_majority_nothing_is_committed() -> None:
    links = frozenset({(1, 2), (2, 1), (3, 4), (4, 3)})
    cluster = PartialCluster(5, links, seed=1)
    assert not cluster.commits()

"""A coordination plane that answers nonsense."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from quorumlog.node.coordination.view import LeaderHint, NodeFigures
from quorumlog.raft import NodeId, Term


class LyingPlane:
    """Answers at random: any node may be up, lead or hold a lock; some nodes do not exist and some terms are absurd."""

    def __init__(self, rng: random.Random, nodes: Sequence[int]) -> None:
        self._rng = rng
        self._nodes = [*nodes, max(nodes) + 1]

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Return either."""
        return self._rng.random() < 0.5

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return any node under any term, or None."""
        if self._rng.random() < 0.3:
            return None
        return LeaderHint(NodeId(self._rng.choice(self._nodes)), Term(self._rng.choice([0, 1, 2, 3, 1 << 60])))

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return invented figures."""
        return {
            NodeId(node_id): NodeFigures(NodeId(node_id), self._rng.randbytes(16), 1, -1, -1e9, 1e9)
            for node_id in self._nodes
            if self._rng.random() < 0.5
        }

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Return either."""
        return self._rng.random() < 0.5

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Return any node or None."""
        return self._rng.choice([None, NodeId(1), NodeId(self._nodes[-1])])

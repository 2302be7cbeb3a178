"""A coordination plane that answers every question with nonsense, for tests of whatever asks one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from quorumlog.node.coordination.view import LeaderHint, NodeFigures
from quorumlog.raft.types import NodeId, Term


class LyingCoordination:
    """A `CoordinationView` whose answers are drawn from `rng`: any member may be up, lead, be idle or hold any lock.

    It also names nodes that do not exist (`member_ids` plus one more), absurd terms and negative figures.
    """

    def __init__(self, member_ids: Sequence[NodeId], rng: random.Random) -> None:
        self._node_ids = [*member_ids, NodeId(max(member_ids) + 1)]
        self._rng = rng

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Return either."""
        return self._rng.random() < 0.5

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return any node under any term, or None."""
        if self._rng.random() < 0.2:
            return None
        return LeaderHint(self._rng.choice(self._node_ids), Term(self._rng.getrandbits(62)))

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return invented figures of some nodes."""
        chosen = [node_id for node_id in self._node_ids if self._rng.random() < 0.7]
        return {
            node_id: NodeFigures(
                node_id=node_id,
                incarnation=self._rng.randbytes(16),
                session_id=self._rng.getrandbits(64),
                disk_free_bytes=self._rng.choice([-1, 0, 1 << 60]),
                load=self._rng.uniform(-1e9, 1e9),
                heard_at=self._rng.uniform(-1e9, 1e9),
            )
            for node_id in chosen
        }

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Return either, also to two nodes at once."""
        return self._rng.random() < 0.5

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Return any node or None."""
        return self._rng.choice([None, *self._node_ids])

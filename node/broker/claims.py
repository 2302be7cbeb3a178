"""Elections right after a start: nobody waits for a timeout when everybody who could vote is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.raft import Role

CLAIMS: Final = 6
CLAIM_SECONDS: Final = 0.25


class StartClaims:
    """Campaigns a few times for groups without a leader. Pre-vote keeps a living leader in place."""

    def __init__(self, *, node_id: int, multi: MultiRaft, catalogue: Catalogue, liveness: Liveness) -> None:
        self._node_id = node_id
        self._multi = multi
        self._catalogue = catalogue
        self._liveness = liveness
        self._left = CLAIMS
        self._next_at = 0.0

    def tick(self, now: float, others: Sequence[int]) -> None:
        """Campaign, once a majority of the nodes is there: the streams to them may be coming up still, so one campaign
        may go unheard.
        """
        if not self._left or now < self._next_at:
            return
        alive = 1 + sum(self._liveness.is_alive(node_id) for node_id in others)
        if 2 * alive <= len(others) + 1:
            return
        turn = CLAIMS - self._left
        self._left -= 1
        self._next_at = now + CLAIM_SECONDS
        for replica in self._multi.replicas.values():
            waits = replica.raft.role in (Role.FOLLOWER, Role.PRE_CANDIDATE) and not replica.raft.leader_id
            if replica.stopped is None and waits and self._is_my_turn(replica, turn):
                replica.raft.campaign()
                self._multi.touch(replica)

    def _is_my_turn(self, replica: Replica, turn: int) -> bool:
        """The preferred leader comes first; but it may have missed the last entries, and then another one must lead."""
        group = self._catalogue.group(replica.group_id)
        candidates = group.replicas if group is not None else replica.voters
        if self._node_id not in candidates:
            return False  # so it is, too, for a replica that does not know yet who votes
        return candidates[turn % len(candidates)] == self._node_id

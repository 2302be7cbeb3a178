"""Which of its groups a node leads: preferred leaders get their groups back, a stopping node hands all of its own
over.
"""

from __future__ import annotations

from typing import Final

from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.metadata.catalogue import Catalogue
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.raft import NodeId, NotLeader

BALANCE_SECONDS: Final = 5.0
TRANSFERS_PER_ROUND_MAX: Final = 8
"""Each transfer stops a group's writes for a moment; not all groups at once."""


class LeaderBalance:
    """Moves leadership of the groups led here."""

    def __init__(self, *, multi: MultiRaft, catalogue: Catalogue, liveness: Liveness) -> None:
        self._multi = multi
        self._catalogue = catalogue
        self._liveness = liveness
        self._next_round = 0.0
        self._offered: dict[int, set[int]] = {}

    def tick(self, now: float) -> None:
        """Give groups back to preferred leaders that are alive, whole and hold everything."""
        if now < self._next_round:
            return
        first, self._next_round = self._next_round == 0.0, now + BALANCE_SECONDS
        if first:
            return
        moved = 0
        for replica in self._multi.replicas.values():
            group = self._catalogue.group(replica.group_id)
            if group is None or not replica.ready_to_decide or replica.raft.transferring_to is not None:
                continue
            preferred = group.replicas[0]
            if preferred != replica.node_id and self._may_lead(replica, preferred):
                self._transfer(replica, preferred)
                moved += 1
                if moved == TRANSFERS_PER_ROUND_MAX:
                    return

    def _may_lead(self, replica: Replica, node_id: int) -> bool:
        progress = replica.raft.progress(NodeId(node_id))
        return (
            progress is not None
            and node_id in replica.voters  # one that has just been placed learns first
            and progress.counting  # in repair it would not campaign, and the offer stops writes until it is given up
            and self._liveness.is_alive(node_id)
            and progress.match_index >= replica.raft.commit_index
        )

    def _transfer(self, replica: Replica, node_id: int) -> None:
        try:
            replica.raft.transfer_leadership(NodeId(node_id))
        except NotLeader:
            return
        self._multi.touch(replica)

    def hand_over_all(self) -> None:
        """Give every group led here to the living, whole replica that has most of it. Called again, it goes on with the
        groups that are led here still, and offers them to replicas that have not declined yet: one whose disk hangs
        holds everything and takes nothing over.
        """
        for replica in self._multi.replicas.values():
            if not replica.raft.is_leader or replica.stopped is not None or replica.raft.transferring_to is not None:
                continue
            matches = {}
            for voter in replica.voters:
                progress = replica.raft.progress(NodeId(voter)) if voter != replica.node_id else None
                if progress is not None and progress.counting and self._liveness.is_alive(voter):
                    matches[voter] = progress.match_index
            if not matches:
                continue
            offered = self._offered.setdefault(replica.group_id, set())
            if offered >= matches.keys():
                offered.clear()
            best = max((voter for voter in matches if voter not in offered), key=matches.__getitem__)
            offered.add(best)
            self._transfer(replica, best)

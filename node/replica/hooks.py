"""What a replica tells the node that it is part of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.interface import WriteBatch
from quorumlog.raft import NodeId

if TYPE_CHECKING:
    from quorumlog.node.replica.replica import Replica


class ReplicaHooks:
    """Hears of everything and does nothing; a node overrides what it needs."""

    def on_applied(self, replica: Replica, header: EntryHeader, value: object) -> None:
        """An entry was applied; its proposer will be answered after this."""

    def on_installed(self, replica: Replica) -> None:
        """The replica's state is that of a snapshot now, which is written."""

    def on_role(self, replica: Replica) -> None:
        """The replica begins or ends to lead; `leads` tells which."""

    def on_repaired(self, replica: Replica, batch: WriteBatch) -> None:
        """The replica leaves REPAIR with this batch, and counts once that is durable."""

    def on_snapshot_wanted(self, replica: Replica, peer: NodeId) -> None:
        """This leader can help a peer with a snapshot alone."""

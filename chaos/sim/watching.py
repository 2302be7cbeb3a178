"""Whoever watches a world, and the broker that lets itself be watched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quorumlog.chaos.sim.shadow import Step
from quorumlog.node.broker.broker import Broker
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.interface import WriteBatch
from quorumlog.node.storage.opened import Opened
from quorumlog.raft import LogIndex, Message

if TYPE_CHECKING:
    from quorumlog.chaos.sim.node import SimNode


class Watcher:
    """Hears of everything that the nodes of a world do. All of it is optional."""

    def on_applied(self, node_id: int, replica: Replica, header: EntryHeader, value: object) -> None:
        """An entry was applied on a node."""

    def on_role(self, node_id: int, replica: Replica) -> None:
        """A replica began or ended to lead."""

    def on_installed(self, node_id: int, replica: Replica) -> None:
        """A replica's state is that of a snapshot now."""

    def on_repaired(self, node_id: int, replica: Replica) -> None:
        """A replica leaves REPAIR with the batch that is being made."""

    def on_said(self, node: SimNode, group_id: int, message: Message) -> None:
        """A node lets a message of a group go."""

    def on_write(self, node: SimNode, steps: Sequence[Step]) -> None:
        """A batch is being written to a node's database; its shadow does not show it yet."""

    def on_opened(self, node: SimNode, opened: Opened) -> None:
        """A data folder was opened, by a process that is a member or that waits."""

    def on_started(self, node: SimNode) -> None:
        """A process has opened its data folder and begun."""

    def on_step(self, node: SimNode) -> None:
        """A node has finished a turn."""


class WatchedBroker(Broker):
    """A broker that tells the watchers of its world what it does."""

    def __init__(self, node: SimNode, **arguments: Any) -> None:
        self._node = node
        self._watchers = node.world.watchers
        super().__init__(**arguments)
        say = self.multi._send

        watchers = self._watchers

        def said(group_id: int, message: Message) -> None:
            for watcher in watchers:
                watcher.on_said(node, group_id, message)
            say(group_id, message)

        # At this very moment a message leaves the replica: what it promises must be on the disk by now.
        self.multi._send = said

        note = self.scrubbing._note

        def noted(replica: Replica, damaged: Sequence[LogIndex]) -> None:
            before = self.scrubbing.found
            note(replica, damaged)
            node.world.count("damage_scrubbed", self.scrubbing.found - before)

        self.scrubbing._note = noted  # type: ignore[method-assign]  # as above, to hear of it

    def on_applied(self, replica: Replica, header: EntryHeader, value: object) -> None:
        """See Watcher."""
        for watcher in self._watchers:
            watcher.on_applied(self.node_id, replica, header, value)
        super().on_applied(replica, header, value)

    def on_installed(self, replica: Replica) -> None:
        """See Watcher."""
        for watcher in self._watchers:
            watcher.on_installed(self.node_id, replica)
        super().on_installed(replica)

    def on_repaired(self, replica: Replica, batch: WriteBatch) -> None:
        """See Watcher."""
        for watcher in self._watchers:
            watcher.on_repaired(self.node_id, replica)
        super().on_repaired(replica, batch)

    def on_role(self, replica: Replica) -> None:
        """See Watcher."""
        for watcher in self._watchers:
            watcher.on_role(self.node_id, replica)
        super().on_role(replica)

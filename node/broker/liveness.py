"""Which peers are alive, by their sessions; and what that means for the groups shared with them.

A session begins with each start of a peer's process. A new one ends stickiness, hibernation and everything the peer had
answered before; a peer that falls silent, or whose streams break, wakes the groups that slept on its word. Groups are
told apart from nodes here only: the cores below know nothing of streams.
"""

from __future__ import annotations

from typing import Final

from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.raft import NodeId

SILENT_SECONDS: Final = 1.5
"""A peer that has not been heard for this long is taken for dead; it says something every tick."""

GONE_SECONDS: Final = 10.0
"""A peer that has been silent for this long is more than restarted: nothing new is given to it. What it is given it
keeps, so a shorter silence must not decide."""


class Peer:
    """What is known of one other node."""

    __slots__ = ("alive", "heard_at", "session_id")

    def __init__(self) -> None:
        self.session_id = 0
        self.heard_at = 0.0
        self.alive = False


class Liveness:
    """The peers of one node.

    Args:
        now: seconds; a peer that is never heard of has been silent since.
    """

    def __init__(self, multi: MultiRaft, now: float) -> None:
        self._multi = multi
        self._began = now
        self.peers: dict[int, Peer] = {}

    def is_alive(self, node_id: int) -> bool:
        """Whether a peer was heard of lately in its present session."""
        peer = self.peers.get(node_id)
        return peer is not None and peer.alive

    def is_gone(self, node_id: int, now: float) -> bool:
        """Whether a peer has been silent for longer than a restart takes."""
        peer = self.peers.get(node_id)
        return not self.is_alive(node_id) and now - (peer.heard_at if peer else self._began) > GONE_SECONDS

    def on_connected(self, node_id: int, session_id: int, now: float) -> None:
        """A peer opened a stream for its process `session_id`; words of any other process are old from here on."""
        peer = self.peers.setdefault(node_id, Peer())
        if session_id != peer.session_id:
            peer.session_id = session_id
            self._reset_groups(node_id)
        peer.heard_at = now
        peer.alive = True

    def on_heard(self, node_id: int, session_id: int, now: float) -> bool:
        """Something came from a peer. False: from a process that is not there any more, so it must be dropped."""
        peer = self.peers.get(node_id)
        if peer is None or session_id != peer.session_id:
            return False
        peer.heard_at = now
        peer.alive = True
        return True

    def on_disconnected(self, node_id: int) -> None:
        """A stream from or to a peer broke."""
        peer = self.peers.get(node_id)
        if peer is not None and peer.alive:
            peer.alive = False
            self._report_unreachable(node_id)

    def tick(self, now: float) -> None:
        """Notice who has fallen silent."""
        for node_id, peer in self.peers.items():
            if peer.alive and now - peer.heard_at > SILENT_SECONDS:
                peer.alive = False
                self._report_unreachable(node_id)

    def on_dropped(self, node_id: int) -> None:
        """Packets for a peer had to be dropped: what was sent optimistically may be missing there.

        Groups that the peer leads are left alone: that it reads slowly is no reason to vote it out.
        """
        self._report_unreachable(node_id, led_only=True)

    def _reset_groups(self, node_id: int) -> None:
        for replica in self._multi.replicas.values():
            if node_id in replica.members and replica.stopped is None:
                replica.raft.reset_peer(NodeId(node_id))
                self._multi.touch(replica)

    def _report_unreachable(self, node_id: int, *, led_only: bool = False) -> None:
        for replica in self._multi.replicas.values():
            if node_id in replica.members and replica.stopped is None and (replica.raft.is_leader or not led_only):
                replica.raft.report_unreachable(NodeId(node_id))
                self._multi.touch(replica)

"""Carries the coordination plane of a node: its ticks, its messages, and what this node announces on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from quorumlog.node.broker.broker import Broker
from quorumlog.node.clock import Clock
from quorumlog.node.coordination.plane import CoordinationPlane
from quorumlog.node.coordination.view import Announcement
from quorumlog.node.timers import Timers
from quorumlog.raft import NodeId, Term

ANNOUNCE_SECONDS: Final = 0.25


class PlaneCarrier:
    """Runs one plane beside one broker.

    Args:
        plane: whom the messages are for.
        incarnation, session_id: of this node and this process, for its announcements.
        disk_free_bytes: the latest figure.
    """

    def __init__(
        self,
        plane: CoordinationPlane,
        *,
        broker: Broker,
        clock: Clock,
        timers: Timers,
        incarnation: bytes,
        session_id: int,
        disk_free_bytes: Callable[[], int],
    ) -> None:
        self._plane = plane
        self._broker = broker
        self._clock = clock
        self._timers = timers
        self._incarnation = incarnation
        self._session_id = session_id
        self._disk_free_bytes = disk_free_bytes

    def start(self) -> None:
        """Tick and announce from now on."""
        self._tick()
        self._announce()

    def change(self, plane: CoordinationPlane) -> None:
        """Carry another plane from now on."""
        self._plane = plane

    def _tick(self) -> None:
        now = self._clock.now()
        self._plane.tick(now)
        self._timers.at(now + self._plane.settings.tick_seconds, self._tick)

    def _announce(self) -> None:
        leaders = {
            replica.group_id: Term(replica.raft.term)
            for replica in self._broker.multi.replicas.values()
            if replica.leads
        }
        self._plane.announce(
            Announcement(
                node_id=NodeId(self._broker.node_id),
                incarnation=self._incarnation,
                session_id=self._session_id,
                leaders=leaders,
                disk_free_bytes=self._disk_free_bytes(),
                load=float(len(leaders)),
            )
        )
        self._timers.at(self._clock.now() + ANNOUNCE_SECONDS, self._announce)

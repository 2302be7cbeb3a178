"""An in-memory network of coordination planes under manual time, for tests."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from quorumlog.node.coordination.plane import CoordinationPlane
from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.view import Announcement
from quorumlog.raft.types import NodeId, Term

TICK_SECONDS = 0.05


class Network:
    """Planes of one cluster, joined by links that deliver in order and that tests may cut, record and tamper with."""

    def __init__(self, members: int, seed: int = 1, settings: PlaneSettings | None = None) -> None:
        self.seed = seed
        self.settings = settings
        self.member_ids = [NodeId(number) for number in range(1, members + 1)]
        self.now = 1000.0
        self.planes: dict[NodeId, CoordinationPlane] = {}
        self.sessions: dict[NodeId, int] = {}
        self.queue: deque[tuple[NodeId, NodeId, int, bytes]] = deque()  # sender, receiver, sender's session, payload
        self.history: list[tuple[NodeId, NodeId, int, bytes]] = []
        self.drop: Callable[[NodeId, NodeId], bool] = lambda sender, receiver: False
        self._session_count = 100
        for node_id in self.member_ids:
            self.start(node_id)

    def start(self, node_id: int) -> CoordinationPlane:
        """Start the process of a node, empty and under a new session, and connect it to all that run."""
        node_id = NodeId(node_id)
        self._session_count += 1
        session_id = self._session_count
        rng = random.Random(f"{self.seed}/{session_id}")

        def send(peer: NodeId, payload: bytes) -> None:
            if peer in self.planes and not self.drop(node_id, peer):
                self.queue.append((node_id, peer, session_id, payload))
                self.history.append((node_id, peer, session_id, payload))

        plane = CoordinationPlane(node_id, self.member_ids, session_id, send, rng, self.settings)
        for peer_id, peer in self.planes.items():
            plane.on_peer_up(peer_id, self.sessions[peer_id])
            peer.on_peer_up(node_id, session_id)
        self.planes[node_id] = plane
        self.sessions[node_id] = session_id
        return plane

    def kill(self, node_id: int) -> None:
        """End the process of a node; what it had sent still arrives."""
        node_id = NodeId(node_id)
        del self.planes[node_id], self.sessions[node_id]
        for plane in self.planes.values():
            plane.on_peer_down(node_id)

    def step(self) -> None:
        """Let one tick pass and deliver all that it causes."""
        self.now += TICK_SECONDS
        for plane in list(self.planes.values()):
            plane.tick(self.now)
            self.deliver()

    def deliver(self) -> None:
        """Deliver what is under way, and what that causes."""
        while self.queue:
            sender, receiver, session_id, payload = self.queue.popleft()
            if receiver in self.planes:
                self.planes[receiver].on_message(sender, session_id, payload, self.now)

    def run_until(self, holds: Callable[[], bool], seconds: float = 20.0) -> float:
        """Step until `holds`; return how many seconds passed. Fails when it does not within `seconds`."""
        started = self.now
        while not holds():
            self.step()
            assert self.now - started < seconds, f"seed {self.seed}: not within {seconds} s"
        return self.now - started

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        until = self.now + seconds
        while self.now < until:
            self.step()

    def leader(self) -> NodeId | None:
        """The leader on which all running planes agree, or None."""
        leaders = {plane.plane_leader for plane in self.planes.values()}
        leader = leaders.pop()
        return leader if not leaders and leader in self.planes else None

    def announce(self, node_id: int, leaders: dict[int, int] | None = None, ttl_seconds: float = 10.0) -> None:
        """Let a node say that it leads `leaders` (group id to term)."""
        node_id = NodeId(node_id)
        self.planes[node_id].announce(
            Announcement(
                node_id=node_id,
                incarnation=b"incarnation-%d" % node_id,
                session_id=self.sessions[node_id],
                leaders={group_id: Term(term) for group_id, term in (leaders or {}).items()},
                disk_free_bytes=node_id * 1_000,
                load=node_id / 10,
                ttl_seconds=ttl_seconds,
            )
        )

    def everyone_sees(self, node_id: int) -> bool:
        """Whether every running plane has heard of `node_id`."""
        return all(plane.node_is_up(NodeId(node_id), self.now) for plane in self.planes.values())

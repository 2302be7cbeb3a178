"""`CoordinationPlane`: everything of one node's coordination plane, driven from outside and without IO of its own."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Mapping

from quorumlog.node.coordination.commands import (
    MAX_LOCK_NAME_BYTES,
    AnnouncementPart,
    Malformed,
    decode_command,
    encode_announcement,
    encode_claim,
)
from quorumlog.node.coordination.directory import Directory
from quorumlog.node.coordination.engine import ENGINE_TIME, CoordinationEngine, ReplicatedState
from quorumlog.node.coordination.locks import LockTable
from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.transport import PeerTransport, Send, TransportCounters
from quorumlog.node.coordination.view import Announcement, LeaderHint, NodeFigures
from quorumlog.node.coordination.wire import MAX_TERM
from quorumlog.raft.types import NodeId

_logger = logging.getLogger(__name__)

_MAX_VOTERS = 5


def choose_voters(member_ids: Collection[NodeId]) -> list[NodeId]:
    """Return the voters of the plane: the lowest 1, 3 or 5 node ids, the most that there are members for."""
    ordered = sorted(set(member_ids))
    count = min(_MAX_VOTERS, len(ordered) - (len(ordered) + 1) % 2)
    return ordered[:count]


class OutOfBounds(Exception):
    """The engine's log grows and nothing of it is committed, or its term is absurd: only nonsense brings that about."""


class CoordinationPlane:
    """The coordination plane of one node: a `CoordinationView` that is fed by messages, ticks and announcements.

    All methods belong to one thread, and none of them waits, raises on what a peer sent, or opens a socket or file.
    `now` is monotonic seconds of one clock throughout. The members are fixed for the life of the object: when they
    change, stop it and make another one, for what it knows is said again within seconds.

    The shell calls `tick` every `settings.tick_seconds`, `on_message` for each payload in the order of arrival, and
    `on_peer_up` whenever a connection *to* the peer stands or stands again, also when only its session changed.

    Args:
        node_id: this node.
        member_ids: all nodes of the cluster, this one included.
        session_id: of this process, 64 bits, drawn at its start.
        send: hands a payload to a peer's control stream.
        rng: draws election timeouts.
        settings: times and bounds.
        generation: how many planes this process has made before: what this one says is newer than all they said.
    """

    def __init__(
        self,
        node_id: NodeId,
        member_ids: Collection[NodeId],
        session_id: int,
        send: Send,
        rng: random.Random,
        settings: PlaneSettings | None = None,
        generation: int = 0,
    ) -> None:
        assert node_id in member_ids, f"node {node_id} is not among the members {sorted(member_ids)}"
        self.node_id = node_id
        self.settings = settings or PlaneSettings()
        self.member_ids = frozenset(member_ids)
        self.voter_ids = choose_voters(member_ids)
        self._session_id = session_id
        self._rng = rng
        followers = sorted(set(member_ids) - set(self.voter_ids))
        self._transport = PeerTransport(node_id, session_id, self.voter_ids, followers, send, generation)
        self._directory = Directory(member_ids)
        self._locks = LockTable(node_id, session_id)
        self._state = ReplicatedState(self._apply, self._locks.encode, self._restore_locks)
        self._engine: CoordinationEngine | None = None
        self._start_engine_at = float("-inf")
        self._stopped = False
        self._announcement: Announcement | None = None
        self._sequence = 0
        self._announce_at = float("-inf")
        self._announced_to: tuple[NodeId, int] | None = None
        self.failures = 0
        """How many engines failed and were replaced."""
        self.commands_ignored = 0
        """How many committed commands said nothing that this version understands."""

    # Driven by the shell.

    def on_message(self, peer: NodeId, session_id: int, payload: bytes, now: float) -> None:
        """Take a payload that arrived from `peer`, whose stream was opened by its process `session_id`."""
        self._guarded(now, lambda engine: self._deliver(engine, peer, session_id, payload))

    def on_peer_up(self, peer: NodeId, session_id: int) -> None:
        """A connection to `peer` stands, and the process at its end is `session_id`."""
        if not self._stopped:
            self._transport.peer_up(peer, session_id)

    def on_peer_down(self, peer: NodeId) -> None:
        """The connection to `peer` is lost."""
        if not self._stopped:
            self._transport.peer_down(peer)

    def tick(self, now: float) -> None:
        """Let time pass: elections, heartbeats, announcements that are due, expiry."""
        self._directory.expire(now)
        self._guarded(now, self._tick)

    def announce(self, announcement: Announcement) -> None:
        """Set what this node says about itself; it leaves in a tick, and again every `announce_every_seconds`.

        Call it whenever something in it changed; several calls within `announce_gap_seconds` become one announcement.
        """
        assert announcement.node_id == self.node_id, "a node speaks for itself"
        assert announcement.session_id == self._session_id, "a process speaks for itself"
        if announcement != self._announcement:
            self._announcement = announcement
            self._announced_to = None

    def stop(self) -> None:
        """Stop for good: nothing is sent or taken any more, and every question is answered as if nothing were known."""
        self._stopped = True
        self._engine = None
        self._transport.detach()
        self._announcement = None
        self._directory = Directory(())
        self._locks.clear()

    # The view.

    def node_is_up(self, node_id: NodeId, now: float) -> bool:
        """Whether an announcement of the node arrived here and has not expired at `now`."""
        return self._directory.node_is_up(node_id, now)

    def leader_hint(self, group_id: int) -> LeaderHint | None:
        """Return who is said to lead the group, of several claims the one with the highest term, or None."""
        return self._directory.leader_hint(group_id)

    def figures(self) -> Mapping[NodeId, NodeFigures]:
        """Return what each node that is up last said about itself; read only."""
        return self._directory.figures()

    def try_lock(self, name: str, ttl_seconds: float, now: float) -> bool:
        """Ask for the lock `name` or keep it; True while this process holds it. See `CoordinationView.try_lock`."""
        assert 0 < len(name.encode()) <= MAX_LOCK_NAME_BYTES, f"lock name {name!r} is empty or too long"
        if self._engine is None or self._engine.leader_and_term is None:
            return self._locks.held(name, now)
        claim = self._locks.next_claim(name, ttl_seconds, now, self.settings.claim_retry_seconds)
        if claim is not None:
            self._guarded(now, lambda engine: engine.propose(encode_claim(claim)))
        return self._locks.held(name, now)

    def lock_owner(self, name: str, now: float) -> NodeId | None:
        """Return who holds the lock `name` at `now`, or None."""
        return self._locks.owner(name, now)

    # For telemetry.

    @property
    def counters(self) -> TransportCounters:
        """The messages sent, taken and refused."""
        return self._transport.counters

    @property
    def plane_leader(self) -> NodeId | None:
        """The leader of the plane itself, or None."""
        leader = self._engine.leader_and_term if self._engine is not None else None
        return leader[0] if leader is not None else None

    @property
    def plane_term(self) -> int:
        """The Raft term of the plane itself, which no group's term has to do with; 0 before the first election."""
        return self._engine.term if self._engine is not None else 0

    @property
    def log_entries(self) -> int:
        """How many entries the engine's log holds."""
        return self._engine.log_entries if self._engine is not None else 0

    # Inside.

    def _guarded(self, now: float, step: Callable[[CoordinationEngine], None]) -> None:
        """Run `step` on the engine. An engine that fails, for whatever reason, is replaced by an empty one.

        Its bounds are checked here too: what it holds can be rebuilt, so giving it up is always right.
        """
        if self._stopped or (self._engine is None and now < self._start_engine_at):
            return
        ENGINE_TIME.now = now
        try:
            if self._engine is None:
                voter = self.node_id if self.node_id in self.voter_ids else None
                self._engine = CoordinationEngine(voter, self._transport, self._state, self._rng, self.settings)
            engine = self._engine
            step(engine)
            if engine.log_entries > self.settings.max_log_entries:
                raise OutOfBounds(f"{engine.log_entries} entries that cannot be applied")
            if engine.term > MAX_TERM:
                raise OutOfBounds(f"term {engine.term}")
        except Exception as error:  # noqa: BLE001 - PySyncObj may fail in any way on nonsense from a peer
            self.failures += 1
            _logger.warning("coordination plane of node %d starts anew: %r", self.node_id, error)
            self._discard_engine(restart_at=now + self.settings.restart_seconds)

    def _discard_engine(self, restart_at: float) -> None:
        self._engine = None
        self._start_engine_at = restart_at
        self._transport.detach()
        self._locks.clear()  # the log that granted them is gone; announcements simply expire

    def _deliver(self, engine: CoordinationEngine, peer: NodeId, session_id: int, payload: bytes) -> None:
        if self._transport.deliver(peer, session_id, payload):
            engine.doTick(0.0)

    def _tick(self, engine: CoordinationEngine) -> None:
        engine.doTick(0.0)
        if engine.is_forsaken:
            self._discard_engine(restart_at=ENGINE_TIME.now)
            return
        leader = engine.leader_and_term
        if self._announcement is None or leader is None:
            return
        now = ENGINE_TIME.now
        changed = leader != self._announced_to  # something is new, or a new leader may not have got the last one
        if now < self._announce_at - (self._announce_slack_seconds if changed else 0.0):
            return
        self._sequence += 1
        for command in encode_announcement(self._announcement, self._sequence):
            engine.propose(command)
        self._announced_to = leader
        self._announce_at = now + self.settings.announce_every_seconds

    @property
    def _announce_slack_seconds(self) -> float:
        return self.settings.announce_every_seconds - self.settings.announce_gap_seconds

    def _apply(self, command: bytes) -> None:
        """Apply one committed command; what is not understood changes nothing, on every node alike."""
        now = ENGINE_TIME.now
        try:
            said = decode_command(command)
        except Malformed:
            self.commands_ignored += 1
            return
        if isinstance(said, AnnouncementPart):
            self._directory.apply(said, now)
        else:
            self._locks.apply(said, now)

    def _restore_locks(self, table: bytes) -> None:
        self._locks.restore(table, ENGINE_TIME.now)

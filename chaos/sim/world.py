"""A whole cluster in one thread under virtual time: the shipped brokers over memory storage and a heap for a network.

Everything random comes from one seed, so a run can be replayed event by event. `trace` is a running hash of what
happened.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Lane, Packet
from quorumlog.node.clock import ManualClock
from quorumlog.node.config import NodeConfig
from quorumlog.node.coordination.view import CoordinationView, NoCoordination
from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.metadata import decisions
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.group_read import ReadPlan, read_records
from quorumlog.node.storage.identity import Founder, Founding, save_identity
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.votes import VOTES_NAME
from quorumlog.node.storage.watermark import WatermarkPacer
from quorumlog.node.timers import Timers
from quorumlog.proto import internal_pb2
from quorumlog.raft import Entry, NodeId


@dataclass(slots=True)
class Faults:
    """Shares of packets lost and doubled, of clients' requests and answers lost, and times in seconds.

    `late` is the share of clients' requests that arrive only after their client has given them up.
    """

    loss: float = 0.0
    duplication: float = 0.0
    client_loss: float = 0.0
    late: float = 0.0
    delay_min: float = 0.0002
    delay_max: float = 0.002
    sync_min: float = 0.0002
    sync_max: float = 0.003


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the nodes of a world live; short times pack more elections into a second."""

    tick_seconds: float = 0.1
    retention_check_seconds: float = 5.0
    produce_timeout_seconds: float = 30.0


class Watcher:
    """Hears of everything that a world's brokers apply and of every role that their replicas take."""

    def on_applied(self, node_id: int, replica: Replica, header: EntryHeader, value: object) -> None:
        """An entry was applied on a node."""

    def on_role(self, node_id: int, replica: Replica) -> None:
        """A replica began or ended to lead."""


class WatchedBroker(Broker):
    """A broker that tells the watchers of its world what it does."""

    def __init__(self, watchers: Sequence[Watcher], **arguments: Any) -> None:
        self._watchers = watchers
        super().__init__(**arguments)

    def on_applied(self, replica: Replica, header: EntryHeader, value: object) -> None:
        for watcher in self._watchers:
            watcher.on_applied(self.node_id, replica, header, value)
        super().on_applied(replica, header, value)

    def on_role(self, replica: Replica) -> None:
        for watcher in self._watchers:
            watcher.on_role(self.node_id, replica)
        super().on_role(replica)


class Losable(Protocol):
    """Something that ends with the process it goes to."""

    sent_at: float

    def lose(self) -> None:
        """The process is gone."""


class SimNode:
    """The disk of one node, and the process on it while it runs."""

    def __init__(self, world: World, node_id: int) -> None:
        self.world = world
        self.node_id = node_id
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, world.rng.randbytes)
        self.address = f"node{node_id}:7070"
        self.incarnation = b""
        self.broker: Broker | None = None
        self.opened: Opened | None = None
        self.session_id = 0
        self.timers = Timers()
        self.sync_held = False
        self.calls: list[Losable] = []
        self.streams: list[Losable] = []
        self._held: list[Callable[[], None]] = []
        self._wake_at: float | None = None

    @property
    def running(self) -> bool:
        return self.broker is not None

    def prepare(self) -> None:
        """Make the data folder, as a first start does, and leave it waiting."""
        opened = open_node(self.files, self.database, NodeId(self.node_id), self.world.rng.randbytes)
        self.incarnation = opened.identity.incarnation
        opened.close()

    def descriptor(self) -> internal_pb2.NodeDescriptor:
        return internal_pb2.NodeDescriptor(
            node_id=self.node_id,
            incarnation=self.incarnation,
            client_address=self.address,
            peer_address=f"node{self.node_id}:7170",
            host=f"host{self.node_id}",
        )

    def start(self) -> None:
        world = self.world
        assert self.broker is None
        self.opened = open_node(self.files, self.database, NodeId(self.node_id), world.rng.randbytes)
        founding = world.founding
        record = Founding(
            founding.cluster_id,
            tuple(Founder(NodeId(node.node_id), node.incarnation) for node in founding.nodes),
            founding.SerializeToString(deterministic=True),
        )
        identity = self.opened.identity.founded(record)
        save_identity(self.files, identity)
        self.session_id = world.rng.getrandbits(60) + 1
        self.timers = Timers()
        self._held = []
        self._wake_at = None
        pacer = WatermarkPacer(self.opened.watermark.mark.sequence)
        self.pacer = pacer
        pace = world.pace
        self.broker = WatchedBroker(
            world.watchers,
            config=NodeConfig(
                self.node_id,
                Path("/none"),
                self.address,
                f"node{self.node_id}:7170",
                tick_seconds=pace.tick_seconds,
                retention_check_seconds=pace.retention_check_seconds,
                produce_timeout_seconds=pace.produce_timeout_seconds,
            ),
            opened=self.opened,
            founding=founding,
            descriptor=self.descriptor(),
            clock=world.clock,
            timers=self.timers,
            rng=random.Random(world.rng.getrandbits(64)),
            coordination=world.coordination(self.node_id),
            syncer=self,
            cold_reader=_ColdReads(self),
            send=self._send,
            reclaim=lambda family, start, end: None,
            on_synced=pacer.on_synced,
            on_nodes_changed=lambda: None,
            on_coordination=lambda sender, session, payload: None,
            group_settings=world.group_settings,
        )
        self.broker.start()
        for other in world.nodes.values():
            if other is not self and other.broker is not None:
                other.broker.on_connected(self.node_id, self.session_id)
                self.broker.on_connected(other.node_id, other.session_id)
                other.pump()
        self.pump()

    def crash(self) -> None:
        """Lose the process, and everything that was not synced."""
        assert self.database.storage is not None
        self.broker = None
        self.opened = None
        keep = self.world.rng.randint(0, self.database.storage.unsynced_batches())
        self.files.crash(self.world.rng)
        self.database.crash(keep)
        self.world.note(f"crash {self.node_id} keep {keep}")
        self._say_gone()

    def stop(self) -> None:
        """End the process as a clean stop does: everything is synced. Leadership was handed over before, or is lost."""
        assert self.broker is not None
        assert self.opened is not None
        self.broker.fold_all()
        self.broker.pump()
        self.broker = None
        self.opened.close()
        self.opened = None
        self.world.note(f"stop {self.node_id}")
        self._say_gone()

    def _say_gone(self) -> None:
        for calls in (self.calls, self.streams):
            lost, calls[:] = list(calls), []
            for call in lost:
                call.lose()
        for other in self.world.nodes.values():
            if other.broker is not None:
                other.broker.on_disconnected(self.node_id)
                other.pump()

    # Syncer

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        storage, session_id = self.database.storage, self.session_id
        assert storage is not None
        token = storage.begin_sync()
        votes_token = self.files.begin_sync(VOTES_NAME) if votes else None

        def finish() -> None:
            if self.session_id != session_id or self.broker is None:
                return
            if self.sync_held:
                self._held.append(finish)
                return
            storage.finish_sync(token)
            if votes_token is not None:
                self.files.finish_sync(votes_token)
            done()
            self.pump()

        faults = self.world.faults
        self.world.after(self.world.rng.uniform(faults.sync_min, faults.sync_max), finish)

    def hold_syncs(self) -> None:
        """Let no sync finish until `release_syncs`."""
        self.sync_held = True

    def release_syncs(self) -> None:
        self.sync_held = False
        held, self._held = self._held, []
        for finish in held:
            finish()

    def read(self, plan: ReadPlan) -> Sequence[Entry] | StorageCorrupt:
        assert self.database.storage is not None
        try:
            return read_records(self.database.storage, plan)
        except StorageCorrupt as error:
            return error

    def pump(self) -> None:
        """Let the broker work, and make sure that its next deadline wakes it."""
        broker = self.broker
        if broker is None:
            return
        again = broker.pump()
        assert self.opened is not None
        sequence = self.pacer.take(self.world.clock.now())
        if sequence is not None:
            self.opened.watermark.publish(sequence)
            self.pacer.on_published()
        due = self.timers.next_due()
        now = self.world.clock.now()
        wake_at = now + 0.0005 if again else due
        if wake_at is not None and (self._wake_at is None or wake_at < self._wake_at or self._wake_at <= now):
            self._wake_at = wake_at
            session_id = self.session_id
            self.world.at(max(wake_at, now), lambda: self._wake(session_id))

    def _wake(self, session_id: int) -> None:
        if self.session_id != session_id or self.broker is None:
            return
        self._wake_at = None
        self.timers.run(self.world.clock.now())
        self.pump()

    def _send(self, peer: int, lane: Lane, packet: Packet) -> None:
        self.world.send(self, peer, packet)


class _ColdReads:
    def __init__(self, node: SimNode) -> None:
        self._node = node

    def submit(self, plan: ReadPlan, done: Callable[[Sequence[Entry] | StorageCorrupt], None]) -> None:
        node, session_id = self._node, self._node.session_id

        def finish() -> None:
            if node.session_id == session_id and node.broker is not None:
                done(node.read(plan))
                node.pump()

        node.world.after(0.0005, finish)


class World:
    """Nodes, network and time. `now` starts at 1000 s."""

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        group_settings: GroupSettings | None = None,
        pace: Pace = Pace(),
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = ManualClock(1000.0)
        self.faults = Faults()
        self.pace = pace
        self.watchers: list[Watcher] = []
        self.cut: set[tuple[int, int]] = set()
        self.group_settings = group_settings
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._hash = hashlib.sha256()
        self.events_run = 0
        self.check_every = 1 << 60
        self.nodes = {node_id: SimNode(self, node_id) for node_id in range(1, nodes + 1)}
        for node in self.nodes.values():
            node.prepare()
        founding = decisions.founding(
            [node.descriptor() for node in self.nodes.values()],
            cluster_id=b"",
            rng=self.rng,
            now_ms=self.clock.wall_ms(),
        )
        assert isinstance(founding, internal_pb2.Founding)
        self.founding = founding

    def coordination(self, node_id: int) -> CoordinationView:
        """What the broker of this node is given; a test may put something else in its place."""
        return NoCoordination()

    # Time

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.clock.now() + seconds, action)

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        if not self._events:
            return False
        when, _, action = heapq.heappop(self._events)
        self.clock.advance(max(0.0, when - self.clock.now()))
        self.events_run += 1
        action()
        if self.events_run % self.check_every == 0:
            self.check()
        return True

    def check(self) -> None:
        """Called after every `check_every` events; a test puts its invariants here."""

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        until = self.clock.now() + seconds
        while self._events and self._events[0][0] <= until:
            self.step()
        self.clock.advance(until - self.clock.now())

    def run_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Run until `condition` holds; fail after `seconds` of virtual time."""
        until = self.clock.now() + seconds
        while not condition():
            due = self._events[0][0] if self._events else float("inf")
            assert due <= until, f"seed {self.seed}: {what} within {seconds} s"
            self.step()

    def note(self, text: str) -> None:
        """Add to the trace."""
        self._hash.update(f"{self.clock.now():.6f} {text}\n".encode())

    @property
    def trace(self) -> str:
        return self._hash.hexdigest()

    # Network

    def send(self, sender: SimNode, peer: int, packet: Packet) -> None:
        target = self.nodes[peer]
        sent_by, sent_to = sender.session_id, target.session_id
        copies = 1 + (self.rng.random() < self.faults.duplication)
        for _ in range(copies):
            if self.rng.random() < self.faults.loss:
                continue

            def deliver() -> None:
                # A stream does not outlive either of its processes.
                if target.broker is None or target.session_id != sent_to or sender.session_id != sent_by:
                    return
                if (sender.node_id, peer) in self.cut:
                    return
                self.note(f"{sender.node_id}>{peer} {_gist(packet)}")
                target.broker.on_packet(sender.node_id, sent_by, packet)
                target.pump()

            self.after(self.rng.uniform(self.faults.delay_min, self.faults.delay_max), deliver)

    # Conveniences

    def start_all(self) -> None:
        for node in self.nodes.values():
            if not node.running:
                node.start()

    def brokers(self) -> dict[int, Broker]:
        return {node_id: node.broker for node_id, node in self.nodes.items() if node.broker is not None}

    # The whole

    def found(self, seconds: float = 30.0) -> None:
        """Start every node and wait until the founding record is applied everywhere."""
        self.start_all()
        self.run_until(
            lambda: all(broker.catalogue.founding is not None for broker in self.brokers().values()),
            seconds,
            "the cluster is not founded",
        )

    def heal(self) -> None:
        """End every fault and start every node that is down."""
        self.faults = Faults()
        self.cut.clear()
        for node in self.nodes.values():
            node.release_syncs()
        self.start_all()


def _gist(packet: Packet) -> str:
    """Enough of a packet to tell two runs apart."""
    raft = [(group_id, message.type.value, message.term, message.index) for group_id, message in packet.raft]
    return f"{raft} {len(packet.forwarded)} {len(packet.forwarded_results)}"

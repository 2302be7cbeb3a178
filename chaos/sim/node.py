"""One simulated machine: its disk, its clock, and the process on it while one runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

from quorumlog.chaos.sim.clocks import NodeClock
from quorumlog.chaos.sim.shadow import Shadow, Step
from quorumlog.chaos.sim.storage import SimStorage
from quorumlog.chaos.sim.watching import WatchedBroker
from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Lane, Packet
from quorumlog.node.config import NodeConfig
from quorumlog.node.errors import StorageFailed
from quorumlog.node.greeting import Greeting
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.identity import Founder, Founding, Identity, IdentityState, save_identity
from quorumlog.node.storage.interface import Storage
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.votes import VOTES_NAME
from quorumlog.node.storage.watermark import WatermarkPacer
from quorumlog.node.timers import Timers
from quorumlog.proto import internal_pb2
from quorumlog.raft import Configuration, NodeId

if TYPE_CHECKING:
    from quorumlog.chaos.sim.world import World

T = TypeVar("T")

AGAIN_SECONDS: Final = 0.0005
"""Until a broker that has more to do is called again."""

KEEPALIVE_SECONDS: Final = 2.0
"""After this long without a sign of life a client breaks its connection."""

WAKE_SECONDS_MIN: Final = 1e-6
"""Of the world's time; two clocks never agree to the last bit."""


class Losable(Protocol):
    """Something that ends with the process it goes to."""

    sent_at: float

    def lose(self) -> None:
        """The process is gone."""


class SimNode:
    """The disk of one node, and the process on it while it runs.

    `broker` is None while no process runs, or while one runs that belongs to no cluster and waits.
    """

    def __init__(self, world: World, node_id: int) -> None:
        self.world = world
        self.node_id = node_id
        self.clock = NodeClock(world.clock)
        self.address = f"node{node_id}:7070"
        self.incarnation = b""
        self.broker: Broker | None = None
        self.opened: Opened | None = None
        self.session_id = 0
        self.timers = Timers()
        self.sync_held = False
        self.sync_slowness = 1.0
        self.paused = False
        self.restart_seconds: float | None = None
        """Until the supervisor starts the process again, where it is not as long as elsewhere."""
        self.dead = False
        """Never to be started again."""
        self.robbed = False
        """Something that was durable has been taken from the disk since the data folder was opened last."""
        self.configurations: list[Configuration] = []
        """What the replicas of the last process went by when it ended."""
        self.calls: list[Losable] = []
        self.streams: list[Losable] = []
        self.votes_durable: dict[int, tuple[int, int]] = {}
        """Term and vote of each group as the votes file would survive the power."""
        self.heard: dict[int, int] = {}
        """The sessions that have opened a stream to the present process, by node."""
        self._held: list[Callable[[], None]] = []
        self._backlog: list[Callable[[], object]] = []
        self._wake_at: float | None = None
        self.past_shadows: list[Shadow] = []
        """Of the databases that this machine has lost."""
        self._shadow: Shadow | None = None
        self.lose_disk()

    def lose_disk(self) -> None:
        """Begin with an empty disk."""
        assert self.broker is None, "a disk is lost under a process that is gone"
        self.robbed = True
        self.configurations = []
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, self.world.rng.randbytes, self._make_storage)

    def _make_storage(self, database_id: bytes) -> SimStorage:
        storage = SimStorage(database_id, self._on_write)
        if self._shadow is not None:
            self.past_shadows.append(self._shadow)
        self._shadow = storage.shadow
        return storage

    def shadows(self) -> Iterator[Shadow]:
        """What every database of this machine holds or held, the present one first."""
        if self._shadow is not None:
            yield self._shadow
        yield from reversed(self.past_shadows)

    @property
    def storage(self) -> SimStorage:
        """The database, which must be there."""
        storage = self.database.storage
        assert storage is not None, "this node has no database"
        return cast("SimStorage", storage)

    @property
    def running(self) -> bool:
        """Whether a member of the cluster runs here."""
        return self.broker is not None

    def prepare(self) -> None:
        """Make the data folder, as a first start does, and leave it waiting."""
        opened = open_node(self.files, self.database, NodeId(self.node_id), self.world.rng.randbytes)
        self.incarnation = opened.identity.incarnation
        opened.close()

    def descriptor(self) -> internal_pb2.NodeDescriptor:
        """This node as it wants to be known."""
        return internal_pb2.NodeDescriptor(
            node_id=self.node_id,
            incarnation=self.incarnation,
            client_address=self.address,
            peer_address=f"node{self.node_id}:7170",
            host=f"host{self.node_id}",
            admitted_at_index=self.opened.identity.admitted_at_index if self.opened is not None else 0,
        )

    # ------------------------------------------------------------------------------------------------ begin and end

    def start(self) -> None:
        """Open the data folder and run, as a member of the cluster or as a stranger that waits."""
        world = self.world
        assert self.broker is None
        try:
            self.opened = open_node(self.files, self.database, NodeId(self.node_id), world.rng.randbytes)
            for watcher in world.watchers:
                watcher.on_opened(self, self.opened)
            self.robbed = False
            identity = self._identify(self.opened.identity)
        except StorageFailed as error:
            self.exit(str(error))
            return
        self.incarnation = self.opened.identity.incarnation
        self._begin_session()
        world.tell(f"node {self.node_id} starts, {self.opened.state.value}")
        if identity is not None:
            self.join(replace(self.opened, identity=identity))

    def _begin_session(self) -> None:
        self.session_id = self.world.rng.getrandbits(60) + 1
        self.timers = Timers()
        self._held = []
        self._backlog = []
        self._wake_at = None
        self.heard = {}

    def join(self, opened: Opened) -> None:
        """Run as a member of the cluster."""
        self.opened = opened
        self.votes_durable = {group_id: (state.term, state.vote) for group_id, state in opened.votes.rows().items()}
        self.greeting = Greeting(self.descriptor(), self.session_id)
        self.pacer = WatermarkPacer(opened.watermark.mark.sequence)
        try:
            self.broker = self._make_broker(opened)
            self.broker.start()
        except StorageFailed as error:
            self.exit(str(error))
            return
        for watcher in self.world.watchers:
            watcher.on_started(self)
        self.world.connect(self)
        self.pump()

    def _identify(self, identity: Identity) -> Identity | None:
        """Make this node a member, if the founding record or an admission says so; None when it is to wait."""
        founding = self.world.founding
        founders = tuple(Founder(NodeId(node.node_id), node.incarnation) for node in founding.nodes)
        if identity.state is IdentityState.MEMBER:
            return identity
        if Founder(identity.node_id, identity.incarnation) not in founders:
            return None
        record = Founding(founding.cluster_id, founders, founding.SerializeToString(deterministic=True))
        member = identity.founded(record)
        save_identity(self.files, member)
        return member

    def _make_broker(self, opened: Opened) -> Broker:
        world, pace = self.world, self.world.pace
        return WatchedBroker(
            self,
            config=NodeConfig(
                self.node_id,
                Path("/none"),
                self.address,
                f"node{self.node_id}:7170",
                tick_seconds=pace.tick_seconds,
                heartbeat_ticks=pace.heartbeat_ticks,
                retention_check_seconds=pace.retention_check_seconds,
                produce_timeout_seconds=pace.produce_timeout_seconds,
                scrub_bytes_per_second=pace.scrub_bytes_per_second,
                scrub_period_seconds=pace.scrub_period_seconds,
            ),
            opened=opened,
            founding=world.founding,
            descriptor=self.descriptor(),
            clock=self.clock,
            timers=self.timers,
            rng=random.Random(world.rng.getrandbits(64)),
            coordination=world.coordination(self.node_id),
            syncer=self,
            cold_reader=_ColdReads(self),
            send=self._send,
            reclaim=lambda family, start, end: None,
            on_synced=self.pacer.on_synced,
            on_nodes_changed=lambda: None,
            on_coordination=lambda sender, session, payload: None,
            group_settings=world.group_settings,
        )

    def crash(self) -> None:
        """Lose the process, and everything that was not synced."""
        self._end(f"node {self.node_id} loses its power")

    def exit(self, reason: str) -> None:
        """The process ends by itself, as it must after a failure of its disk; the world starts it again."""
        self._end(f"node {self.node_id} exits: {reason}")
        self.world.count("exits")
        self.world.on_exit(self)

    def _end(self, what: str) -> None:
        self._leave()
        self.opened = None
        storage = self.database.storage
        keep = self.world.rng.randint(0, storage.unsynced_batches()) if storage is not None else 0
        self.files.crash(self.world.rng)
        self.database.crash(keep)
        self.paused = False
        self.world.tell(f"{what}; {keep} unsynced batches are left")
        self._say_gone()

    def stop(self) -> None:
        """End the process as a clean stop does: everything is synced. Leadership was handed over before, or is lost."""
        assert self.broker is not None
        assert self.opened is not None
        try:
            self.broker.fold_all()
            self.broker.pump()
        except StorageFailed as error:
            self.exit(str(error))
            return
        self._leave()
        self.opened.close()
        self.opened = None
        self.world.tell(f"node {self.node_id} stops")
        self._say_gone()

    def _leave(self) -> None:
        if self.broker is not None:
            self.configurations = [replica.raft.configuration for replica in self.broker.multi.replicas.values()]
        self.broker = None

    def _say_gone(self) -> None:
        for calls in (self.calls, self.streams):
            lost, calls[:] = list(calls), []
            for call in lost:
                call.lose()
        self.world.disconnect(self)

    # ------------------------------------------------------------------------------------------------ pauses

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: whatever comes for it waits, and clients that get no sign of life go."""
        self.paused = True
        self.world.after(KEEPALIVE_SECONDS, self._lose_clients)

    def _lose_clients(self) -> None:
        if not self.paused:
            return
        before = self.world.clock.now() - KEEPALIVE_SECONDS
        for calls in (self.calls, self.streams):
            for call in [call for call in calls if call.sent_at <= before]:
                call.lose()
        self.world.after(KEEPALIVE_SECONDS / 4, self._lose_clients)

    def resume(self) -> None:
        """Let it go on, with everything that has come meanwhile."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self.enter(action)
        self._wake_at = None
        self.pump()

    def enter(self, action: Callable[[], object]) -> None:
        """Let something happen to the process, if one runs: at once, or when its pause is over."""
        if self.broker is None:
            return
        if self.paused:
            self._backlog.append(action)
            return
        try:
            action()
        except StorageFailed as error:
            self.exit(str(error))
            return
        self.pump()

    # ------------------------------------------------------------------------------------------------ Syncer

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        """See Syncer."""
        storage, session_id = self.storage, self.session_id
        token = storage.begin_sync()
        votes_token = self.files.begin_sync(VOTES_NAME) if votes else None
        states = self.opened.votes.rows() if votes and self.opened is not None else {}

        def finish() -> None:
            if self.session_id != session_id or self.broker is None:
                return
            if self.sync_held:
                self._held.append(finish)
                return
            try:
                storage.finish_sync(token)
                if votes_token is not None:
                    self.files.finish_sync(votes_token)
                    self.votes_durable.update((group_id, (one.term, one.vote)) for group_id, one in states.items())
            except StorageFailed as error:
                self.exit(str(error))
                return
            self.enter(done)

        faults = self.world.faults
        self.world.after(self.world.rng.uniform(faults.sync_min, faults.sync_max) * self.sync_slowness, finish)

    def hold_syncs(self) -> None:
        """Let no sync finish until `release_syncs`."""
        self.sync_held = True

    def release_syncs(self) -> None:
        """Let the syncs that were held finish, and the later ones in their time."""
        self.sync_held = False
        held, self._held = self._held, []
        for finish in held:
            finish()

    # ------------------------------------------------------------------------------------------------ turns

    def pump(self) -> None:
        """Let the broker work, and make sure that its next deadline wakes it."""
        broker = self.broker
        if broker is None or self.paused:
            return
        try:
            again = broker.pump()
            self._publish_watermark()
        except StorageFailed as error:
            self.exit(str(error))
            return
        for watcher in self.world.watchers:
            watcher.on_step(self)
        self._arm(again=again)

    def _publish_watermark(self) -> None:
        assert self.opened is not None
        sequence = self.pacer.take(self.clock.now())
        if sequence is not None:
            self.opened.watermark.publish(sequence)
            self.pacer.on_published()

    def _arm(self, *, again: bool) -> None:
        now = self.world.clock.now()
        if again:
            wake_at = now + AGAIN_SECONDS
        else:
            due = self.timers.next_due()
            if due is None:
                return
            wake_at = max(self.clock.world_time(due), now + WAKE_SECONDS_MIN)
        if self._wake_at is None or wake_at < self._wake_at or self._wake_at <= now:
            self._wake_at = wake_at
            session_id = self.session_id
            self.world.at(wake_at, lambda: self._wake(session_id, wake_at))

    def _wake(self, session_id: int, wake_at: float) -> None:
        if self.session_id != session_id or self.broker is None or self.paused or self._wake_at != wake_at:
            return
        self._wake_at = None
        self.enter(lambda: self.timers.run(self.clock.now()))

    def on_clock_changed(self) -> None:
        """The clock runs at another rate, or has leapt: deadlines come at other times of the world."""
        self._wake_at = None
        self.pump()

    def _send(self, peer: int, lane: Lane, packet: Packet) -> None:
        self.world.send(self, peer, packet)

    def _on_write(self, steps: list[Step]) -> None:
        for watcher in self.world.watchers:
            watcher.on_write(self, steps)


class _ColdReads:
    """Reads of old records, which take a while."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def submit(self, read: Callable[[Storage], T], done: Callable[[T], None]) -> None:
        """See ColdReader."""
        node, session_id = self._node, self._node.session_id

        def finish() -> None:
            if node.session_id == session_id:
                node.enter(lambda: done(read(node.storage)))

        node.world.after(0.0005, finish)

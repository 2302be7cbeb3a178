"""One node without its threads and sockets: everything it does between a message and the answers to it.

The server carries this class on an event loop, a simulator carries it under virtual time; both call `pump` after each
input, hand packets to it as they come, and run its timers when they are due. It never waits and never asks for the time
or for randomness except through what it was given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from quorumlog.node.broker.admin import CATCH_UP_SECONDS, AdminPath
from quorumlog.node.broker.claims import StartClaims
from quorumlog.node.broker.cluster import ClusterGroup, Outcome
from quorumlog.node.broker.directory import Directory
from quorumlog.node.broker.fetch import FetchPath
from quorumlog.node.broker.findings import Findings
from quorumlog.node.broker.groups import GroupsPath
from quorumlog.node.broker.hosting import Hosting
from quorumlog.node.broker.leadership import LeaderBalance
from quorumlog.node.broker.liveness import Liveness
from quorumlog.node.broker.members import MembersPath
from quorumlog.node.broker.mending import Mending
from quorumlog.node.broker.movements import Movements
from quorumlog.node.broker.offsets import OffsetsPath
from quorumlog.node.broker.outbox import Lane, Outbox, Packet
from quorumlog.node.broker.placing import Placing
from quorumlog.node.broker.produce import ProduceGate, ProducePath
from quorumlog.node.broker.reading import ColdReader, PartitionReader
from quorumlog.node.broker.recovery import Recovery
from quorumlog.node.broker.retention import Retention
from quorumlog.node.broker.scrubbing import Scrubbing
from quorumlog.node.broker.snapshots import Snapshots
from quorumlog.node.broker.status import StatusPath
from quorumlog.node.broker.subscribe import SubscribePath
from quorumlog.node.broker.transfers import Transfers
from quorumlog.node.clock import Clock
from quorumlog.node.config import NodeConfig
from quorumlog.node.coordination.view import CoordinationView
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.metadata import decisions
from quorumlog.node.metadata.catalogue import Catalogue, CatalogueChange
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID, GROUPS_TOPIC
from quorumlog.node.replica.hooks import ReplicaHooks
from quorumlog.node.replica.multi_raft import MultiRaft, Syncer
from quorumlog.node.replica.partition import Trimmed
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.interface import Family, WriteBatch
from quorumlog.node.storage.keys import group_range
from quorumlog.node.storage.opened import Opened
from quorumlog.node.timers import Timers
from quorumlog.proto import internal_pb2, peer_pb2
from quorumlog.raft import Config, EntryKind, NodeId

REGISTER_SECONDS: Final = 5.0
PRESSURE_SECONDS: Final = 0.5
WRITE_RETRY_SECONDS: Final = 0.005
"""After the database has pushed a write back."""

Reclaim = Callable[[Family, bytes, bytes], None]


class Broker(ReplicaHooks):
    """The whole of one node that has been founded into a cluster.

    Args:
        opened: the data folder; its identity is that of a member.
        descriptor: this node as it wants to be known, for registration.
        send: hands a packet to the transport; it may be dropped, then `on_dropped` is to be called.
        reclaim: gives the space of deleted keys back, off the loop.
        on_synced: hears of every finished sync with the sequence number that it covers.
        on_nodes_changed: hears that addresses of nodes may have changed.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        opened: Opened,
        founding: internal_pb2.Founding,
        descriptor: internal_pb2.NodeDescriptor,
        clock: Clock,
        timers: Timers,
        rng: random.Random,
        coordination: CoordinationView,
        syncer: Syncer,
        cold_reader: ColdReader,
        send: Callable[[int, Lane, Packet], None],
        reclaim: Reclaim,
        on_synced: Callable[[int], None],
        on_nodes_changed: Callable[[], None],
        on_coordination: Callable[[int, int, bytes], None],
        group_settings: GroupSettings | None = None,
    ) -> None:
        self.node_id = config.node_id
        self.config = config
        self.clock = clock
        self.timers = timers
        self.founding = founding
        self.catalogue = Catalogue()
        self.outbox = Outbox(send)
        self.gate = ProduceGate()
        self._descriptor = descriptor
        self._reclaim = reclaim
        self._on_nodes_changed = on_nodes_changed
        self._on_coordination = on_coordination
        self._rng = rng
        self._progressed: dict[int, Replica] = {}
        self._trimmed: dict[int, Replica] = {}
        self._reclaims: list[tuple[Family, bytes, bytes]] = []
        self._founding_proposed = False
        self._pressure_at = 0.0
        self._founders = tuple(node.node_id for node in founding.nodes)
        self._retrying_write = False
        self._register_at = 0.0

        storage = self._storage = opened.storage
        self.multi = MultiRaft(
            storage=storage,
            votes=opened.votes,
            syncer=syncer,
            send=self.outbox.raft,
            on_synced=on_synced,
            wall_ms=clock.wall_ms,
        )
        self.directory = Directory(
            node_id=self.node_id,
            catalogue=self.catalogue,
            multi=self.multi,
            coordination=coordination,
            catch_up=lambda done: self.cluster.catch_up(CATCH_UP_SECONDS, done),
        )
        self.liveness = Liveness(self.multi, clock.now())
        self.cluster = ClusterGroup(
            catalogue=self.catalogue,
            multi=self.multi,
            clock=clock,
            timers=timers,
            leader_of=self.directory.leader_of,
            send_forward=self._send_forward,
            send_result=self._send_result,
            first_correlation_id=rng.getrandbits(48) << 15,
        )
        self.hosting = Hosting(
            opened=opened,
            multi=self.multi,
            catalogue=self.catalogue,
            raft_config=Config(
                node_id=NodeId(self.node_id),
                election_ticks=config.election_ticks,
                heartbeat_ticks=config.heartbeat_ticks,
            ),
            rng=rng,
            hooks=self,
            on_removed=self._on_removed,
        )
        self.admin = AdminPath(
            directory=self.directory,
            cluster=self.cluster,
            multi=self.multi,
            liveness=self.liveness,
            clock=clock,
            rng=rng,
            incarnation=opened.identity.incarnation,
        )
        self.members = MembersPath(
            node_id=self.node_id,
            catalogue=self.catalogue,
            cluster=self.cluster,
            liveness=self.liveness,
            admin=self.admin,
        )
        self.placing = Placing(
            catalogue=self.catalogue,
            cluster=self.cluster,
            unfit=self.admin.unfit_to_copy_to,
            groups_max=config.moving_groups_max,
        )
        self.transfers = Transfers(
            directory=self.directory,
            multi=self.multi,
            liveness=self.liveness,
            clock=clock,
            timers=timers,
            election_timeout_seconds=config.election_ticks * config.tick_seconds,
        )
        reader = PartitionReader(self.directory, cold_reader)
        self.fetching = FetchPath(reader, clock, timers)
        self.subscribing = SubscribePath(reader, clock, timers)
        self.offsets = OffsetsPath(self.directory)
        self.producing = ProducePath(
            directory=self.directory,
            multi=self.multi,
            clock=clock,
            timers=timers,
            gate=self.gate,
            timeout_seconds=config.produce_timeout_seconds,
        )
        self.groups = GroupsPath(
            directory=self.directory,
            multi=self.multi,
            clock=clock,
            rng=rng,
            settings=group_settings or GroupSettings(),
            catch_up=lambda done: self.cluster.catch_up(CATCH_UP_SECONDS, done),
        )
        self.retention = Retention(
            multi=self.multi,
            catalogue=self.catalogue,
            liveness=self.liveness,
            clock=clock,
            check_seconds=config.retention_check_seconds,
        )
        self.snapshots = Snapshots(
            multi=self.multi, outbox=self.outbox, clock=clock, bytes_per_second=config.snapshot_bytes_per_second
        )
        self.balance = LeaderBalance(multi=self.multi, catalogue=self.catalogue, liveness=self.liveness)
        self.mending = Mending(multi=self.multi, outbox=self.outbox, liveness=self.liveness)
        self.scrubbing = Scrubbing(
            multi=self.multi,
            cold=cold_reader,
            clock=clock,
            bytes_per_second=config.scrub_bytes_per_second,
            period_seconds=config.scrub_period_seconds,
        )
        self.recovery = Recovery(directory=self.directory, multi=self.multi, hosting=self.hosting, clock=clock)
        self.movements = Movements(multi=self.multi, catalogue=self.catalogue, cluster=self.cluster)
        self.claims = StartClaims(
            node_id=self.node_id, multi=self.multi, catalogue=self.catalogue, liveness=self.liveness
        )
        self.findings = Findings(
            opened=opened,
            catalogue=self.catalogue,
            multi=self.multi,
            hosting=self.hosting,
            liveness=self.liveness,
            retention=self.retention,
            gate=self.gate,
            mending=self.mending,
        )
        self.reporting = StatusPath(
            opened=opened,
            directory=self.directory,
            multi=self.multi,
            hosting=self.hosting,
            liveness=self.liveness,
            admin=self.admin,
            gate=self.gate,
            findings=self.findings,
            snapshots=self.snapshots,
            scrubbing=self.scrubbing,
            mending=self.mending,
            clock=clock,
        )

    def start(self) -> None:
        """Open the replicas and begin to tick."""
        self.hosting.open_stored()
        self.hosting.found(self.founding)
        now = self.clock.now()
        self.timers.at(now + self.config.tick_seconds, self._tick)

    # -------------------------------------------------------------------------------------------------------- inputs

    def on_connected(self, peer: int, session_id: int) -> None:
        """A peer's process `session_id` opened a stream to this node."""
        self.liveness.on_connected(peer, session_id, self.clock.now())

    def on_packet(self, sender: int, session_id: int, packet: Packet) -> None:
        """Take a packet of a peer, of its process `session_id`."""
        if not self.liveness.on_heard(sender, session_id, self.clock.now()):
            return
        for group_id, message in packet.raft:
            self.multi.step(group_id, message)
        for forwarded in packet.forwarded:
            self.cluster.on_forwarded(sender, forwarded)
        for result in packet.forwarded_results:
            self.cluster.on_forwarded_result(result)
        for chunk in packet.snapshot_chunks:
            self.snapshots.on_chunk(sender, chunk)
        for answer in packet.snapshot_answers:
            self.snapshots.on_answer(sender, answer)
        for question in packet.entries_requests:
            self.mending.on_request(sender, question)
        for entries in packet.entries_answers:
            self.mending.on_answer(entries)
        for payload in packet.coordination:
            self._on_coordination(sender, session_id, payload)

    def on_disconnected(self, peer: int) -> None:
        """A stream from or to a peer broke."""
        self.liveness.on_disconnected(peer)

    def on_dropped(self, peer: int) -> None:
        """The transport dropped packets for a peer."""
        self.liveness.on_dropped(peer)

    def pump(self) -> bool:
        """Do what there is to do. Returns whether to call again soon. Raises StorageFailed: the node must exit."""
        again = self.multi.pump()
        while self._progressed:
            progressed, self._progressed = self._progressed, {}
            partitions = [
                (replica.descriptor.topic_id, replica.descriptor.partition) for replica in progressed.values()
            ]
            self.fetching.on_progress(partitions)
            self.subscribing.on_progress(partitions)
            again = self.multi.pump() or again
        self.transfers.check()
        self.outbox.flush()
        if self.multi.stalled and not self._retrying_write:
            self._retrying_write = True
            self.timers.at(self.clock.now() + WRITE_RETRY_SECONDS, self._on_write_retry)
        if self._trimmed:
            # Only now is the prefix cut: its bounds were not known yet when the trim was applied.
            trimmed, self._trimmed = self._trimmed, {}
            self._reclaims.extend((Family.LOG, *replica.log.reclaimable()) for replica in trimmed.values())
        if self._reclaims:
            reclaims, self._reclaims = self._reclaims, []
            for reclaim in reclaims:
                self._reclaim(*reclaim)
        return again

    def _on_write_retry(self) -> None:
        self._retrying_write = False

    def _tick(self) -> None:
        now = self.clock.now()
        self.timers.at(now + self.config.tick_seconds, self._tick)
        if now >= self._pressure_at:
            self._pressure_at = now + PRESSURE_SECONDS
            self.gate.pressure = self._storage.pressure().level
        self.liveness.tick(now)
        self.cluster.tick(now)
        self.multi.tick()
        self.hosting.renew()
        self.scrubbing.tick(now)
        self.mending.tick(now)
        self.recovery.tick()
        self.snapshots.tick(now)
        self.movements.tick(now)
        self.placing.tick(now)
        self.retention.tick(now)
        if not self.gate.stopping:
            self.balance.tick(now)
        self.claims.tick(now, [node.node_id for node in self.peers()])
        self._found_catalogue()
        self._register(now)
        self.groups.tick()
        for node_id in self.catalogue.nodes or self._founders:
            if node_id != self.node_id:
                self.outbox.control(node_id)

    def peers(self) -> Sequence[internal_pb2.NodeDescriptor]:
        """The other nodes, at their last known addresses."""
        known = [node.descriptor() for _, node in sorted(self.catalogue.nodes.items())] or list(self.founding.nodes)
        return [node for node in known if node.node_id != self.node_id]

    # ------------------------------------------------------------------------------------------------- applied entries

    def on_applied(self, replica: Replica, header: EntryHeader, value: object) -> None:
        """Pass on what an entry has changed."""
        if header.kind is EntryKind.CONTROL:
            self._trimmed[replica.group_id] = replica
        if replica.partition is not None:
            if header.kind is EntryKind.RECORDS or isinstance(value, Trimmed):
                self._progressed[replica.group_id] = replica
        elif replica.group_id == CLUSTER_GROUP_ID:
            if isinstance(value, CatalogueChange):
                self._on_catalogue(header.index, value)
            self.cluster.on_applied(header.index)
        elif replica.descriptor.topic == GROUPS_TOPIC:
            self.groups.on_applied(replica)

    def _on_catalogue(self, index: int, change: CatalogueChange) -> None:
        self._on_born(self.hosting.on_applied(index, change.born))
        self._on_gone(self.hosting.on_removed(index, (*change.removed, *change.moved)))
        deleted = (change.topic.topic_id,) if change.removed and change.topic is not None else ()
        if change.born or change.removed:
            self.groups.on_catalogue_changed(deleted)
        if change.node is not None or change.born:
            self._on_nodes_changed()

    def _on_born(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            group = self.catalogue.group(replica.group_id)
            if group is not None and group.replicas[0] == self.node_id:
                # The preferred leader does not wait for a timeout: all replicas are new, nobody leads.
                replica.raft.campaign()

    def _on_gone(self, group_ids: Iterable[int]) -> None:
        for group_id in group_ids:
            self._reclaims.extend((family, *group_range(group_id)) for family in Family)

    def on_installed(self, replica: Replica) -> None:
        """Take notice of a state that came as a whole."""
        if replica.partition is not None:
            self._progressed[replica.group_id] = replica
            self._trimmed[replica.group_id] = replica
        elif replica.group_id == CLUSTER_GROUP_ID:
            index = replica.raft.applied
            born, gone = self.hosting.on_installed(index)
            self._on_born(born)
            self._on_gone(gone)
            self.groups.on_catalogue_changed()
            self._on_nodes_changed()
            self.cluster.on_applied(index)
        elif replica.descriptor.topic == GROUPS_TOPIC:
            self.groups.on_applied(replica)

    def on_repaired(self, replica: Replica, batch: WriteBatch) -> None:
        """Take notice of a replica that remembers everything again."""
        self.hosting.on_repaired(replica, batch)

    def on_snapshot_wanted(self, replica: Replica, peer: NodeId) -> None:
        """Send a snapshot to a peer that entries cannot help."""
        self.snapshots.want(replica, peer)

    def on_role(self, replica: Replica) -> None:
        """Tell whoever waits at a leader that is none any more."""
        if replica.partition is not None:
            self._progressed[replica.group_id] = replica
        self.groups.on_role(replica)

    def _on_removed(self, replica: Replica) -> None:
        self._progressed[replica.group_id] = replica

    # ------------------------------------------------------------------------------------------------ cluster and self

    def _found_catalogue(self) -> None:
        """The first leader of `__cluster` writes the founding record into it."""
        if self.catalogue.founding is not None or not self.cluster.decides or self._founding_proposed:
            return
        self._founding_proposed = True
        command = decisions.found_cluster(self.founding, rng=self._rng)

        def on_outcome(_: Outcome) -> None:
            self._founding_proposed = False

        self.cluster.propose(internal_pb2.ClusterCommand(found_cluster=command), on_outcome)

    def _register(self, now: float) -> None:
        """Tell the cluster under which addresses this node has come up, until it knows."""
        if now < self._register_at or not self.catalogue.nodes:
            return
        command = decisions.register_node(self.catalogue, self._descriptor)
        if not isinstance(command, internal_pb2.RegisterNode):
            return
        self._register_at = now + REGISTER_SECONDS
        self.cluster.submit(internal_pb2.ClusterCommand(register_node=command), REGISTER_SECONDS, lambda _: None)

    def _send_forward(self, node_id: int, forwarded: peer_pb2.Forwarded) -> None:
        if node_id == self.node_id:
            self.cluster.on_forwarded(node_id, forwarded)
        else:
            self.outbox.control(node_id).forwarded.append(forwarded)

    def _send_result(self, node_id: int, result: peer_pb2.ForwardedResult) -> None:
        if node_id == self.node_id:
            self.cluster.on_forwarded_result(result)
        else:
            self.outbox.control(node_id).forwarded_results.append(result)

    # ----------------------------------------------------------------------------------------------------------
    # stopping

    def begin_stop(self) -> None:
        """Take no more records and hand leadership over."""
        self.gate.stopping = True
        self.balance.hand_over_all()

    @property
    def leads_with_peers(self) -> bool:
        """Whether a group that others could lead is still led here."""
        return any(
            replica.raft.is_leader and replica.stopped is None and len(replica.voters) > 1
            for replica in self.multi.replicas.values()
        )

    def fold_all(self) -> None:
        """Write a fold of every group into the next batch, so that the next start has little to replay."""
        for replica in self.multi.replicas.values():
            if replica.stopped is None:
                replica.fold_now(self.multi.next_batch)

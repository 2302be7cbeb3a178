"""One server process: the data folder, the broker on its event loop, two gRPC servers, and the streams to the peers."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import shutil
import socket
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Lane, Packet
from quorumlog.node.clock import SystemClock
from quorumlog.node.config import NodeConfig
from quorumlog.node.coordination.plane import CoordinationPlane
from quorumlog.node.coordination.view import Announcement, CoordinationView, NoCoordination
from quorumlog.node.driver import Driver
from quorumlog.node.errors import StorageFailed
from quorumlog.node.metadata import decisions
from quorumlog.node.rpc.founding import hand_over, identify_all, init_at
from quorumlog.node.rpc.links import PeerLink, PeerLinks
from quorumlog.node.rpc.peer_service import PROTOCOL_VERSION
from quorumlog.node.rpc.servers import Servers
from quorumlog.node.storage.database import DatabaseFolder, StorageOpener
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.identity import Founder, Founding, FoundingRefused, save_identity
from quorumlog.node.storage.opened import NodeState, Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.proto import client_pb2, internal_pb2, peer_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import NodeId, Term

log = logging.getLogger(__name__)

DISK_CHECK_SECONDS: Final = 1.0
STOP_POLL_SECONDS: Final = 0.02
ANNOUNCE_SECONDS: Final = 0.25


class NodeServer:
    """A node from start to stop. `failed` is set to what ended it when that was not `stop`.

    Args:
        config: its settings.
        open_storage: opens the database in a folder.
    """

    def __init__(self, config: NodeConfig, open_storage: StorageOpener = RocksStorage) -> None:
        self.config = config
        self._open_storage = open_storage
        self.node_id = config.node_id
        self.version = _version()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._clock = SystemClock()
        self._started_at = self._clock.now()
        # No other process of this node has had it; peers tell processes apart by it, and only by equality.
        self._session_id = secrets.randbits(63) + 1
        self._opened: Opened | None = None
        self._driver: Driver | None = None
        self._broker: Broker | None = None
        self._links: PeerLinks | None = None
        self._plane: CoordinationPlane | None = None
        self._servers = Servers(self)
        self._descriptor = internal_pb2.NodeDescriptor()
        self._disk_free_bytes = 0
        self._tasks: list[asyncio.Task[None]] = []
        # A peer may hand the founding record over on both of its lanes at once.
        self._founding = asyncio.Lock()

    @property
    def broker(self) -> Broker | None:
        """None while the node waits to be founded."""
        return self._broker

    # ------------------------------------------------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """Open the data folder and serve. Raises NodeError: the message says what is wrong and what to do."""
        config = self.config
        files = DataFolder(config.data)
        self._opened = await asyncio.to_thread(
            open_node,
            files,
            DatabaseFolder(files, self._open_storage),
            NodeId(config.node_id),
            secrets.token_bytes,
            config.cluster_id_bytes,
        )
        for finding in self._opened.findings:
            log.warning("%s; %s", finding.message, finding.fix)
        await self._servers.listen(config)
        self._descriptor = self._describe(self._opened.identity.incarnation)
        founding = self._opened.identity.founding
        if founding is not None:
            self._begin(internal_pb2.Founding.FromString(founding.record))
        else:
            log.info("node %d waits to be founded into a cluster, or added to one", config.node_id)
        # Last, because the first caller may already hand over a founding record, or ask who this is.
        await self._servers.start()

    def _begin(self, founding: internal_pb2.Founding) -> None:
        """The node belongs to a cluster: carry its broker."""
        opened = self._opened
        assert opened is not None
        assert self._broker is None
        driver = self._driver = Driver(opened, self._clock, self._on_failure)
        self._links = PeerLinks(
            incarnation=opened.identity.incarnation,
            hello=self._hello,
            on_up=self._on_peer_up,
            on_down=self._on_peer_down,
            on_waiting_peer=self._on_waiting_peer,
            on_dropped=self._on_dropped,
        )
        broker = Broker(
            config=self.config,
            opened=opened,
            founding=founding,
            descriptor=self._descriptor,
            clock=self._clock,
            timers=driver.timers,
            rng=random.Random(secrets.randbits(64)),
            coordination=self._make_plane(founding),
            syncer=driver.syncer,
            cold_reader=driver.cold_reader,
            send=self._links.send,
            reclaim=driver.reclaim,
            on_synced=driver.pacer.on_synced,
            on_nodes_changed=self._on_nodes_changed,
            on_coordination=self._on_coordination,
        )
        self._broker = broker
        broker.start()
        self._on_nodes_changed()
        if self._plane is not None:
            self._tick_plane()
            self._announce()
        driver.carry(broker)
        self._tasks.append(asyncio.create_task(self._watch_disk()))
        log.info("node %d serves cluster %s", self.node_id, founding.cluster_id.hex())

    async def stop(self) -> None:
        """Hand leadership over, write what is left, and close. A second call does nothing."""
        opened, self._opened = self._opened, None
        if opened is None:
            return
        broker, driver = self._broker, self._driver
        if broker is not None and driver is not None and not self.failed.done():
            await self._hand_over(broker, driver)
            broker.fold_all()
            broker.pump()
        for task in self._tasks:
            task.cancel()
        await self._servers.stop()
        if self._links is not None:
            await self._links.stop()
        if self._plane is not None:
            self._plane.stop()
        if driver is not None:
            await driver.stop()
        if not self.failed.done():
            await asyncio.to_thread(opened.close)

    async def _hand_over(self, broker: Broker, driver: Driver) -> None:
        deadline = self._clock.now() + self.config.stop_timeout_seconds
        while True:
            broker.begin_stop()
            driver.wake()
            if not broker.leads_with_peers or self._clock.now() >= deadline:
                return
            await asyncio.sleep(STOP_POLL_SECONDS)

    def _on_failure(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error)

    def wake(self) -> None:
        """Have the broker run soon."""
        if self._driver is not None:
            self._driver.wake()

    # -------------------------------------------------------------------------------------------------------- founding

    def _describe(self, incarnation: bytes) -> internal_pb2.NodeDescriptor:
        config = self.config
        return internal_pb2.NodeDescriptor(
            node_id=config.node_id,
            incarnation=incarnation,
            client_address=config.client_advertised or self._servers.client_address,
            peer_address=config.peer_advertised or self._servers.peer_address,
            host=config.host or socket.gethostname(),
            rack=config.rack,
        )

    async def init_cluster(self, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
        """Found a cluster from the nodes at the peer addresses named, this one among them."""
        if self._opened is None or self._broker is not None:
            return self._already_founded()
        named = [node.node_id for node in request.nodes]
        if self.node_id not in named or len(set(named)) < len(named):
            message = f"node {self.node_id} is asked to found a cluster of the nodes {named}"
            hint = "name every node once, the one that is asked among them"
            return client_pb2.InitClusterResponse(error=make_error(client_pb2.INVALID_REQUEST, message, hint=hint))
        peers = {node.node_id: node.address for node in request.nodes if node.node_id != self.node_id}
        answers = await identify_all(peers)
        if isinstance(answers, client_pb2.Error):
            return client_pb2.InitClusterResponse(error=answers)
        first = min(answers, key=lambda node: node.node_id, default=self._descriptor)
        if first.node_id < self.node_id:
            # One of them alone may begin, or calls at different nodes at the same time would found different clusters.
            return await init_at(first.client_address, request)
        record = decisions.founding(
            [self._descriptor, *answers],
            cluster_id=request.cluster_id,
            rng=random.Random(secrets.randbits(64)),
            now_ms=self._clock.wall_ms(),
        )
        if isinstance(record, client_pb2.Error):
            return client_pb2.InitClusterResponse(error=record)
        if self._is_member():  # another call was faster
            return self._already_founded()
        accepted = await self.found(record)
        if not accepted.accepted:
            if self._is_member():
                return self._already_founded()
            error = make_error(client_pb2.INVALID_REQUEST, accepted.message)
            return client_pb2.InitClusterResponse(error=error)
        # The others are told by the links, again and again until they know.
        return client_pb2.InitClusterResponse(cluster_id=record.cluster_id, voters=record.voters)

    def _is_member(self) -> bool:
        return self._broker is not None

    def _already_founded(self) -> client_pb2.InitClusterResponse:
        cluster_id = self._broker.founding.cluster_id.hex() if self._broker is not None else ""
        message = f"node {self.node_id} belongs to cluster {cluster_id}: it was founded before"
        return client_pb2.InitClusterResponse(error=make_error(client_pb2.ALREADY_FOUNDED, message))

    async def found(self, founding: internal_pb2.Founding) -> peer_pb2.FoundResponse:
        """Take the founding record, if it names this node under its present incarnation."""
        async with self._founding:
            return await self._take_founding(founding)

    async def _take_founding(self, founding: internal_pb2.Founding) -> peer_pb2.FoundResponse:
        opened = self._opened
        if opened is None:
            return peer_pb2.FoundResponse(message=f"node {self.node_id} is stopping")
        founders = sorted(founding.nodes, key=lambda node: node.node_id)
        record = Founding(
            founding.cluster_id,
            tuple(Founder(NodeId(node.node_id), node.incarnation) for node in founders),
            founding.SerializeToString(deterministic=True),
        )
        try:
            identity = opened.identity.founded(record)
        except FoundingRefused as error:
            return peer_pb2.FoundResponse(message=str(error))
        if self._broker is None:
            await asyncio.to_thread(save_identity, opened.files, identity)
            if self._opened is None:
                return peer_pb2.FoundResponse(message=f"node {self.node_id} is stopping")
            # From now on another founding record is refused.
            self._opened = replace(opened, identity=identity)
            self._begin(founding)
        return peer_pb2.FoundResponse(accepted=True)

    async def _on_waiting_peer(self, link: PeerLink) -> None:
        """A peer named in the founding record still waits: hand it the record."""
        if self._broker is not None:
            refusal = await hand_over(link.channel(), self._broker.founding)
            if refusal is not None:
                link.refusal = refusal

    # ----------------------------------------------------------------------------------------------------------- peers

    def _hello(self, peer: int, lane: Lane) -> peer_pb2.Hello:
        assert self._broker is not None
        descriptor = self._descriptor
        return peer_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            cluster_id=self._broker.founding.cluster_id,
            node_id=self.node_id,
            incarnation=descriptor.incarnation,
            session_id=self._session_id,
            lane=peer_pb2.BULK if lane is Lane.BULK else peer_pb2.CONTROL,
            to_node_id=peer,
            address=descriptor.client_address,
        )

    def refuse(self, hello: peer_pb2.Hello) -> peer_pb2.Refusal | None:
        """Why a peer's stream is turned away; None when it is welcome."""
        me = f"node {self.node_id}"
        if hello.protocol_version != PROTOCOL_VERSION:
            message = f"{me} speaks peer protocol {PROTOCOL_VERSION}, not {hello.protocol_version}: upgrade the older"
            return peer_pb2.Refusal(message=message, final=True)
        if hello.to_node_id != self.node_id:
            message = f"{me} answers where node {hello.to_node_id} was expected: check the peer addresses"
            return peer_pb2.Refusal(message=message, final=True)
        broker = self._broker
        if broker is None:
            return peer_pb2.Refusal(message=f"{me} waits: it belongs to no cluster yet")
        if hello.cluster_id != broker.founding.cluster_id:
            message = (
                f"{me} belongs to cluster {broker.founding.cluster_id.hex()}, node {hello.node_id} to "
                f"{hello.cluster_id.hex()}: check the peer addresses"
            )
            return peer_pb2.Refusal(message=message, final=True)
        for node in broker.peers():
            if node.node_id == hello.node_id and node.incarnation == hello.incarnation:
                return None
        message = (
            f"node {hello.node_id} with incarnation {hello.incarnation.hex()} is not a member: its "
            "data folder was wiped or is another node's; give it its own folder back"
        )
        return peer_pb2.Refusal(message=message, final=True)

    def welcome(self) -> peer_pb2.Welcome:
        """Who this node is."""
        return peer_pb2.Welcome(
            node_id=self.node_id, incarnation=self._descriptor.incarnation, session_id=self._session_id
        )

    def identify(self) -> peer_pb2.IdentifyResponse:
        """Who this node is, for founding."""
        descriptor = self._descriptor
        return peer_pb2.IdentifyResponse(
            node_id=self.node_id,
            incarnation=descriptor.incarnation,
            cluster_id=self._broker.founding.cluster_id if self._broker is not None else b"",
            peer_address=descriptor.peer_address,
            client_address=descriptor.client_address,
            host=descriptor.host,
            rack=descriptor.rack,
        )

    def on_connected(self, peer: int, session_id: int) -> None:
        """A peer's stream was welcomed."""
        if self._broker is not None:
            self._broker.on_connected(peer, session_id)
            self.wake()

    def on_packet(self, peer: int, session_id: int, packet: Packet) -> None:
        """Take a packet of a peer. What a sane packet cannot bring about ends the node, as anything in a turn does."""
        if self._broker is None or self._driver is None or self.failed.done():
            return
        try:
            self._broker.on_packet(peer, session_id, packet)
        except BaseException as error:  # noqa: BLE001 # gRPC would end the stream, and the node go on with broken state
            self._driver.fail(error)
        self.wake()

    def on_disconnected(self, peer: int) -> None:
        """A peer's stream ended."""
        self._on_peer_down(peer)

    def _on_peer_up(self, peer: int, session_id: int) -> None:
        if self._plane is not None:
            self._plane.on_peer_up(NodeId(peer), session_id)

    def _on_peer_down(self, peer: int) -> None:
        if self._plane is not None:
            self._plane.on_peer_down(NodeId(peer))
        if self._broker is not None:
            self._broker.on_disconnected(peer)
            self.wake()

    def _on_dropped(self, peer: int) -> None:
        # The broker is in the middle of its turn when a packet is dropped.
        asyncio.get_running_loop().call_soon(self._report_dropped, peer)

    def _report_dropped(self, peer: int) -> None:
        if self._broker is not None:
            self._broker.on_dropped(peer)
            self.wake()

    def _on_nodes_changed(self) -> None:
        if self._broker is not None and self._links is not None:
            self._links.set_peers(list(self._broker.peers()))

    # ---------------------------------------------------------------------------------------------------- coordination

    def _make_plane(self, founding: internal_pb2.Founding) -> CoordinationView:
        if not self.config.coordination:
            return NoCoordination()
        self._plane = CoordinationPlane(
            NodeId(self.node_id),
            [NodeId(node.node_id) for node in founding.nodes],
            self._session_id,
            self._send_coordination,
            random.Random(secrets.randbits(64)),
        )
        return self._plane

    def _send_coordination(self, peer: NodeId, payload: bytes) -> None:
        if self._broker is not None:
            self._broker.outbox.control(peer).coordination.append(payload)
            self.wake()

    def _on_coordination(self, peer: int, session_id: int, payload: bytes) -> None:
        if self._plane is not None:
            self._plane.on_message(NodeId(peer), session_id, payload, self._clock.now())

    def _tick_plane(self) -> None:
        assert self._plane is not None
        assert self._driver is not None
        now = self._clock.now()
        self._plane.tick(now)
        self._driver.timers.at(now + self._plane.settings.tick_seconds, self._tick_plane)

    def _announce(self) -> None:
        assert self._plane is not None
        assert self._driver is not None
        if self._broker is not None:
            leaders = {
                replica.group_id: Term(replica.raft.term)
                for replica in self._broker.multi.replicas.values()
                if replica.leads
            }
            self._plane.announce(
                Announcement(
                    node_id=NodeId(self.node_id),
                    incarnation=self._descriptor.incarnation,
                    session_id=self._session_id,
                    leaders=leaders,
                    disk_free_bytes=self._disk_free_bytes,
                    load=float(len(leaders)),
                )
            )
        self._driver.timers.at(self._clock.now() + ANNOUNCE_SECONDS, self._announce)

    # ---------------------------------------------------------------------------------------------------------- status

    async def _watch_disk(self) -> None:
        """Refuse records before the disk is full: then reading, electing and trimming still work."""
        floor = self.config.disk_free_bytes_min
        while self._broker is not None and self._driver is not None:
            try:
                free = self._disk_free_bytes = shutil.disk_usage(self.config.data).free
            except OSError as error:
                self._driver.fail(StorageFailed(f"the disk of {self.config.data} is gone: {error}; bring it back"))
                return
            full = free < floor
            if full and self._broker.gate.disk_full is None:
                log.error("the disk of %s has only %d bytes free: records are refused", self.config.data, free)
            self._broker.gate.disk_full = (
                f"node {self.node_id}: the disk of {self.config.data} has {free} bytes free, less than "
                f"disk_free_bytes_min = {floor}"
                if full
                else None
            )
            await asyncio.sleep(DISK_CHECK_SECONDS)

    def status(self) -> client_pb2.StatusResponse:
        """The state of this node, founded or not."""
        if self._opened is None:
            error = make_error(client_pb2.SHUTTING_DOWN, f"node {self.node_id} is stopping")
            return client_pb2.StatusResponse(error=error)
        if self._broker is not None:
            response = self._broker.reporting.status()
            for peer, refusal in (self._links.refusals() if self._links is not None else {}).items():
                response.findings.add(
                    severity=client_pb2.PROBLEM,
                    subject=f"node {peer}",
                    message=f"it turns node {self.node_id} away: {refusal}",
                    fix="give the node that is turned away its own data folder back; see the message",
                )
        else:
            wiped = self._opened.state is NodeState.WIPED
            response = client_pb2.StatusResponse(
                node_id=self.node_id,
                incarnation=self._opened.identity.incarnation,
                state="waiting",
            )
            response.findings.add(
                severity=client_pb2.PROBLEM if wiped else client_pb2.INFO,
                subject=f"node {self.node_id}",
                message="it belongs to no cluster and waits",
                fix="found a cluster with `quorumlog cluster init`; a wiped node needs its old folder back",
            )
        response.version = self.version
        response.storage.disk_free_bytes = shutil.disk_usage(self.config.data).free
        response.storage.uptime_seconds = self._clock.now() - self._started_at
        return response


def _version() -> str:
    try:
        return version("quorumlog")
    except PackageNotFoundError:
        return "0+unknown"

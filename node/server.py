"""One server process: the data folder, the broker on its event loop, two gRPC servers, and the streams to the peers."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from quorumlog.node.admission import Admission
from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Packet
from quorumlog.node.clock import SystemClock
from quorumlog.node.config import NodeConfig
from quorumlog.node.coordinating import PlaneCarrier
from quorumlog.node.coordination.plane import CoordinationPlane
from quorumlog.node.coordination.view import CoordinationView, NoCoordination
from quorumlog.node.disk import DiskWatch
from quorumlog.node.driver import Driver
from quorumlog.node.errors import StorageFailed
from quorumlog.node.founding import FoundingDesk
from quorumlog.node.greeting import Acquaintances, Greeting
from quorumlog.node.report import member_status, waiting_status
from quorumlog.node.rpc.links import PeerLink, PeerLinks
from quorumlog.node.rpc.servers import Servers
from quorumlog.node.storage.database import DatabaseFolder, StorageOpener
from quorumlog.node.storage.files import DataFolder
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.rocks import RocksStorage
from quorumlog.proto import client_pb2, internal_pb2, peer_pb2
from quorumlog.proto.errors import make_error
from quorumlog.raft import NodeId

log = logging.getLogger(__name__)

STOP_POLL_SECONDS: Final = 0.02


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
        self._disk = DiskWatch(config.node_id, config.data, config.disk_free_bytes_min)
        self._servers = Servers(self)
        self._tasks: list[asyncio.Task[None]] = []
        self._opened: Opened | None = None
        # From the moment on when the addresses are known.
        self._greeting: Greeting
        self._desk: FoundingDesk
        # Of a member.
        self._driver: Driver | None = None
        self._broker: Broker | None = None
        self._links: PeerLinks | None = None
        self._admission: Admission | None = None
        self._acquaintances: Acquaintances | None = None
        self._plane: CoordinationPlane | None = None
        self._carrier: PlaneCarrier | None = None
        self._planes_made = 0
        self._sessions: dict[int, int] = {}
        """Of the processes at the other end of this node's streams, by peer."""

    @property
    def broker(self) -> Broker | None:
        """None while the node waits to be founded."""
        return self._broker

    # ------------------------------------------------------------------------------------------------------ lifecycle

    async def start(self) -> None:
        """Open the data folder and serve. Raises NodeError: the message says what is wrong and what to do."""
        config = self.config
        files = DataFolder(config.data)
        opened = self._opened = await asyncio.to_thread(
            open_node,
            files,
            DatabaseFolder(files, self._open_storage),
            NodeId(config.node_id),
            secrets.token_bytes,
            config.cluster_id_bytes,
        )
        for finding in opened.findings:
            log.warning("%s; %s", finding.message, finding.fix)
        await self._servers.listen(config)
        descriptor = self._describe(opened.identity.incarnation)
        self._greeting = Greeting(descriptor, self._session_id)
        self._desk = FoundingDesk(opened, descriptor, self._clock, self._begin, lambda: self._opened is None)
        if not self._desk.recall():
            log.info("node %d waits to be founded into a cluster, or added to one", config.node_id)
        # Last, because the first caller may already hand over a founding record, or ask who this is.
        await self._servers.start()

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

    def _begin(self, opened: Opened, founding: internal_pb2.Founding) -> None:
        """The node belongs to a cluster: carry its broker."""
        self._opened = opened
        incarnation = opened.identity.incarnation
        self._greeting.descriptor.admitted_at_index = opened.identity.admitted_at_index
        driver = self._driver = Driver(opened, self._clock, self._on_failure)
        self._links = PeerLinks(
            incarnation=incarnation,
            hello=lambda peer, lane: self._greeting.hello(founding.cluster_id, peer, lane),
            on_up=self._on_peer_up,
            on_down=self._on_peer_down,
            on_waiting_peer=self._on_waiting_peer,
            on_dropped=self._on_dropped,
        )
        broker = Broker(
            config=self.config,
            opened=opened,
            founding=founding,
            descriptor=self._greeting.descriptor,
            clock=self._clock,
            timers=driver.timers,
            rng=random.Random(secrets.randbits(64)),
            coordination=self._make_plane([node.node_id for node in founding.nodes]),
            syncer=driver.syncer,
            cold_reader=driver.cold_reader,
            send=self._links.send,
            reclaim=driver.reclaim,
            on_synced=driver.pacer.on_synced,
            on_nodes_changed=self._on_nodes_changed,
            on_coordination=self._on_coordination,
        )
        self._broker = broker
        self._admission = Admission(broker, self.wake)
        self._acquaintances = Acquaintances(broker)
        broker.start()
        if self._plane is not None:
            self._carrier = PlaneCarrier(
                self._plane,
                broker=broker,
                clock=self._clock,
                timers=driver.timers,
                incarnation=incarnation,
                session_id=self._session_id,
                disk_free_bytes=lambda: self._disk.free_bytes,
            )
            self._carrier.start()
        self._on_nodes_changed()
        driver.carry(broker)
        self._tasks.append(asyncio.create_task(self._watch_disk(broker, driver)))
        log.info("node %d serves cluster %s", self.node_id, founding.cluster_id.hex())

    async def _watch_disk(self, broker: Broker, driver: Driver) -> None:
        try:
            await self._disk.watch(broker.gate)
        except StorageFailed as error:
            driver.fail(error)

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

    async def init_cluster(self, request: client_pb2.InitClusterRequest) -> client_pb2.InitClusterResponse:
        """Found a cluster from the nodes at the peer addresses named, this one among them."""
        return await self._desk.init_cluster(request)

    async def found(
        self, founding: internal_pb2.Founding, admitted: internal_pb2.NodeDescriptor | None
    ) -> peer_pb2.FoundResponse:
        """Take the founding record, if it names this node as it is now, or if it was admitted later."""
        return await self._desk.take(founding, admitted)

    async def add_node(self, request: client_pb2.AddNodeRequest) -> client_pb2.AddNodeResponse:
        """Have a node that waits admitted."""
        assert self._admission is not None, "asked of members only"
        return await self._admission.add(request)

    def identify(self) -> peer_pb2.IdentifyResponse:
        """Who this node is, for founding."""
        return self._greeting.identify(self._desk.cluster_id)

    async def _on_waiting_peer(self, link: PeerLink) -> None:
        """A peer waits, although it is a member."""
        if self._admission is not None:
            await self._admission.on_waiting_peer(link)

    # ----------------------------------------------------------------------------------------------------------- peers

    def refuse(self, hello: peer_pb2.Hello) -> peer_pb2.Refusal | None:
        """Why a peer's stream is turned away; None when it is welcome."""
        if self._broker is None and hello.to_node_id == self.node_id:
            self._desk.greeted_by = hello
        refusal = self._greeting.refuse(hello, self._broker)
        if refusal is None and self._acquaintances is not None and self._acquaintances.meet(hello):
            self._on_nodes_changed()
        return refusal

    def welcome(self) -> peer_pb2.Welcome:
        """Who this node is."""
        return self._greeting.welcome()

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
        self._sessions[peer] = session_id
        if self._plane is not None:
            self._plane.on_peer_up(NodeId(peer), session_id)

    def _on_peer_down(self, peer: int) -> None:
        self._sessions.pop(peer, None)
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
        if self._broker is None or self._links is None or self._acquaintances is None:
            return
        peers = self._acquaintances.peers()
        self._links.set_peers(peers)
        if self._servers.peers is not None:
            self._servers.peers.end_strangers({peer.node_id: peer.incarnation for peer in peers})
        self._renew_plane([peer.node_id for peer in peers])

    # ---------------------------------------------------------------------------------------------------- coordination

    def _renew_plane(self, peers: Sequence[int]) -> None:
        """Begin anew with a plane of other members when nodes came or left; what it knew is said again in seconds."""
        if self._plane is None or self._carrier is None or self._broker is None:
            return
        if self._plane.member_ids != {self.node_id, *peers}:
            self._plane.stop()
            self._broker.directory.coordination = self._make_plane(peers)
            for peer, session_id in self._sessions.items():
                self._plane.on_peer_up(NodeId(peer), session_id)
            self._carrier.change(self._plane)

    def _make_plane(self, node_ids: Sequence[int]) -> CoordinationView:
        if not self.config.coordination:
            return NoCoordination()
        self._plane = CoordinationPlane(
            NodeId(self.node_id),
            sorted({NodeId(node_id) for node_id in (self.node_id, *node_ids)}),
            self._session_id,
            self._send_coordination,
            random.Random(secrets.randbits(64)),
            generation=self._planes_made,
        )
        self._planes_made += 1
        return self._plane

    def _send_coordination(self, peer: NodeId, payload: bytes) -> None:
        if self._broker is not None:
            self._broker.outbox.control(peer).coordination.append(payload)
            self.wake()

    def _on_coordination(self, peer: int, session_id: int, payload: bytes) -> None:
        if self._plane is not None:
            self._plane.on_message(NodeId(peer), session_id, payload, self._clock.now())

    # ---------------------------------------------------------------------------------------------------------- status

    def status(self) -> client_pb2.StatusResponse:
        """The state of this node, founded or not."""
        if self._opened is None:
            error = make_error(client_pb2.SHUTTING_DOWN, f"node {self.node_id} is stopping")
            return client_pb2.StatusResponse(error=error)
        if self._broker is not None and self._links is not None:
            response = member_status(self._broker, self._links)
        else:
            response = waiting_status(self._opened, self._desk)
        response.version = self.version
        response.storage.disk_free_bytes = self._disk.look()
        response.storage.uptime_seconds = self._clock.now() - self._started_at
        return response


def _version() -> str:
    try:
        return version("quorumlog")
    except PackageNotFoundError:
        return "0+unknown"

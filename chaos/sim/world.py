"""A whole cluster in one thread under virtual time: nodes, a heap of events, and what is told of them.

Everything random comes from one seed, so a run can be replayed event by event. `trace` is a running hash of what
happened.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from quorumlog.chaos.sim.failures import NotConverged
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.watching import Watcher
from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.outbox import Lane, Packet
from quorumlog.node.clock import ManualClock
from quorumlog.node.coordination.view import CoordinationView, NoCoordination
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.metadata import decisions
from quorumlog.proto import internal_pb2

TOLD_MAX: Final = 4000
"""The last things told are kept, for the story of a failure."""


@dataclass(slots=True)
class Faults:
    """What is wrong with network and disks as a whole: shares of packets, and times in seconds.

    `late` is the share of clients' requests that arrive only after their client has given them up, `held_back` the
    share of packets that take up to `held_back_seconds`, so that many others overtake them. `silent_deaths` is the
    share of processes whose peers are not told that they have ended.
    """

    loss: float = 0.0
    duplication: float = 0.0
    held_back: float = 0.0
    held_back_seconds: float = 0.5
    silent_deaths: float = 0.0
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
    heartbeat_ticks: int = 2
    retention_check_seconds: float = 5.0
    produce_timeout_seconds: float = 30.0
    scrub_bytes_per_second: float = 8 << 20
    scrub_period_seconds: float = 86_400.0


class Told(NamedTuple):
    """One sentence of a run's story. `group_id` is 0 where it concerns all groups."""

    at: float
    group_id: int
    text: str


class World:
    """Nodes, network and time. `now` starts at 1000 s.

    Args:
        groups_partitions: of `__groups`; None for as many as the product founds a cluster with.
    """

    def __init__(
        self,
        seed: int,
        nodes: int = 3,
        group_settings: GroupSettings | None = None,
        pace: Pace = Pace(),
        groups_partitions: int | None = None,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.clock = ManualClock(1000.0)
        self.faults = Faults()
        self.pace = pace
        self.watchers: list[Watcher] = []
        self.cut: set[tuple[int, int]] = set()
        self.group_settings = group_settings
        self.counts: Counter[str] = Counter()
        self.told: deque[Told] = deque(maxlen=TOLD_MAX)
        self.restart_seconds = 0.5
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._hash = hashlib.blake2b(digest_size=16)
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
        if groups_partitions is not None:
            founding.groups_partitions = groups_partitions
        self.founding = founding

    def coordination(self, node_id: int) -> CoordinationView:
        """What the broker of this node is given; a test may put something else in its place."""
        return NoCoordination()

    # ------------------------------------------------------------------------------------------------ time

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Let `action` happen at a time of the world's clock."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let `action` happen in a while."""
        self.at(self.clock.now() + seconds, action)

    def step(self) -> bool:
        """Run the next event; False when there is none."""
        if not self._events:
            return False
        when, _, action = heapq.heappop(self._events)
        seconds = when - self.clock.now()
        if seconds > 0.0:
            self.clock.advance(seconds)
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
        events, step = self._events, self.step
        while events and events[0][0] <= until:
            step()
        self.clock.advance(until - self.clock.now())

    def run_until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Run until `condition` holds; fail after `seconds` of virtual time."""
        until = self.clock.now() + seconds
        while not condition():
            due = self._events[0][0] if self._events else float("inf")
            if due > until:
                raise NotConverged(f"seed {self.seed}: {what} within {seconds} s")
            self.step()

    # ------------------------------------------------------------------------------------------------ telling

    def note(self, text: str) -> None:
        """Add to the trace."""
        self._hash.update(f"{self.clock.now()!r} {text}\n".encode())

    def tell(self, text: str, group_id: int = 0) -> None:
        """Add to the trace and to the story."""
        self.told.append(Told(self.clock.now(), group_id, text))
        self.note(text)

    def count(self, what: str, times: int = 1) -> None:
        """Count something that a run is asked about at its end."""
        self.counts[what] += times

    @property
    def trace(self) -> str:
        """A hash of everything that happened."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------------------------------------------ network

    def node_at(self, address: str) -> SimNode:
        """The node that clients reach at an address."""
        return self.nodes[int(address.removeprefix("node").split(":")[0])]

    def send(self, sender: SimNode, peer: int, packet: Packet) -> None:
        """Carry a packet to another node, once, twice, late or never."""
        target = self.nodes.get(peer)
        if target is None:
            return
        rng, faults = self.rng, self.faults
        sent_by, sent_to = sender.session_id, target.session_id
        copies = 1
        if faults.duplication and rng.random() < faults.duplication:
            copies = 2
            self.counts["packets_doubled"] += 1
        for _ in range(copies):
            if faults.loss and rng.random() < faults.loss:
                self.counts["packets_lost"] += 1
                continue
            seconds = rng.uniform(faults.delay_min, faults.delay_max)
            if faults.held_back and rng.random() < faults.held_back:
                self.counts["packets_held_back"] += 1
                seconds += rng.uniform(0.0, faults.held_back_seconds)
            self.after(seconds, lambda: self._deliver(sender, target, sent_by, sent_to, packet))

    def _deliver(self, sender: SimNode, target: SimNode, sent_by: int, sent_to: int, packet: Packet) -> None:
        # A stream does not outlive either of its processes.
        if target.broker is None or target.session_id != sent_to or sender.session_id != sent_by:
            return
        if (sender.node_id, target.node_id) in self.cut:
            self.counts["packets_cut"] += 1
            return
        broker = target.broker
        if target.heard.get(sender.node_id) != sent_by and not self.welcome(sender, target):
            self.counts["streams_refused"] += 1
            return
        self.note(f"{sender.node_id}>{target.node_id} {_gist(packet)}")

        def arrive() -> None:
            if target.heard.get(sender.node_id) != sent_by:
                target.heard[sender.node_id] = sent_by
                broker.on_connected(sender.node_id, sent_by)
            broker.on_packet(sender.node_id, sent_by, packet)

        target.enter(arrive)

    def welcome(self, sender: SimNode, target: SimNode) -> bool:
        """Whether a stream between two members begins: each must know the other for who it says it is."""
        for one, other in ((sender, target), (target, sender)):
            if one.broker is None or other.broker is None:
                return False
            hello = one.greeting.hello(one.broker.founding.cluster_id, other.node_id, Lane.CONTROL)
            if other.greeting.refuse(hello, other.broker) is not None:
                return False
        return True

    def connect(self, node: SimNode) -> None:
        """A process has started: streams are opened where the network lets them; others when it does."""
        for other in self.nodes.values():
            if other is node or other.broker is None or node.broker is None:
                continue
            for one, two in ((node, other), (other, node)):
                if (one.node_id, two.node_id) in self.cut or two.paused or one.paused:
                    continue
                if self.welcome(one, two):
                    assert two.broker is not None
                    two.heard[one.node_id] = one.session_id
                    two.broker.on_connected(one.node_id, one.session_id)
            other.pump()

    def disconnect(self, node: SimNode) -> None:
        """A process has ended: its peers are told where the network lets them, mostly."""
        silent = self.faults.silent_deaths > 0 and self.rng.random() < self.faults.silent_deaths
        for other in self.nodes.values():
            broker = other.broker
            if broker is None or silent or (node.node_id, other.node_id) in self.cut:
                continue
            other.enter(lambda broker=broker: broker.on_disconnected(node.node_id))  # type: ignore[misc]

    # ------------------------------------------------------------------------------------------------ the whole

    def on_exit(self, node: SimNode) -> None:
        """A process has ended by itself: a supervisor starts it again."""
        seconds, node.restart_seconds = node.restart_seconds, None
        self.start_later(node, self.restart_seconds if seconds is None else seconds)

    def add_node(self) -> SimNode:
        """Make one node more, which waits."""
        node = SimNode(self, max(self.nodes) + 1)
        self.nodes[node.node_id] = node
        node.start()
        return node

    def start_later(self, node: SimNode, seconds: float) -> None:
        """Start a node in a while, unless it runs by then."""

        def start() -> None:
            if node.opened is None and not node.dead:
                node.start()

        self.after(seconds, start)

    def start_all(self) -> None:
        """Start every node that is down."""
        for node in self.nodes.values():
            if node.opened is None and not node.dead:
                node.start()

    def brokers(self) -> dict[int, Broker]:
        """The brokers of all nodes that run."""
        return {node_id: node.broker for node_id, node in self.nodes.items() if node.broker is not None}

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
            node.sync_slowness = 1.0
            node.release_syncs()
            if node.paused:
                node.resume()
        self.start_all()


def _gist(packet: Packet) -> str:
    """Enough of a packet to tell two runs apart."""
    raft = packet.raft
    if not raft:
        return f"{len(packet.forwarded)} {len(packet.forwarded_results)}"
    group_id, last = raft[-1]
    return f"{len(raft)} {group_id} {last.type.value} {last.term} {last.index} {len(packet.forwarded)}"

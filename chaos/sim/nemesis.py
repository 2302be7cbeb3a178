"""Faults, drawn from a seed and struck at random moments."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from quorumlog.chaos.sim.channel import CLIENTS
from quorumlog.chaos.sim.world import World
from quorumlog.proto import client_pb2 as pb

NEVER = 1e9

CLEAN_STOP_SECONDS = 0.5

OFTEN: Mapping[str, float] = {
    "kill_leader": 1.5,
    "crash": 1.5,
    "crash_all": 4.0,
    "hold_syncs": 1.0,
    "cut": 1.0,
    "cut_clients": 2.0,
    "transfer": 0.7,
    "stop": 3.0,
    "recreate": 1.5,
    "replace_member": 2.0,
}
"""Mean seconds between two strokes of each fault, where a seed has it."""


class Nemesis:
    """Strikes until `end`. `replace_member` is what only the run itself can do."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        between: Mapping[str, float],
        *,
        topic: str,
        partitions: int,
        brief: str,
        replace_member: Callable[[], None],
    ) -> None:
        self.world = world
        self.rng = rng
        self.topic = topic
        self.partitions = partitions
        self.brief = brief
        self.replace_member = replace_member
        self.struck: dict[str, int] = {}
        self._over = False
        for name, seconds in between.items():
            if seconds < NEVER:
                self._schedule(name, getattr(self, name), seconds)

    def end(self) -> None:
        """Strike no more."""
        self._over = True

    def _schedule(self, name: str, fault: Callable[[], None], seconds: float) -> None:
        def strike() -> None:
            if not self._over:
                self.struck[name] = self.struck.get(name, 0) + 1
                self.world.note(name)
                fault()
                again()

        def again() -> None:
            self.world.after(self.rng.expovariate(1 / seconds), strike)

        again()

    def _start_later(self, node_id: int, seconds: float) -> None:
        def start() -> None:
            if not self.world.nodes[node_id].running:
                self.world.nodes[node_id].start()

        self.world.after(seconds, start)

    def _kill(self, node_id: int) -> None:
        if self.world.nodes[node_id].running:
            self.world.nodes[node_id].crash()
            self._start_later(node_id, self.rng.uniform(0.01, 2.0))

    def crash(self) -> None:
        """Any node loses its process and what was not synced."""
        self._kill(self.rng.choice([1, 2, 3]))

    def kill_leader(self) -> None:
        """The same for a node that leads a partition."""
        leaders = [
            node_id
            for node_id, broker in self.world.brokers().items()
            for replica in broker.multi.replicas.values()
            if replica.partition is not None and replica.leads
        ]
        if leaders:
            self._kill(self.rng.choice(leaders))

    def crash_all(self) -> None:
        """The power goes for all three."""
        for node_id in (1, 2, 3):
            self._kill(node_id)

    def stop(self) -> None:
        """A node stops cleanly: it hands over, then it ends."""
        node = self.world.nodes[self.rng.choice([1, 2, 3])]
        broker = node.broker
        if broker is None or node.sync_held:
            return
        broker.begin_stop()
        node.pump()

        def end() -> None:
            if node.broker is broker:
                node.stop()
                self._start_later(node.node_id, self.rng.uniform(0.01, 1.0))

        self.world.after(CLEAN_STOP_SECONDS, end)

    def hold_syncs(self) -> None:
        """A disk finishes no sync for a while."""
        node = self.world.nodes[self.rng.choice([1, 2, 3])]
        node.hold_syncs()
        self.world.after(self.rng.uniform(0.1, 1.5), node.release_syncs)

    def _cut(self, links: set[tuple[int, int]]) -> None:
        self.world.cut |= links

        def mend() -> None:
            self.world.cut -= links

        self.world.after(self.rng.uniform(0.1, 2.0), mend)

    def cut(self) -> None:
        """A link fails one way or both, or a node is alone."""
        one, other = self.rng.sample([1, 2, 3], 2)
        third = 6 - one - other
        draw = self.rng.random()
        if draw < 0.3:
            self._cut({(one, other), (other, one), (one, third), (third, one)})
        elif draw < 0.65:
            self._cut({(one, other)})
        else:
            self._cut({(one, other), (other, one)})

    def cut_clients(self) -> None:
        """Clients cannot reach a node, or do not hear it."""
        node_id = self.rng.choice([1, 2, 3])
        up, down = (CLIENTS, node_id), (node_id, CLIENTS)
        self._cut(self.rng.choice([{up}, {down}, {up, down}]))

    def transfer(self) -> None:
        """A partition's leadership is moved."""
        request = pb.TransferLeadershipRequest(
            topic=self.topic, partition=self.rng.randrange(self.partitions), to_node_id=self.rng.choice([1, 2, 3])
        )
        for node in self.world.nodes.values():
            if node.broker is not None:
                node.broker.transfers.transfer(request, lambda response: None)
                node.pump()

    def recreate(self) -> None:
        """The brief topic is deleted, or made again under its name."""
        for node in self.world.nodes.values():
            broker = node.broker
            if broker is None or not broker.cluster.decides:
                continue
            if broker.catalogue.topic(self.brief) is not None:
                broker.admin.delete_topic(pb.DeleteTopicRequest(name=self.brief), lambda response: None)
            else:
                request = pb.CreateTopicRequest(name=self.brief, partitions=1, replicas=3)
                broker.admin.create_topic(request, lambda response: None)
            node.pump()

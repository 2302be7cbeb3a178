"""Random clusters of the core under seeds drawn now: `python -m tests.mutants.random_cores SECONDS [SEED]`. Exit code 1
when a promise was broken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from quorumlog.raft import LogIndex, Message, NotLeader, ProposalRefused
from tests.mutants.searching import search
from tests.raft.memory_shell import Shell
from tests.raft.random_cluster import Frame, RandomCluster

Action = tuple[Callable[[Shell], None], float]

STEPS: Final = 3000

REPLAYED: Final = 0.05
"""Of what arrives where the network is not in order: messages of any age, of the sessions that still last."""

FLOOD: Final = 60
"""Messages that come again all at once."""

SLOW_RATE: Final = 0.1
"""Of the clock that is slow."""


class LivelyCluster(RandomCluster):
    """A cluster whose network is fast for its clocks, so that leaders come, do much and go.

    The network may bring again whatever was ever sent, however long ago. All who believe to lead are asked and read
    from, and the clock of one node all but stands still, mostly that of a leader.
    """

    sizes = (3, 3, 5, 5)

    def __init__(self, seed: int) -> None:
        self.sent: list[Frame] = []
        self.slow = 0
        super().__init__(seed)
        self.damage = self.rng.choice((0, 0, 1))
        self.changes = 0
        for node_id in self.shells:
            self.remember(node_id)
        self.loss = self.rng.choice((0.0, 0.05))
        self.limits["election_ticks"] = 4

    def actions(self) -> list[Action]:
        """What may happen next, and how likely it is."""
        return [
            (self.deliver, 120), (self.work, 90), (self.sync, 40), (self.tick, 30), (self.propose, 5), (self.read, 8),
            (self.crash, 0.3), (self.change_links, 0.6), (self.transfer, 1), (self.slow_down, 1), (self.compact, 1),
            (self.snapshot, 1), (self.forget, self.damage), (self.crash_leader, 0.5),
            (self.flood, 2),
        ]  # fmt: skip

    def run(self, steps: int) -> None:
        actions = self.actions()
        for action in self.rng.choices([one for one, _ in actions], [weight for _, weight in actions], k=steps):
            action(self.rng.choice(list(self.shells.values())))
            self.checks.watch()

    def sender_of(self, node_id: int) -> Callable[[Message], None]:
        send = super().sender_of(node_id)

        def send_and_keep(message: Message) -> None:
            send(message)
            self.sent.append(self.network[-1])

        return send_and_keep

    def deliver(self, shell: Shell) -> None:
        if self.sent and not self.fifo and not self.healed and self.rng.random() < REPLAYED:
            frame = self.rng.choice(self.sent)
            if frame.message.to in self.shells and self.is_current(frame):
                self.shells[frame.message.to].step(frame.message)
            return
        super().deliver(shell)

    def flood(self, _: Shell) -> None:
        """A leader, who may have led before, gets all at once what it was sent before its present term."""
        leader = self.leader()
        if leader is None or self.fifo or self.healed:
            return
        old = [one for one in self.sent if one.message.to == leader.node_id and one.message.term < leader.node.term]
        for frame in old[-FLOOD:]:
            if self.is_current(frame):
                leader.step(frame.message)

    def read(self, shell: Shell) -> None:
        for one in list(self.shells.values()):
            if one.node.is_leader:
                context = len(self.checks.reads) + 1
                self.checks.reads[context] = self.checks.last_committed
                one.node.read_index(context)

    def crash_leader(self, shell: Shell) -> None:
        self.crash(self.leader() or shell)

    def slow_down(self, shell: Shell) -> None:
        self.slow = (self.leader() or shell).node_id

    def tick(self, shell: Shell) -> None:
        if shell.node_id != self.slow or self.rng.random() < SLOW_RATE:
            super().tick(shell)

    def recover(self) -> int:
        self.slow = 0
        return super().recover()


class ChangingCluster(LivelyCluster):
    """Its leaders are asked for other voters all the time, and so also when they have only just begun."""

    def actions(self) -> list[Action]:
        return [*super().actions(), (self.configure, 6), (self.place, 4), (self.delete, 2)]


class InstallingCluster(LivelyCluster):
    """Its disks are slow, its leaders are cut off and go on, and who meets the next one is sent a snapshot at once,
    while what it wrote is still on its way to its disk.
    """

    def actions(self) -> list[Action]:
        return [
            (self.deliver, 160), (self.work, 90), (self.sync, 25), (self.tick, 50), (self.propose, 8),
            (self.crash, 0.3), (self.compact, 1), (self.isolate, 2), (self.reunite, 2), (self.forget, self.damage),
            (self.transfer, 2), (self.flood, 4),
        ]  # fmt: skip

    def isolate(self, _: Shell) -> None:
        """A leader is cut off, at times with another one, and has much to write that most will not; these elect another
        leader.
        """
        alone = self.leader()
        if alone is None or self.cut:
            return
        self.slow = alone.node_id
        here = {self.slow}
        if len(alone.node.configuration.voters) > 3:
            here.add(self.rng.choice(alone.node.configuration.voters))
        self.cut = {(one, two) for one in self.nodes for two in self.nodes if (one in here) != (two in here)}
        for _written in range(self.rng.randrange(8)):
            try:
                alone.propose(b"alone")
            except (NotLeader, ProposalRefused):
                return
            self.work(alone)

    def reunite(self, _: Shell) -> None:
        """Once there is another leader everybody hears everybody again, and leaders offer snapshots."""
        if not any(one.node.is_leader and one.node_id != self.slow for one in self.shells.values()):
            return
        self.cut.clear()
        for leader in [one for one in self.shells.values() if one.node.is_leader]:
            first, last = max(leader.log.offset, 1), leader.node.applied
            for peer in leader.node.configuration.replicas if first <= last else ():
                if peer != leader.node_id:
                    self.send_snapshot(leader, peer, LogIndex(self.rng.randint(first, last)))


CLUSTERS: Final = (LivelyCluster, RandomCluster, ChangingCluster, InstallingCluster)


def live_through(seed: int) -> None:
    cluster = CLUSTERS[seed % len(CLUSTERS)](seed)
    cluster.run(STEPS)
    cluster.recover()


if __name__ == "__main__":
    sys.exit(search(live_through))

"""What clients do in a run: they send, read in groups, commit and ask what is committed, all the time."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Final

from quorumlog.chaos.sim.members import Delivery, SimMember
from quorumlog.chaos.sim.offset_readers import OffsetReader
from quorumlog.chaos.sim.producers import SimProducer
from quorumlog.chaos.sim.swarm import BRIEF, PARTITIONS, Swarm
from quorumlog.chaos.sim.world import World

SENDS_PER_SECOND: Final = 25.0
"""Of all producers together. With the fetches and commits of the members that is more than 50 operations."""

BACKLOG_MAX: Final = 600
"""Records without an outcome at which a producer holds back."""

GROUPS: Final = {"workers": ("orders", "audit"), "auditors": ("ledger",)}
MEMBERS: Final = {"workers": 2, "auditors": 1}


class Load:
    """The producers and the members of a run, and everything that they were told and given."""

    def __init__(self, world: World, swarm: Swarm) -> None:
        self.world = world
        self.swarm = swarm
        self.rng = random.Random(swarm.rng.getrandbits(64))
        self.deliveries: dict[str, list[Delivery]] = {group: [] for group in GROUPS}
        self.producers = [SimProducer(world) for _ in range(swarm.producers)]
        self.everybody: list[SimMember] = []
        self.members: dict[str, list[SimMember]] = {}
        for group, count in MEMBERS.items():
            self.members[group] = [self._join(group) for _ in range(count)]
            OffsetReader(world, group, self.everybody)
        self._counts: dict[tuple[int, str, int], int] = defaultdict(int)
        self._sending = False
        self._places = [(topic, partition) for topic, count in PARTITIONS.items() for partition in range(count)]

    def begin(self) -> None:
        """Begin to send."""
        self._sending = True
        for number in range(len(self.producers)):
            self._send(number)

    def end(self) -> None:
        """Send no more."""
        self._sending = False

    def replace_member(self, rng: random.Random) -> None:
        """A member dies or leaves, and another one joins."""
        group = rng.choice(sorted(self.members))
        members = self.members[group]
        place = rng.randrange(len(members))
        if rng.random() < 0.5:
            members[place].die()
        else:
            members[place].leave()
        members[place] = self._join(group)

    def _join(self, group: str) -> SimMember:
        rng, seconds = self.rng, self.swarm.handler_seconds
        member = SimMember(
            self.world,
            len(self.everybody) + 1,
            group,
            list(GROUPS[group]),
            self.deliveries[group],
            session_timeout=2.0,
            handler_seconds=lambda: rng.uniform(0.0, seconds),
        )
        self.everybody.append(member)
        return member

    def _send(self, number: int) -> None:
        if not self._sending:
            return
        producer, rng = self.producers[number], self.rng
        if producer.backlog < BACKLOG_MAX:
            topic, partition = (BRIEF, 0) if rng.random() < 0.05 else rng.choice(self._places)
            self.world.count("operations")
            for _ in range(rng.choice([1, 1, 1, 2, 5])):
                key = number, topic, partition
                self._counts[key] += 1
                value = f"{number} {topic} {partition} {self._counts[key]} ".encode()
                producer.send(topic, partition, value + b"x" * rng.choice([0, 30, 200]))
        pause = rng.expovariate(SENDS_PER_SECOND / len(self.producers))
        self.world.after(pause, lambda: self._send(number))

    @property
    def settled(self) -> bool:
        """Whether every record has its outcome."""
        return all(producer.settled for producer in self.producers)

    @property
    def acked(self) -> int:
        """How many records were acknowledged."""
        return sum(one.acked for producer in self.producers for one in producer.sent)

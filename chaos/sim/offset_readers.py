"""Whoever asks how far a group has committed is told no less than what was acknowledged before the question."""

from __future__ import annotations

import random
from collections.abc import Sequence

from quorumlog.chaos.sim.channel import Channel
from quorumlog.chaos.sim.failures import Violation
from quorumlog.chaos.sim.members import SimMember
from quorumlog.chaos.sim.world import World
from quorumlog.proto import client_pb2 as pb

READ_SECONDS = 1.0
"""Between two questions, on average."""


class OffsetReader:
    """Asks for the committed offsets of a group again and again. Raises Violation.

    Args:
        everybody: all members that there ever were, of whatever group.
    """

    def __init__(self, world: World, group: str, everybody: Sequence[SimMember]) -> None:
        self.world = world
        self.group = group
        self.everybody = everybody
        self.rng = random.Random(world.rng.getrandbits(64))
        self.channel = Channel(world)
        self._coordinator = ""
        self._again()

    def _again(self) -> None:
        self.world.after(self.rng.expovariate(1.0 / READ_SECONDS), self._ask)

    def _acknowledged(self) -> dict[tuple[bytes, int], int]:
        known: dict[tuple[bytes, int], int] = {}
        for member in self.everybody:
            if member.member.group == self.group:
                for place, offset in member.committed.items():
                    known[place] = max(known.get(place, 0), offset)
        return known

    def _ask(self) -> None:
        known = self._acknowledged()
        request = pb.FetchOffsetsRequest(group=self.group)
        for topic_id, partition in known:
            request.partitions.add(topic_id=topic_id, partition=partition)
        self.world.count("operations")
        self.channel.ask(
            self._coordinator or self.channel.anyone(),
            lambda broker, reply: broker.groups.fetch_offsets(request, reply),
            lambda response: self._answered(response, known),
            self._lost,
        )

    def _answered(self, response: pb.FetchOffsetsResponse, known: dict[tuple[bytes, int], int]) -> None:
        self._coordinator = response.error.leader.address if response.HasField("error") else self._coordinator
        for told in response.offsets:
            place = told.partition.topic_id, told.partition.partition
            if not told.HasField("error") and told.offset < known.get(place, 0):
                what = f"{self.group} had committed {known[place]} of {place}, and {told.offset} is said to stand"
                raise Violation(f"seed {self.world.seed}: {what}")
        self._again()

    def _lost(self) -> None:
        self._coordinator = ""
        self._again()

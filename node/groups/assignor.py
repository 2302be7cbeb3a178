"""The server-side assignor: uniform first, sticky second. Pure and deterministic.

Uniform: no partition could move to a subscribed member that has at least two fewer, not even by a chain of moves; with
equal subscriptions all members are within one partition of each other. Sticky: everything that is not in the way of
that stays where it is.

The even state is reached as in semi-matching (Harvey, Ladner, Lovasz, Tamir, "Semi-matchings for bipartite graphs and
load balancing", 2003): an assignment is optimal exactly when no such chain is left. Members reach each other through
topics, not through single partitions, so a search visits each member and topic once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from quorumlog.node.groups.topics import TopicPartition


def assign(
    subscriptions: Mapping[str, Iterable[bytes]],
    partitions: Mapping[bytes, int],
    current: Mapping[str, Iterable[TopicPartition]],
) -> dict[str, tuple[TopicPartition, ...]]:
    """Return for each member, by id, the sorted partitions it shall own.

    `subscriptions`: member id to topic ids. `partitions`: topic id to partition count; topics that are missing here do
    not exist and are passed over. `current`: the assignment to stay close to; what it says of unknown members, topics
    that a member does not subscribe to, or partitions claimed twice (the first member id keeps it) is ignored. Every
    partition of a topic with a subscriber is assigned exactly once.
    """
    work = _Work(subscriptions, partitions, current)
    work.assign_free()
    while (chain := work.find_chain()) is not None:
        for topic_id, giver, taker in chain:
            work.move(topic_id, giver, taker)
    return work.result()


class _Work:
    """An assignment in the making: `held[member][topic]` are partition numbers, `kept` is what was there before."""

    def __init__(
        self,
        subscriptions: Mapping[str, Iterable[bytes]],
        partitions: Mapping[bytes, int],
        current: Mapping[str, Iterable[TopicPartition]],
    ) -> None:
        self.partitions = {topic_id: partitions[topic_id] for topic_id in sorted(partitions)}
        self.held: dict[str, dict[bytes, list[int]]] = {
            member_id: {topic_id: [] for topic_id in sorted(set(subscriptions[member_id])) if topic_id in partitions}
            for member_id in sorted(subscriptions)
        }
        self.subscribers: dict[bytes, list[str]] = {topic_id: [] for topic_id in self.partitions}
        for member_id, topics in self.held.items():
            for topic_id in topics:
                self.subscribers[topic_id].append(member_id)
        self.load = dict.fromkeys(self.held, 0)
        self.kept: set[tuple[str, TopicPartition]] = set()
        self.taken: set[TopicPartition] = set()
        for member_id, topics in self.held.items():
            for partition in sorted(current.get(member_id, ())):
                topic_id, number = partition
                if topic_id in topics and number < self.partitions[topic_id] and partition not in self.taken:
                    self.kept.add((member_id, partition))
                    self._give(member_id, partition)

    def _give(self, member_id: str, partition: TopicPartition) -> None:
        self.held[member_id][partition.topic_id].append(partition.partition)
        self.taken.add(partition)
        self.load[member_id] += 1

    def assign_free(self) -> None:
        """Give each partition that nobody has to the subscriber that has least."""
        for topic_id, count in self.partitions.items():
            subscribers = self.subscribers[topic_id]
            for number in range(count):
                partition = TopicPartition(topic_id, number)
                if subscribers and partition not in self.taken:
                    self._give(min(subscribers, key=lambda member_id: (self.load[member_id], member_id)), partition)

    def find_chain(self) -> list[tuple[bytes, str, str]] | None:
        """Return moves (topic, giver, taker) that take one partition from a member to one with at least two fewer."""
        for source in sorted(self.load, key=lambda member_id: (-self.load[member_id], member_id)):
            reached: dict[str, tuple[bytes, str]] = {}  # member -> the topic it would get a partition of, and from whom
            seen_topics: set[bytes] = set()
            queue = deque([source])
            while queue:
                giver = queue.popleft()
                for topic_id, numbers in self.held[giver].items():
                    if not numbers or topic_id in seen_topics:
                        continue
                    seen_topics.add(topic_id)
                    for taker in self.subscribers[topic_id]:
                        if taker != source and taker not in reached:
                            reached[taker] = (topic_id, giver)
                            queue.append(taker)
            if reached:
                sink = min(reached, key=lambda member_id: (self.load[member_id], member_id))
                if self.load[sink] <= self.load[source] - 2:
                    return _unwind(reached, source, sink)
        return None

    def move(self, topic_id: bytes, giver: str, taker: str) -> None:
        """Move a partition of the topic, rather one that the giver did not have before."""
        numbers = self.held[giver][topic_id]
        number = max(numbers, key=lambda number: ((giver, TopicPartition(topic_id, number)) not in self.kept, number))
        numbers.remove(number)
        self.held[taker][topic_id].append(number)
        self.load[giver] -= 1
        self.load[taker] += 1

    def result(self) -> dict[str, tuple[TopicPartition, ...]]:
        """Return the assignment."""
        return {
            member_id: tuple(
                sorted(TopicPartition(topic_id, number) for topic_id, numbers in topics.items() for number in numbers)
            )
            for member_id, topics in self.held.items()
        }


def _unwind(reached: Mapping[str, tuple[bytes, str]], source: str, sink: str) -> list[tuple[bytes, str, str]]:
    chain = []
    taker = sink
    while taker != source:
        topic_id, giver = reached[taker]
        chain.append((topic_id, giver, taker))
        taker = giver
    return chain

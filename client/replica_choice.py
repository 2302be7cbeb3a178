"""Which replica a partition is read from where any of them may answer. A plain class: no network, no clock."""

import random

from quorumlog.metadata import MetadataCache
from quorumlog.records import TopicPartition


class ReplicaChoice:
    """One replica per partition, kept until it turns the reader away.

    A replica on the reader's own host comes before others, one that is believed to be up before one that is down, and
    chance spreads the rest. A replica that turned the reader away is asked again only after all others have.

    Args:
        cache: who has a replica of what.
        host: name of the reader's machine, as nodes give theirs; empty: not known.
        rng: the choice among equals.
    """

    def __init__(self, cache: MetadataCache, host: str, rng: random.Random) -> None:
        self._cache = cache
        self._host = host
        self._rng = rng
        self._chosen: dict[TopicPartition, str] = {}
        self._turned_away: dict[TopicPartition, dict[str, int]] = {}
        self._turns = 0

    def address(self, tp: TopicPartition) -> str | None:
        """Return whom to ask for a partition; None where no replica is known."""
        nodes = self._cache.replicas(tp.topic, tp.partition)
        chosen = self._chosen.get(tp)
        if chosen is not None and any(node.address == chosen for node in nodes):
            return chosen
        if not nodes:
            return None
        turned_away = self._turned_away.get(tp, {})
        rank = {
            node.address: (turned_away.get(node.address, 0), not node.up, not self._host or node.host != self._host)
            for node in nodes
        }
        best = min(rank.values())
        self._chosen[tp] = self._rng.choice([address for address, its in rank.items() if its == best])
        return self._chosen[tp]

    def turn_from(self, tp: TopicPartition, address: str) -> bool:
        """Leave the replica that did not give what was asked; returns whether there is another one that was not tried
        since the last success."""
        self._turns += 1
        turned_away = self._turned_away.setdefault(tp, {})
        turned_away[address] = self._turns
        if self._chosen.get(tp) == address:
            del self._chosen[tp]
        return any(node.address not in turned_away for node in self._cache.replicas(tp.topic, tp.partition))

    def turn_from_node(self, address: str) -> None:
        """Leave a node that does not answer, for all that was to be read from it."""
        for tp in [tp for tp, chosen in self._chosen.items() if chosen == address]:
            self.turn_from(tp, address)

    def served(self, tp: TopicPartition) -> None:
        """The partition was read: what others refused before says nothing any more."""
        self._turned_away.pop(tp, None)

    def forget(self, tp: TopicPartition) -> None:
        """The partition is not read any more."""
        self._chosen.pop(tp, None)
        self._turned_away.pop(tp, None)

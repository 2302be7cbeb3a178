"""Which partition a record goes to.

With a key: Kafka's default, `toPositive(murmur2(key)) % partitions`, so that a record with the same key lands where a
Java client would put it. Without: one partition for as long as its batch is open, then another one at random
(KIP-480, KIP-794): few full batches instead of many small ones, and uniform over time.
"""

import random

from quorumlog.proto.murmur2 import partition_for_key


class StickyPartitioner:
    """The partitions of one topic.

    Args:
        count: number of partitions, at least 1.
        rng: chooses where records without a key go.
    """

    __slots__ = ("_known", "_rng", "count", "sticky")

    # A hash in Python costs microseconds and keys repeat: remember some.
    _KNOWN_MAX = 8192

    def __init__(self, count: int, rng: random.Random) -> None:
        assert count >= 1
        self.count = count
        self._rng = rng
        self._known: dict[bytes, int] = {}
        self.sticky = rng.randrange(count)

    def for_key(self, key: bytes) -> int:
        """Return the partition of `key`."""
        partition = self._known.get(key)
        if partition is None:
            partition = partition_for_key(key, self.count)
            if len(self._known) >= self._KNOWN_MAX:
                self._known.clear()
            self._known[key] = partition
        return partition

    def turn(self) -> int:
        """Move on to another partition for records without a key, and return it."""
        if self.count > 1:
            step = self._rng.randrange(1, self.count)
            self.sticky = (self.sticky + step) % self.count
        return self.sticky

"""Random clusters of the core under seeds drawn now: `python -m tests.mutants.random_cores SECONDS
[SEED]`. Exit code 1 when a promise was broken.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from random import SystemRandom

from quorumlog.raft import Message
from tests.raft.memory_shell import Shell
from tests.raft.random_cluster import Frame, RandomCluster

STEPS = 3000
REPLAYED = 0.1
"""Of what arrives where the network is not in order: messages of any age, of the sessions that still last."""

HANDED_OVER = 0.05
CLOCK_CHANGED = 0.01
"""Of the ticks."""

SLOW_RATE = 0.1
"""Of the clock that is slow."""


class ReplayingCluster(RandomCluster):
    """Its network may bring again whatever was ever sent, however long ago. Its leaders hand over all the time, all that
    believe to lead are read from, and the clock of one node all but stands still.
    """

    def __init__(self, seed: int) -> None:
        self.sent: list[Frame] = []
        self.slow = 0
        super().__init__(seed)

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

    def read(self, shell: Shell) -> None:
        """Whoever believes to lead is asked."""
        for one in list(self.shells.values()):
            if one.node.is_leader:
                context = len(self.checks.reads) + 1
                self.checks.reads[context] = self.checks.last_committed
                one.node.read_index(context)

    def tick(self, shell: Shell) -> None:
        if not self.healed and self.rng.random() < HANDED_OVER:
            self.transfer(shell)
        if self.rng.random() < CLOCK_CHANGED:
            self.slow = self.rng.choice((0, *self.shells))
        if self.healed or shell.node_id != self.slow or self.rng.random() < SLOW_RATE:
            super().tick(shell)


def main() -> int:
    ends = time.monotonic() + float(sys.argv[1])
    first = seed = int(sys.argv[2]) if len(sys.argv) > 2 else SystemRandom().randrange(1 << 40)
    print(f"first seed {first}")
    while True:
        try:
            cluster = (RandomCluster if seed % 2 else ReplayingCluster)(seed)
            cluster.run(STEPS)
            cluster.recover()
        except Exception as error:  # noqa: BLE001 # whatever it is, it is what the seed has found
            traceback.print_exc(limit=-4, file=sys.stdout)
            print(f"{seed - first + 1} seeds, seed {seed}: {type(error).__name__}: {error}")
            return 1
        seed += 1
        if time.monotonic() >= ends:
            print(f"{seed - first} seeds from {first} on: nothing")
            return 0


if __name__ == "__main__":
    sys.exit(main())

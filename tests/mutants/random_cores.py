"""Random clusters of the core under seeds drawn now: `python -m tests.mutants.random_cores SECONDS`. Exit code 1 when
a promise was broken.
"""

from __future__ import annotations

import sys
import time
import traceback
from random import SystemRandom

from tests.raft.random_cluster import RandomCluster

STEPS = 3000


def main() -> int:
    ends = time.monotonic() + float(sys.argv[1])
    first = seed = SystemRandom().randrange(1 << 40)
    while True:
        try:
            cluster = RandomCluster(seed)
            cluster.run(STEPS)
            cluster.recover()
        except Exception as error:  # noqa: BLE001 # whatever it is, it is what the seed has found
            traceback.print_exc(limit=-4, file=sys.stdout)
            print(f"{seed - first + 1} seeds, QUORUMLOG_RAFT_SEED={seed}: {type(error).__name__}: {error}")
            return 1
        seed += 1
        if time.monotonic() >= ends:
            print(f"{seed - first} seeds from {first} on: nothing")
            return 0


if __name__ == "__main__":
    sys.exit(main())

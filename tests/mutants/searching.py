"""Seed after seed, from one drawn now, until something is found or the time is over."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from random import SystemRandom


def search(run: Callable[[int], None]) -> int:
    """Run seeds for as many seconds as the command line says, from its second word on or from a drawn one. Returns 1
    when one of them raised.
    """
    ends = time.monotonic() + float(sys.argv[1])
    first = seed = int(sys.argv[2]) if len(sys.argv) > 2 else SystemRandom().randrange(1 << 40)
    print(f"first seed {first}")
    while True:
        try:
            run(seed)
        except Exception as error:  # noqa: BLE001 # whatever it is, it is what the seed has found
            traceback.print_exc(limit=-4, file=sys.stdout)
            print(f"{seed - first + 1} seeds, seed {seed}: {type(error).__name__}: {error}")
            return 1
        seed += 1
        if time.monotonic() >= ends:
            print(f"{seed - first} seeds from {first} on: nothing")
            return 0

"""How long to wait before trying again."""

import random

BASE_SECONDS = 0.02
CAP_SECONDS = 1.0


def full_jitter(failures: int, rng: random.Random, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS) -> float:
    """Return seconds to wait after `failures` (at least 1) failures in a row.

    "Full jitter": uniform between 0 and an exponential bound, so that clients which failed together do not come back
    together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """
    assert failures >= 1
    bound = min(cap, base * 2.0 ** min(failures - 1, 30))
    return rng.uniform(0.0, bound)

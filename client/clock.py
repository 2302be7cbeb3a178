"""The client's time: the only module of `quorumlog` (the client) that asks the machine for it.

The cores take `now` as an argument, so that tests can let minutes pass without waiting for them.
"""

import time


def monotonic() -> float:
    """Return monotonic seconds; only differences mean something."""
    return time.monotonic()


def wall_seconds() -> float:
    """Return seconds since 1970-01-01 UTC. It may jump either way: for timestamps, never for waiting."""
    return time.time()


def wall_ms() -> int:
    """Return milliseconds since 1970-01-01 UTC, as `wall_seconds`."""
    return time.time_ns() // 1_000_000


def sleep(seconds: float) -> None:
    """Wait; for commands alone, which have nothing else to do."""
    time.sleep(seconds)

"""The time that a run costs: the only place of the simulator that asks the machine."""

from __future__ import annotations

import time


def seconds() -> float:
    """Seconds that pass outside, from any beginning."""
    return time.monotonic()


def cpu_seconds() -> float:
    """Seconds for which this process has had a processor."""
    return time.process_time()

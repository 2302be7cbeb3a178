"""What a measurement is made of, without clocks and clusters."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from quorumlog.descriptions import NodeStatus

POOL_RECORDS = 100_000
POOL_BYTES_MAX = 64 << 20
LIST_RECORDS = 10_000


@dataclass(frozen=True, slots=True)
class Settings:
    """What is measured. `own_nodes` 0: a cluster that was there before."""

    workload: str
    seconds: float
    partitions: int
    replicas: int
    size_bytes: int
    api: str | None
    buffer_memory_bytes: int
    seed: int
    own_nodes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a workload measured: records, the seconds they took, and latencies in seconds, where it has any."""

    records: int
    seconds: float
    latencies: Sequence[float]
    details: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """A measurement with all that is needed to repeat it."""

    settings: Settings
    figures: Figures
    syncs_per_second: Mapping[int, float]
    environment: Mapping[str, object]

    def as_json(self) -> dict[str, object]:
        """Return it with stable keys; latencies are null for workloads that have none."""
        figures = self.figures
        rate = figures.records / figures.seconds if figures.seconds else 0.0
        ordered = sorted(figures.latencies)
        return {
            "workload": self.settings.workload,
            "records": figures.records,
            "seconds": round(figures.seconds, 3),
            "records_per_second": round(rate, 1),
            "megabytes_per_second": round(rate * self.settings.size_bytes / 1e6, 2),
            "latency_p50_ms": _milliseconds(ordered, 0.5),
            "latency_p99_ms": _milliseconds(ordered, 0.99),
            "latency_max_ms": _milliseconds(ordered, 1.0),
            "syncs_per_second": {str(node): round(rate, 1) for node, rate in self.syncs_per_second.items()},
            "settings": {**asdict(self.settings), **figures.details, **self.environment},
        }


def _milliseconds(ordered: Sequence[float], share: float) -> float | None:
    return round(percentile(ordered, share) * 1000, 3) if ordered else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed; `ordered` is not empty."""
    assert ordered, "no value, no percentile"
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def syncs_per_second(before: Sequence[NodeStatus], after: Sequence[NodeStatus]) -> dict[int, float]:
    """Return, per node, syncs over uptime between two statuses; nodes that were not there throughout are left out."""
    first = {node.node_id: node.storage for node in before if node.storage is not None}
    rates = {}
    for node in after:
        begin, end = first.get(node.node_id), node.storage
        if begin is not None and end is not None and end.uptime_seconds > begin.uptime_seconds:
            rates[node.node_id] = (end.syncs - begin.syncs) / (end.uptime_seconds - begin.uptime_seconds)
    return rates


def payload_lists(settings: Settings) -> list[list[bytes]]:
    """Return lists of random values of `size_bytes` each, to be sent over and over."""
    rng = random.Random(settings.seed)
    size = settings.size_bytes
    count = max(1, min(POOL_RECORDS, POOL_BYTES_MAX // max(size, 1)))
    data = rng.randbytes(count * size)
    values = [data[start * size : (start + 1) * size] for start in range(count)]
    at_once = max(1, min(LIST_RECORDS, settings.buffer_memory_bytes // (4 * max(size, 1))))
    return [values[start : start + at_once] for start in range(0, count, at_once)]


def cycle_lists(lists: Sequence[list[bytes]]) -> Iterator[list[bytes]]:
    """Return the lists one after the other, without end."""
    while True:
        yield from lists

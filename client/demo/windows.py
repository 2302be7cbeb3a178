"""What a member makes of the samples it is given: usage per process and window."""

from dataclasses import dataclass

from quorumlog.demo.samples import Sample

WINDOW_SECONDS = 2.0
LATE_WINDOWS = 2
"""So many windows stay open for samples that come late, as they do while a partition has no leader."""


@dataclass(slots=True)
class Usage:
    """One process in one window: its first and its last CPU reading, and its memory."""

    name: str
    first_seconds: float
    last_seconds: float
    resident_bytes: int
    samples: int

    def cpu_percent(self) -> float:
        """Return the share of a core that it used."""
        return 100 * (self.last_seconds - self.first_seconds) / WINDOW_SECONDS


class Windows:
    """Open windows of one member, by time of the samples."""

    def __init__(self) -> None:
        self._windows: dict[int, dict[int, Usage]] = {}

    def add(self, timestamp: float, sample: Sample) -> None:
        """Count a sample taken at `timestamp`, in seconds."""
        window = self._windows.setdefault(int(timestamp // WINDOW_SECONDS), {})
        usage = window.get(sample.pid)
        if usage is None:
            window[sample.pid] = Usage(sample.name, sample.cpu_seconds, sample.cpu_seconds, sample.resident_bytes, 1)
            return
        usage.first_seconds = min(usage.first_seconds, sample.cpu_seconds)
        usage.last_seconds = max(usage.last_seconds, sample.cpu_seconds)
        usage.resident_bytes = sample.resident_bytes
        usage.samples += 1

    def closed(self) -> dict[int, Usage]:
        """Return the newest window that is over, by pid; empty if there is none. Those before the late ones go."""
        numbers = sorted(self._windows)
        for old in numbers[: -1 - LATE_WINDOWS]:
            del self._windows[old]
        return self._windows[numbers[-2]] if len(numbers) > 1 else {}

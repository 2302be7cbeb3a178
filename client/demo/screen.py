"""What the demo shows: events line by line, and a small table that is redrawn below them where there is a terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from quorumlog.cli.output import Cell, size, table
from quorumlog.clock import monotonic

LIVE_SECONDS = 0.5
SPARSE_SECONDS = 4.0
"""Between two redraws of the table, and between two lines where there is no terminal."""
TOP = 5


class Screen:
    """Standard output. On a terminal the table is live; elsewhere a line now and then says how far it is."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._begin = monotonic()
        self._drawn: list[str] = []
        self._next_update = 0.0
        self._rate_at = self._begin
        self._rate_acked = 0
        self._rate = 0.0

    def event(self, text: str) -> None:
        """Show something that happened."""
        self._erase()
        print(f"[{monotonic() - self._begin:5.1f} s] {text}", flush=True)
        self._draw(self._drawn)

    def line(self, text: str) -> None:
        """Print a line of the result, after the table is gone."""
        self._erase()
        self._drawn = []
        print(text, flush=True)

    def update(self, producers: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]]) -> None:
        """Show how far everybody is; both are the last reports."""
        now = monotonic()
        acked = sum(report.get("acked", 0) for report in producers)
        consumed = sum(report.get("consumed", 0) for report in members)
        if now - self._rate_at >= 1:
            self._rate = (acked - self._rate_acked) / (now - self._rate_at)
            self._rate_at, self._rate_acked = now, acked
        if now < self._next_update:
            return
        self._next_update = now + (LIVE_SECONDS if self._live else SPARSE_SECONDS)
        summary = f"{acked} records acknowledged, {self._rate:.0f}/s, {consumed} consumed"
        if self._live:
            self._erase()
            self._draw([summary, "", *_members(members), "", *_processes(members)])
        else:
            self.event(summary + _busiest(members))

    def _draw(self, lines: list[str]) -> None:
        self._drawn = lines
        if self._live and lines:
            print("\n".join(lines), flush=True)

    def _erase(self) -> None:
        if self._live and self._drawn:
            sys.stdout.write(f"\x1b[{len(self._drawn)}A\x1b[J")


def _members(members: Sequence[Mapping[str, Any]]) -> list[str]:
    rows: list[tuple[Cell, ...]] = [
        (report["member"], " ".join(map(str, report["partitions"])), report["consumed"]) for report in members if report
    ]
    return table(("member", "partitions", "records"), rows).splitlines()


def _top(members: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Return the busiest processes of the last window: each is one member's, because records are keyed by process."""
    found = [entry for report in members if report.get("partitions") for entry in report["top"]]
    return sorted(found, key=lambda entry: -entry[2])[:TOP]


def _processes(members: Sequence[Mapping[str, Any]]) -> list[str]:
    rows: list[tuple[Cell, ...]] = [
        (pid, name, float(cpu), size(resident), samples) for pid, name, cpu, resident, samples in _top(members)
    ]
    return table(("pid", "process", "cpu %", "memory", "samples"), rows).splitlines()


def _busiest(members: Sequence[Mapping[str, Any]]) -> str:
    top = _top(members)
    return f"; busiest process: {top[0][1]} ({top[0][0]}) at {top[0][2]:.0f} % of a core" if top else ""

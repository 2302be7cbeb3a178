"""What commands print: tables for people, JSON for programs, progress for whoever watches."""

import json
import sys
from collections.abc import Mapping, Sequence

from quorumlog.clock import monotonic

Cell = str | int | float | None

PROGRESS_SECONDS = 0.2


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return aligned columns, numbers to the right; None is a dash."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[column]) for row in cells)]) for column, name in enumerate(header)]
    right = [
        bool(rows) and all(row[column] is None or isinstance(row[column], int | float) for row in rows)
        for column in range(len(header))
    ]
    lines = []
    for line in ([name.upper() for name in header], *cells):
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _text(cell: Cell) -> str:
    if cell is None or cell == "":
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print aligned columns."""
    print(table(header, rows))


def print_json(value: object) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def size(size_bytes: int) -> str:
    """Return a number of bytes for people."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


class Progress:
    """A line on standard error that is written over and over; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        self._dirty = False

    def show(self, text: str) -> None:
        """Show `text` now, unless another one was shown just before."""
        if not self._shown:
            return
        now = monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            self._dirty = True
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._dirty:
            self._dirty = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def as_text(data: bytes) -> str | None:
    """Return UTF-8 as text; None where it is something else."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def plain(configs: Mapping[str, str]) -> str:
    """Return configurations on one line."""
    return " ".join(f"{key}={value}" for key, value in sorted(configs.items()))

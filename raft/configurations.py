"""Which configuration is in force where in the log: the one that the last CONFIGURATION entry holds, committed or not.

A configuration is in force from the moment its entry stands in the log (Raft section 6), and no more once that entry is
truncated. So the log's entries of that kind are remembered, back to the one in force at the beginning of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from quorumlog.raft.types import Configuration, LogIndex


class ConfigurationRow(NamedTuple):
    """`configuration` is in force from the entry at `index` (inclusive) to the next row."""

    index: LogIndex  # type: ignore[assignment]  # nobody looks for an element of a row
    configuration: Configuration


class Configurations:
    """The configurations of one log.

    Invariants: there is always a row; indexes rise; the first row is in force at the first entry of the log.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[ConfigurationRow]) -> None:
        assert rows, "a group has a configuration, if only an empty one"
        assert all(one.index < later.index for one, later in pairwise(rows)), f"indexes rise: {rows}"
        self._rows = list(rows)

    @property
    def rows(self) -> tuple[ConfigurationRow, ...]:
        """All that is remembered, oldest first."""
        return tuple(self._rows)

    @property
    def latest(self) -> Configuration:
        """The configuration in force now."""
        return self._rows[-1].configuration

    @property
    def latest_index(self) -> LogIndex:
        """The entry that holds it; 0 or an index before the log for the first one."""
        return self._rows[-1].index

    def at(self, index: LogIndex) -> Configuration:
        """The configuration in force at `index`, which must not lie before the log."""
        place = bisect_right(self._rows, index, key=lambda row: row.index)
        return self._rows[max(place - 1, 0)].configuration

    def append(self, index: LogIndex, configuration: Configuration) -> None:
        """The entry at `index`, behind all others, holds `configuration`."""
        assert index > self.latest_index, f"configuration at {index} behind {self.latest_index}"
        self._rows.append(ConfigurationRow(index, configuration))

    def truncate(self, since: LogIndex) -> bool:
        """Entries from `since` (inclusive) are gone. Tells whether another configuration is in force now."""
        keep = bisect_right(self._rows, since - 1, key=lambda row: row.index)
        assert keep, f"the configuration in force at the beginning of the log would be truncated at {since}"
        changed = keep < len(self._rows)
        del self._rows[keep:]
        return changed

    def compact(self, upto: LogIndex) -> bool:
        """Entries through `upto` (inclusive) are gone; which configuration was in force there stays known. Tells
        whether rows went.
        """
        drop = bisect_right(self._rows, upto, key=lambda row: row.index) - 1
        if drop <= 0:
            return False
        del self._rows[:drop]
        return True

    def reset(self, index: LogIndex, configuration: Configuration) -> None:
        """The log begins behind `index` now, where `configuration` is in force."""
        self._rows = [ConfigurationRow(index, configuration)]

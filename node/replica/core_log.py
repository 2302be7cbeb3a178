"""A group's log as the Raft core sees it: an entry that is damaged counts as not in memory yet."""

from __future__ import annotations

from collections.abc import Sequence

from quorumlog.node.errors import EntryDamaged
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.raft import Entry, LogIndex


class CoreLog:
    """Implements `quorumlog.raft.LogReader`. Damage that the core meets is noted in the log, for somebody to mend
    it.
    """

    __slots__ = ("_log", "first_index", "last_index", "term")

    def __init__(self, log: GroupLog) -> None:
        self._log = log
        # The core asks for terms all the time, so these are the log's own methods.
        self.first_index = log.first_index
        self.last_index = log.last_index
        self.term = log.term

    def entries(self, first: LogIndex, last: LogIndex, size_bytes_max: int) -> Sequence[Entry] | None:
        """Entries as LogReader wants them; None until the first of them is mended."""
        try:
            return self._log.entries(first, last, size_bytes_max)
        except EntryDamaged as damage:
            self._log.note_damage(LogIndex(damage.index))
            return None

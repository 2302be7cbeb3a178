"""The end of a leader's log: where the next entry goes, and the entries that the Raft core appends by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quorumlog.node.storage.configurations import to_configuration, to_stored
from quorumlog.node.storage.entry import EntryHeader, decode_header, encode_entry, payload_of
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.proto import internal_pb2
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import Configuration, Entry, EntryKind, LogIndex, Term


class LeaderTail:
    """Stamps entries of one group with offset and time; implements `quorumlog.raft.EntryCodec`.

    Args:
        last_entry: the entry at an index, if the core has it at hand.
    """

    def __init__(self, log: GroupLog, last_entry: Callable[[LogIndex], Sequence[Entry] | None]) -> None:
        self._log = log
        self._last_entry = last_entry
        self.offset = 0
        """Of the next record; like `time_ms`, true on a leader only."""
        self.time_ms = 0
        """Append time of the last entry."""
        self.wall_ms = 0
        """The clock as it was last seen."""
        self.noop_index = LogIndex(0)
        """The first entry of the term led last."""

    def make(
        self, kind: EntryKind, index: LogIndex, term: Term, payload: bytes, *, count: int = 0, crc: int | None = None
    ) -> tuple[EntryHeader, bytes]:
        """The entry that will be appended at `index`, behind everything else. Call `appended` once it is."""
        crc = crc32c(payload) if crc is None else crc
        group_id, offset, time_ms = self._log.group_id, self.offset, max(self.wall_ms, self.time_ms)
        header = EntryHeader(kind, group_id, index, term, offset, count, time_ms, crc, len(payload))
        return header, encode_entry(kind, group_id, index, term, offset, count, time_ms, payload, crc)

    def appended(self, header: EntryHeader) -> None:
        """The entry stands in the log. Along a log time never goes back, whatever the leaders' clocks say."""
        self.offset, self.time_ms = header.next_offset, header.append_time_ms

    # EntryCodec

    def noop(self, index: LogIndex, term: Term) -> bytes:
        """The first entry of a term. What stands before it says at which offset the log goes on, and at what time."""
        self.noop_index = index
        last = self._last_entry(LogIndex(index - 1))
        if last:
            self.appended(decode_header(last[0].data))
        else:
            self.offset, self.time_ms = self._log.log_end_offset, self._log.last_append_time_ms
        header, data = self.make(EntryKind.NOOP, index, term, b"")
        self.appended(header)
        return data

    def configuration(self, index: LogIndex, term: Term, configuration: Configuration) -> bytes:
        """An entry that holds who votes."""
        payload = to_stored(configuration).SerializeToString(deterministic=True)
        header, data = self.make(EntryKind.CONFIGURATION, index, term, payload)
        self.appended(header)
        return data

    def read_configuration(self, entry: Entry) -> Configuration:
        """Who votes, by an entry of this or another replica."""
        return to_configuration(internal_pb2.GroupConfiguration.FromString(payload_of(entry.data)))

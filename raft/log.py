"""The log of one replica: what the shell holds, and behind it what no `Ready` has handed out yet."""

from __future__ import annotations

from collections.abc import Sequence

from quorumlog.raft.errors import InvariantViolation
from quorumlog.raft.ready import Persisted
from quorumlog.raft.types import Entry, EntryKind, LogIndex, LogReader, Term


class RaftLog:
    """Entries `first_index .. last_index`; those from `pending_first` on are still here, the others are the shell's.

    Invariants: `first_index - 1 <= last_index`; `stable_index <= last_index`; `pending` is exactly
    `pending_first .. last_index`; all entries in `run_first .. last_index` have `last_term`.

    `stable_index` never counts an entry of a write that a later truncation has undone: each truncation is remembered
    with the number of the Ready that carries it until that Ready is durable, and a completion of an earlier Ready
    counts only below it; a snapshot truncates everything. Comparing index and term alone would not do: an entry may be
    cut and then come back, the same to look at, while the disk still holds what stood there between.
    """

    __slots__ = (
        "_frozen", "_install_term", "_reader", "_truncations", "first_index", "install", "last_index", "last_term",
        "pending", "pending_first", "pending_size_bytes", "run_first", "stable_index", "truncate_since",
    )  # fmt: skip

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self.first_index = reader.first_index()
        self.last_index = reader.last_index()
        if not 1 <= self.first_index <= self.last_index + 1:
            raise InvariantViolation(f"the log spans {self.first_index} to {self.last_index}")
        self.stable_index = self.last_index
        self.pending: list[Entry] = []
        self.pending_first = LogIndex(self.last_index + 1)
        self.pending_size_bytes = 0
        self.install: LogIndex | None = None
        self._install_term = Term(0)
        self.truncate_since: LogIndex | None = None
        self._truncations: list[tuple[int, LogIndex]] = []
        self._frozen: tuple[Entry, ...] | None = None
        self.run_first = LogIndex(self.last_index + 1)  # nothing is known yet: term() must ask the reader
        self.last_term = Term(0)
        self.last_term = self.term(self.last_index)
        self.run_first = self.last_index

    def term(self, index: LogIndex) -> Term:
        """Term of the entry at `index`, for `first_index - 1 <= index <= last_index`."""
        if index >= self.run_first:
            assert index <= self.last_index, f"term of {index}, beyond the last entry {self.last_index}"
            return self.last_term
        if index >= self.pending_first:
            return self.pending[index - self.pending_first].term
        if index == self.install:
            return self._install_term  # the reader has not heard of the snapshot yet
        if index == 0:
            return Term(0)
        assert index >= self.first_index - 1, f"term of {index}, compacted away (first is {self.first_index})"
        term = self._reader.term(index)
        if term is None:
            raise InvariantViolation(f"the shell lost the term of entry {index} (first is {self.first_index})")
        return term

    def holds(self, index: LogIndex, term: Term) -> bool:
        """Whether the entry at `index` is here (or directly before the first one) and has `term`."""
        return self.first_index - 1 <= index <= self.last_index and self.term(index) == term

    def append(self, entries: Sequence[Entry]) -> bool:
        """Adds entries behind the last one. They must be consecutive, with terms that never fall.

        Tells whether one of them holds a configuration.
        """
        first = entries[0]
        assert first.index == self.last_index + 1, f"append at {first.index} behind {self.last_index}"
        self.pending.extend(entries)
        self._frozen = None
        size_bytes = 0
        configures = False
        for entry in entries:
            size_bytes += len(entry.data)
            if entry.kind is EntryKind.CONFIGURATION:
                configures = True
            if entry.term != self.last_term:
                assert entry.term > self.last_term, f"term falls to {entry.term} at {entry.index}"
                self.last_term = entry.term
                self.run_first = entry.index
        self.pending_size_bytes += size_bytes
        self.last_index = entries[-1].index
        return configures

    def begin_behind(self, index: LogIndex, term: Term) -> None:
        """Replaces everything by a log that begins behind the entry at `index` of `term`: a snapshot stands for it."""
        self.install, self._install_term = index, term
        self.truncate_since = None
        self.pending.clear()
        self._frozen = None
        self.pending_size_bytes = 0
        self.first_index = self.pending_first = LogIndex(index + 1)
        self.last_index = self.run_first = index
        self.last_term = term
        self.stable_index = LogIndex(0)

    def truncate(self, since: LogIndex) -> None:
        """Drops the suffix from `since` (inclusive), which must hold at least one entry."""
        assert self.first_index <= since <= self.last_index, f"truncate since {since}, beyond {self.last_index}"
        keep = LogIndex(since - 1)
        if keep < self.run_first:
            term = self.term(keep)
            self.run_first, self.last_term = keep, term
        if since < self.pending_first:
            self.truncate_since = since  # lower than any earlier one, which has set pending_first
            self.pending_first = since
            self.pending.clear()
        else:
            del self.pending[since - self.pending_first :]
        self._frozen = None
        self.pending_size_bytes = sum(len(entry.data) for entry in self.pending)
        self.last_index = keep
        self.stable_index = min(self.stable_index, keep)

    def slice(self, first: LogIndex, size_bytes_max: int) -> tuple[tuple[Entry, ...], int] | None:
        """Entries from `first` (inclusive) with their size: as many as fit, at least one.

        None when the shell has to fetch them. `first <= last_index`. May stop at the border to what is pending.
        """
        if first < self.pending_first:
            last = LogIndex(self.pending_first - 1)
            stored = self._reader.entries(first, last, size_bytes_max)
            if stored is None:
                return None
            entries = tuple(stored)
            if not entries or entries[0].index != first:
                raise InvariantViolation(f"the shell answered {len(entries)} entries for {first} to {last}")
            return entries, sum([len(entry.data) for entry in entries])
        pending = self.frozen()
        skip = first - self.pending_first
        if skip == 0 and self.pending_size_bytes <= size_bytes_max:
            return pending, self.pending_size_bytes
        stop = skip
        size_bytes = 0
        for entry in pending[skip:]:
            if stop > skip and size_bytes + len(entry.data) > size_bytes_max:
                break
            size_bytes += len(entry.data)
            stop += 1
        return pending[skip:stop], size_bytes

    def frozen(self) -> tuple[Entry, ...]:
        """The pending entries as one tuple, which the Ready and all messages share."""
        if self._frozen is None:
            self._frozen = tuple(self.pending)
        return self._frozen

    def handed_out(self, number: int) -> None:
        """Ready `number` carries the pending entries and truncation; they are the shell's from here on."""
        if self.install is not None:
            self._truncations.append((number, LogIndex(1)))
            self.install = None
        elif self.truncate_since is not None:
            self._truncations.append((number, self.truncate_since))
        self.truncate_since = None
        self.pending.clear()
        self._frozen = None
        self.pending_size_bytes = 0
        self.pending_first = LogIndex(self.last_index + 1)

    def on_persisted(self, persisted: Persisted) -> None:
        """Moves `stable_index`: everything of Ready `persisted.number` and before it is durable."""
        bound = persisted.index
        if self._truncations:
            self._truncations = [cut for cut in self._truncations if cut[0] > persisted.number]
            for _, since in self._truncations:
                bound = min(bound, LogIndex(since - 1))
        if self.install is not None:
            return
        if self.truncate_since is not None:
            bound = min(bound, LogIndex(self.truncate_since - 1))
        if bound > self.stable_index:
            if bound > self.last_index:
                raise InvariantViolation(f"entry {bound} is said to be durable, the last one is {self.last_index}")
            if bound == persisted.index and bound >= self.first_index - 1 and self.term(bound) != persisted.entry_term:
                raise InvariantViolation(f"entry {bound} of term {persisted.entry_term} was replaced unnoticed")
            self.stable_index = bound

    def compact(self, upto: LogIndex) -> None:
        """Drops the prefix through `upto` (inclusive). The term of `upto` itself stays readable."""
        if upto >= self.first_index:
            self.first_index = LogIndex(upto + 1)

    def last_at_or_below_term(self, upto: LogIndex, term: Term) -> LogIndex:
        """The last index at or below `upto` whose entry has `term` or a lower one.

        Terms never fall along a log, so this is a binary search. When even the entry directly before the first has a
        higher term, the answer is the index before that: a match, if any, lies in the compacted prefix.
        """
        low, high = self.first_index - 1, int(min(upto, self.last_index))
        if high < low:
            return LogIndex(max(high, 0))
        if self.term(LogIndex(low)) > term:
            return LogIndex(max(low - 1, 0))
        while low < high:
            middle = (low + high + 1) // 2
            if self.term(LogIndex(middle)) <= term:
                low = middle
            else:
                high = middle - 1
        return LogIndex(low)

    def is_up_to_date(self, index: LogIndex, term: Term) -> bool:
        """Whether a log that ends with (`index`, `term`) is at least as complete as this one (Raft section 5.4.1)."""
        return (term, index) >= (self.last_term, self.last_index)

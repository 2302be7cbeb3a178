"""What the core asks of its shell: one immutable `Ready` per turn."""

from __future__ import annotations

from dataclasses import dataclass

from quorumlog.raft.configurations import ConfigurationRow
from quorumlog.raft.types import Entry, HardState, LogIndex, Message, NodeId, Term


@dataclass(frozen=True, slots=True)
class Persisted:
    """Names one `Ready`, so that the shell can say it is durable. Opaque to the shell: hand it back as it came.

    `number` orders the Readys of one `RawNode`. It is what makes a late completion safe: an entry that was truncated
    and later written again with the same index and the same term looks the same but is not the one that was synced.
    """

    hard_term: Term
    entry_term: Term
    index: LogIndex
    number: int


@dataclass(frozen=True, slots=True)
class ReadState:
    """A confirmed read: `context` may be answered from a state that has applied `index` (inclusive) or more."""

    context: int
    index: LogIndex


@dataclass(frozen=True, slots=True)
class Ready:
    """The work of one turn. The order of the duties is told in the package docstring."""

    hard_state: HardState | None
    """To be made durable; None when unchanged."""

    install: LogIndex | None
    """Replace the log and the state by the snapshot at this index, whose SNAPSHOT message was stepped: the log begins
    behind it. Before `entries`, and in one atomic write with everything else here; None when there is nothing to
    install.
    """

    truncate_since: LogIndex | None
    """Drop the suffix from this index (inclusive) before writing `entries`; None when nothing is dropped."""

    entries: tuple[Entry, ...]
    """To be written, consecutive; readable through `LogReader` before the next call into the core."""

    configurations: tuple[ConfigurationRow, ...] | None
    """To be written with the rest: which configurations the log holds now; None when unchanged."""

    repaired: bool
    """This replica remembers everything again: write that down with the rest. It counts once that is durable."""

    snapshots_wanted: tuple[NodeId, ...]
    """Peers whose next entries are compacted away: send them a snapshot (`RawNode.progress` tells when it has
    helped).
    """

    messages: tuple[Message, ...]
    """May leave at once, in this order."""

    messages_after_sync: tuple[Message, ...]
    """May leave, in this order, once this Ready and every earlier one is durable."""

    commit_index: LogIndex
    """Everything through here (inclusive) may be applied, from the shell's own log."""

    read_states: tuple[ReadState, ...]
    """Reads confirmed by a quorum."""

    reads_lost: tuple[int, ...]
    """Contexts of reads that will never be confirmed, because leadership was lost."""

    must_sync: bool
    """This Ready has something to make durable (`hard_state`, `install`, `truncate_since`, `entries`, `configurations`
    or `repaired`)."""

    persisted: Persisted
    """What to hand to `RawNode.on_persisted` once this Ready and every earlier one is durable."""

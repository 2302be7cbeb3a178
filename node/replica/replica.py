"""One replica of one group on this node: the Raft core, its log, and the machine its committed entries are applied to.

A plain class without IO of its own: the database batch, the messages and the time come in or go out as arguments, so
that the server and a simulator drive the same durability ordering. One turn goes

    collect  -> what the core wants written goes into the node's batch (all groups share one batch per turn)
    (the node writes the batch, unsynced)
    written  -> messages that need no sync leave; committed entries are applied; their proposers are answered
    (the node syncs in a thread, for all groups at once)
    synced   -> the core may count the entries for this replica; messages that had to wait for the sync leave
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from quorumlog.node.errors import ReplicaStopped, StorageCorrupt, UnknownEntryKind
from quorumlog.node.replica.machine import Machine
from quorumlog.node.replica.partition import PartitionMachine, Trimmed
from quorumlog.node.state_machine import UnknownCommand
from quorumlog.node.storage.entry import (
    HEADER_BYTES,
    EntryHeader,
    decode_header,
    encode_entry,
    payload_of,
)
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import INDEX_MAX, MetaRow, index_of_log_key, meta_key, state_key
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import read_stored_header
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import (
    Config,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    Message,
    NodeId,
    NotLeader,
    RawNode,
    Ready,
    Term,
)

APPLY_SIZE_BYTES_MAX: Final = 4 << 20
"""Applied per turn and group, so that one group's backlog does not hold up the others."""

FOLD_SIZE_BYTES_MIN: Final = 4 << 20
"""Applied bytes between two folds; a prefix can be cut only where there is one, and a start replays what came after."""

FOLD_AMPLIFICATION_MIN: Final = 16
"""A fold is not written before this many times its own size has been applied."""

FOLDS_MAX: Final = 32
"""Kept of one group, spread over its log; a log is cut at a fold, and a start looks at all of them."""

Result = object
Reply = Callable[[Result], None]


@dataclass(frozen=True, slots=True)
class Lost:
    """Given to a proposer instead of a result: leadership ended first. The entry may yet be committed by the next
    one.
    """


LOST: Final = Lost()


@dataclass(frozen=True, slots=True)
class Committed:
    """Result of an entry: where it stands and what applying it gave."""

    header: EntryHeader
    value: object


class Replica:
    """Drives one group.

    Args:
        descriptor: who the group is and who votes, as stored at birth.
        storage: the node's database, for folds.
        log: the group's log, open.
        machine: empty; restored here from the newest fold.
        hard_state: term and vote, merged from the votes file and the database.
        counting: False when this replica may have forgotten what it promised (REPAIR).
        on_applied: called with (replica, header, value) for every applied entry, before its proposer is answered.
        on_role: called when this replica begins or ends to lead; `leads` tells which.
    """

    def __init__(
        self,
        descriptor: internal_pb2.ReplicaDescriptor,
        *,
        node_id: NodeId,
        storage: Storage,
        log: GroupLog,
        machine: Machine,
        hard_state: HardState,
        config: Config,
        rng: random.Random,
        counting: bool,
        on_applied: Callable[[Replica, EntryHeader, object], None],
        on_role: Callable[[Replica], None],
    ) -> None:
        self.descriptor = descriptor
        self.group_id = descriptor.group_id
        self.node_id = node_id
        self.voters = tuple(NodeId(voter) for voter in descriptor.voters)
        self.members = self.voters + tuple(NodeId(learner) for learner in descriptor.learners)
        self.log = log
        self.machine = machine
        self.partition = machine if isinstance(machine, PartitionMachine) else None
        self.counting = counting
        self.stopped: str | None = None
        self._storage = storage
        self._on_applied = on_applied
        self._on_role = on_role
        self._waiting: dict[int, list[Reply]] = {}
        self._reads: dict[int, Callable[[bool], None]] = {}
        self._confirmed: deque[tuple[int, Callable[[bool], None]]] = deque()
        self._next_context = 1
        self._leads_term = Term(0)
        self._noop_index = LogIndex(0)
        self._tail_offset = 0
        self._hint_stored = 0
        self._wall_ms = 0
        self._tail_time_ms = 0

        self.folds = self._stored_folds()
        applied = self._restore()
        hint = storage.get(Family.META, meta_key(self.group_id, MetaRow.COMMIT_HINT))
        commit_index = min(max(int.from_bytes(hint or b"", "big"), applied), log.last_index())
        self._bytes_since_fold = 0
        self._fold_size_bytes = 0
        self.raft = RawNode(
            config,
            log,
            hard_state=hard_state,
            configuration=Configuration(self.voters, self.members[len(self.voters) :]),
            commit_index=LogIndex(commit_index),
            applied=LogIndex(applied),
            rng=rng,
            make_noop=self._make_noop,
            counting=counting,
        )
        while self.raft.applied < commit_index and self.stopped is None:
            self._apply_committed(commit_index)

    # ------------------------------------------------------------------------------------------------------ folds

    def _stored_folds(self) -> list[int]:
        start, end = state_key(self.group_id, 0), state_key(self.group_id, INDEX_MAX)
        keys = [key for key, _ in self._storage.scan(Family.STATE, start, end)]
        return sorted({index_of_log_key(key) for key in keys})

    def _restore(self) -> int:
        """Restore the newest fold that the log still stands behind; the rest is replayed. Returns its index."""
        newest = bisect_right(self.folds, self.log.last_index())
        del self.folds[newest:]
        if not self.folds:
            if self.log.first_index() != 1:
                raise StorageCorrupt(
                    f"group {self.group_id}: the log begins at index {self.log.first_index()} but no fold of what came "
                    "before it is left; the replica has lost state and must be repaired from its peers"
                )
            return 0
        snapshot = self._storage.get(Family.STATE, state_key(self.group_id, self.folds[-1]))
        assert snapshot is not None, "a key that a scan has just found"
        self.machine.restore(snapshot)
        return self.folds[-1]

    def _fold(self, batch: WriteBatch) -> None:
        applied = self.raft.applied
        if applied == 0 or (self.folds and self.folds[-1] >= applied):
            return
        snapshot = self.machine.snapshot()
        batch.put(Family.STATE, state_key(self.group_id, applied), snapshot)
        self.folds.append(applied)
        if len(self.folds) > FOLDS_MAX:
            spare = min(range(1, FOLDS_MAX), key=lambda place: self.folds[place + 1] - self.folds[place - 1])
            batch.delete(Family.STATE, state_key(self.group_id, self.folds.pop(spare)))
        self._fold_size_bytes = len(snapshot)
        self._bytes_since_fold = 0

    def fold_now(self, batch: WriteBatch) -> None:
        """Write a fold at the applied index, so that the next start has nothing to replay."""
        self._fold(batch)
        self._store_hint(batch)

    def _drop_prefix(self, batch: WriteBatch, trim: Trimmed) -> None:
        """Cut the log at the newest fold that `trim` allows, and drop older folds."""
        upto = min(trim.upto_index, self.raft.applied)
        if self.partition is not None:
            first_readable = self.log.locate(trim.log_start_offset)
            if first_readable is not None:
                upto = min(upto, first_readable - 1)
        position = bisect_right(self.folds, upto) - 1
        if position < 0 or self.folds[position] < self.log.first_index():
            return
        cut = LogIndex(self.folds[position])
        self.log.compact(batch, cut)
        self.raft.compact(cut)
        batch.delete_range(Family.STATE, state_key(self.group_id, 0), state_key(self.group_id, cut))
        del self.folds[:position]

    # ----------------------------------------------------------------------------------------------------- inputs

    def step(self, message: Message, wall_ms: int) -> None:
        """Take a message of a peer. Raises StepError for one that no sane peer sends: count and drop it."""
        self._wall_ms = wall_ms
        if self.stopped is None:
            self.raft.step(message)

    def tick(self, wall_ms: int) -> None:
        """Let one tick pass."""
        self._wall_ms = wall_ms
        if self.stopped is None:
            self.raft.tick()

    def propose(
        self,
        kind: EntryKind,
        payload: bytes,
        *,
        count: int = 0,
        batch_crc: int | None = None,
        wall_ms: int,
        reply: Reply,
    ) -> EntryHeader:
        """Append an entry. `reply` gets Committed or LOST later, never during this call.

        Raises NotLeader, ProposalRefused (too much uncommitted: try again later) or ReplicaStopped.
        """
        if self.stopped is not None:
            raise ReplicaStopped(self.stopped)
        self._notice_role()
        if not self.leads:
            raise NotLeader(self.raft.leader_id)
        crc = crc32c(payload) if batch_crc is None else batch_crc
        index, term = LogIndex(self.raft.last_index + 1), self.raft.term
        append_time_ms = self._append_time(wall_ms)
        header = EntryHeader(
            kind, self.group_id, index, term, self._tail_offset, count, append_time_ms, crc, len(payload)
        )
        data = encode_entry(kind, self.group_id, index, term, self._tail_offset, count, append_time_ms, payload, crc)
        self.raft.propose((Entry(index, term, kind, data),))
        if self.partition is not None and kind is EntryKind.RECORDS:
            self.partition.fold_tail(header, read_stored_header(data, HEADER_BYTES))
        self._tail_offset = header.next_offset
        self._tail_time_ms = append_time_ms
        self._waiting[index] = [reply]
        return header

    def await_entry(self, index: int, reply: Reply) -> None:
        """Answer `reply` when the entry at `index`, appended but not applied yet, is committed or lost."""
        self._waiting.setdefault(index, []).append(reply)

    def read_index(self, reply: Callable[[bool], None]) -> None:
        """Call `reply(True)` once this leader has proved that it leads and has applied all that was committed before;
        `reply(False)` when leadership is lost first. Raises NotLeader.
        """
        self._notice_role()
        if not self.leads:
            raise NotLeader(self.raft.leader_id)
        context = self._next_context
        self._next_context += 1
        self._reads[context] = reply
        self.raft.read_index(context)

    @property
    def leads(self) -> bool:
        """Leads, and has folded its tail: may judge and append batches."""
        return self._leads_term != 0 and self._leads_term == self.raft.term and self.raft.is_leader

    @property
    def ready_to_decide(self) -> bool:
        """Leads, and has applied its own first entry: its state is up to date, so it may decide from it."""
        return self.leads and self.raft.applied >= self._noop_index

    @property
    def high_watermark(self) -> int:
        """First offset that consumers may not read yet."""
        assert self.partition is not None
        return self.partition.next_offset

    @property
    def log_end_offset(self) -> int:
        """Offset after the last record of the local log, committed or not."""
        return self._tail_offset if self.leads else self.log.log_end_offset

    # ------------------------------------------------------------------------------------------------------- a turn

    def collect(self, batch: WriteBatch, votes: list[VoteRecord]) -> Ready | None:
        """Put what is to be written into `batch` and `votes`. None when there is nothing to do, nor to apply."""
        if self._bytes_since_fold >= max(FOLD_SIZE_BYTES_MIN, FOLD_AMPLIFICATION_MIN * self._fold_size_bytes):
            self._fold(batch)
        backlog = self.raft.applied < self.raft.commit_index
        if self.stopped is not None or not (self.raft.has_ready() or backlog):
            return None
        self._notice_role()
        ready = self.raft.ready()
        if ready.hard_state is not None:
            votes.append(VoteRecord(self.group_id, ready.hard_state.term, ready.hard_state.vote))
            put_hard_state(batch, self.group_id, ready.hard_state)
        if ready.truncate_since is not None:
            self.log.truncate(batch, ready.truncate_since)
        if ready.entries:
            self.log.append(batch, ready.entries)
            self._store_hint(batch)
        return ready

    def _store_hint(self, batch: WriteBatch) -> None:
        """Remember how far is committed; unsynced and never relied on, it only shortens the wait after a restart."""
        if self.raft.commit_index > self._hint_stored:
            self._hint_stored = self.raft.commit_index
            batch.put(Family.META, meta_key(self.group_id, MetaRow.COMMIT_HINT), self._hint_stored.to_bytes(8, "big"))

    def written(self, ready: Ready, next_batch: WriteBatch) -> bool:
        """Apply what is committed and answer who waits. Returns whether more is left to apply.

        What applying asks to be dropped goes into `next_batch`.
        """
        for state in ready.read_states:
            self._confirmed.append((state.index, self._reads.pop(state.context)))
        for context in ready.reads_lost:
            self._reads.pop(context)(False)
        if ready.commit_index > self.raft.applied:
            self._apply_committed(ready.commit_index, next_batch)
        while self._confirmed and self._confirmed[0][0] <= self.raft.applied:
            self._confirmed.popleft()[1](True)
        return self.raft.applied < self.raft.commit_index and self.stopped is None

    def _apply_committed(self, commit_index: int, next_batch: WriteBatch | None = None) -> None:
        entries = self.log.entries(LogIndex(self.raft.applied + 1), LogIndex(commit_index), APPLY_SIZE_BYTES_MAX)
        assert entries is not None, "this log reads in the calling thread"
        trim: Trimmed | None = None
        for entry in entries:
            header = decode_header(entry.data)
            try:
                value = self.machine.apply(header, entry.data)
            except (UnknownCommand, UnknownEntryKind) as error:
                self.stop(f"group {self.group_id} stopped at index {entry.index}: {error}")
                return
            self.raft.applied_to(entry.index)
            self._bytes_since_fold += len(entry.data)
            if header.kind is EntryKind.CONTROL:
                trim = value if isinstance(value, Trimmed) else _trim_of(entry.data) or trim
            self._on_applied(self, header, value)
            for reply in self._waiting.pop(entry.index, ()):
                reply(Committed(header, value))
        if self.partition is not None and self.raft.applied == self.raft.last_index:
            self.partition.drop_tail()
        if trim is not None and next_batch is not None:
            self._drop_prefix(next_batch, trim)

    def stop(self, reason: str) -> None:
        """Take no further part: an entry cannot be read. Everything that waits is lost to this replica."""
        self.stopped = reason
        self._end_leadership()
        self._on_role(self)

    # ------------------------------------------------------------------------------------------------- leadership

    def _notice_role(self) -> None:
        """Begin or end to lead, as the core has decided meanwhile; a stopped replica leads no more."""
        leads_term = self.raft.term if self.raft.is_leader and self.stopped is None else Term(0)
        if leads_term == self._leads_term:
            return
        if self._leads_term != 0:
            self._end_leadership()
            if leads_term != 0:
                self._on_role(self)  # lost and won again since the last look: both are news
        if leads_term != 0:
            self._begin_leadership(leads_term)
        self._on_role(self)

    def _begin_leadership(self, term: Term) -> None:
        self._leads_term = term
        if self.partition is None:
            return
        for entry in self._tail():
            header = decode_header(entry.data)
            if header.kind is EntryKind.RECORDS:
                self.partition.fold_tail(header, read_stored_header(entry.data, HEADER_BYTES))

    def _end_leadership(self) -> None:
        self._leads_term = Term(0)
        if self.partition is not None:
            self.partition.drop_tail()
        waiting, self._waiting = self._waiting, {}
        for replies in waiting.values():
            for reply in replies:
                reply(LOST)
        if self.stopped is not None:
            reads, self._reads = self._reads, {}
            confirmed, self._confirmed = self._confirmed, deque()
            for read in (*reads.values(), *(read for _, read in confirmed)):
                read(False)

    def _tail(self) -> list[Entry]:
        """Entries after the applied ones, handed out or not."""
        tail: list[Entry] = []
        index = LogIndex(self.raft.applied + 1)
        while index <= self.raft.last_index:
            entries = self.raft.entries(index, APPLY_SIZE_BYTES_MAX)
            assert entries, "a tail that the core knows of"
            tail.extend(entries)
            index = LogIndex(tail[-1].index + 1)
        return tail

    def _make_noop(self, index: LogIndex, term: Term) -> bytes:
        """The first entry of a term. The tail before it says at which offset the log goes on, and at what time."""
        self._noop_index = index
        last = self.raft.entries(LogIndex(index - 1), 1) if index > self.raft.first_index else None
        if last:
            header = decode_header(last[0].data)
            self._tail_offset, self._tail_time_ms = header.next_offset, header.append_time_ms
        else:
            self._tail_offset, self._tail_time_ms = self.log.log_end_offset, self.log.last_append_time_ms
        self._tail_time_ms = self._append_time(self._wall_ms)
        return encode_entry(
            EntryKind.NOOP, self.group_id, index, term, self._tail_offset, 0, self._tail_time_ms, b"", crc32c(b"")
        )

    def _append_time(self, wall_ms: int) -> int:
        """Time for the next entry; along a log it never goes back, whatever the leaders' clocks say."""
        return max(wall_ms, self._tail_time_ms)


def _trim_of(data: bytes) -> Trimmed | None:
    """The trim that a control entry of an internal topic holds, None for another one."""
    control = internal_pb2.ControlRecord.FromString(payload_of(data))
    if control.WhichOneof("control") != "log_start":
        return None
    return Trimmed(control.log_start.log_start_offset, control.log_start.upto_index)

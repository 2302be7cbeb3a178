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
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from quorumlog.node.errors import EntryDamaged, LogLost, ReplicaStopped, UnknownEntryKind
from quorumlog.node.replica.core_log import CoreLog
from quorumlog.node.replica.folds import Folds
from quorumlog.node.replica.hooks import ReplicaHooks
from quorumlog.node.replica.machine import Machine
from quorumlog.node.replica.partition import PartitionMachine, Trimmed
from quorumlog.node.replica.tail import LeaderTail
from quorumlog.node.state_machine import UnknownCommand
from quorumlog.node.storage import configurations
from quorumlog.node.storage.entry import HEADER_BYTES, EntryHeader, decode_header, payload_of
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import MetaRow, meta_key
from quorumlog.node.storage.repair import mark_whole
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import read_stored_header
from quorumlog.raft import (
    Config,
    Configuration,
    ConfigurationRow,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    NotLeader,
    RawNode,
    Ready,
    Term,
)

APPLY_SIZE_BYTES_MAX: Final = 4 << 20
"""Applied per turn and group, so that one group's backlog does not hold up the others."""

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
        descriptor: who the group is, and who votes where the replica was born with its group.
        storage: the node's database, for folds.
        log: the group's log, open.
        machine: empty; restored here from the newest fold.
        hard_state: term and vote, merged from the votes file and the database.
        repair_id: the node's present one; the replica is whole once its row says so.
        whole: False when this replica may have forgotten what it promised (REPAIR).
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
        repair_id: bytes,
        whole: bool,
        hooks: ReplicaHooks,
    ) -> None:
        self.descriptor = descriptor
        self.group_id = descriptor.group_id
        self.node_id = node_id
        self.log = log
        self.machine = machine
        self.partition = machine if isinstance(machine, PartitionMachine) else None
        self.stopped: str | None = None
        self.log_lost = False
        """Stopped because its log cannot go on from what is there: the replica is to begin anew, in REPAIR."""
        self.tail = LeaderTail(log, self._entry_at)
        self._storage = storage
        self._repair_id = repair_id
        self._hooks = hooks
        self._waiting: dict[int, list[Reply]] = {}
        self._reads: dict[int, Callable[[bool], None]] = {}
        self._confirmed: deque[tuple[int, Callable[[bool], None]]] = deque()
        self._next_context = 1
        self._leads_term = Term(0)
        self._hint_stored = 0
        self._incoming: internal_pb2.GroupSnapshot | None = None
        self._installed = False

        self.folds = Folds(storage, self.group_id, log.last_index())
        applied = self._restore()
        hint = storage.get(Family.META, meta_key(self.group_id, MetaRow.COMMIT_HINT))
        commit_index = min(max(int.from_bytes(hint or b"", "big"), applied), log.last_index())
        self.withheld = False
        """Does not lead, because entries of its log are damaged."""
        self.raft = RawNode(
            config,
            CoreLog(log),
            hard_state=hard_state,
            configurations=self._stored_configurations(),
            commit_index=LogIndex(commit_index),
            applied=LogIndex(applied),
            rng=rng,
            codec=self.tail,
            nonce=0 if whole else rng.getrandbits(63) + 1,
        )
        self._withhold()
        while self.raft.applied < commit_index and not self._blocked and self.stopped is None:
            self._apply_committed(commit_index)

    # ------------------------------------------------------------------------------------------------- who is in it

    @property
    def configuration(self) -> Configuration:
        """Who votes and who learns, as the group's own log says."""
        return self.raft.configuration

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """Who votes; while the voters are being changed, the new ones."""
        return self.raft.configuration.voters

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody who has the log, this replica mostly among them."""
        return self.raft.configuration.replicas

    @property
    def counting(self) -> bool:
        """Whether this replica's word counts: False in REPAIR."""
        return self.raft.counting

    def _stored_configurations(self) -> list[ConfigurationRow]:
        """The configurations that the log holds. Before it held any: that of the birth, an empty one for a later
        birth.
        """
        last = self.log.last_index()
        stored = configurations.read(self._storage, self.group_id)
        rows = [
            ConfigurationRow(LogIndex(index), configurations.to_configuration(row))
            for index, row in stored
            if index <= last
        ]
        if not stored:
            voters = tuple(NodeId(voter) for voter in self.descriptor.voters)
            learners = tuple(NodeId(learner) for learner in self.descriptor.learners)
            rows = [ConfigurationRow(LogIndex(0), Configuration(voters, learners))]
        if not rows or rows[0].index >= self.log.first_index():
            raise LogLost(self.group_id, f"nothing says who votes at index {self.log.first_index()}, where it begins")
        return rows

    # ------------------------------------------------------------------------------------------------------ folds

    def _restore(self) -> int:
        """Restore the newest fold that the log still stands behind; the rest is replayed. Returns its index."""
        newest = self.folds.newest()
        if newest is None:
            if self.log.first_index() != 1:
                why = f": {self.folds.unreadable}" if self.folds.unreadable else ""
                raise LogLost(self.group_id, f"no fold of what came before index {self.log.first_index()} is left{why}")
            return 0
        self.machine.restore(newest.state)
        return newest.index

    def _fold(self, batch: WriteBatch) -> None:
        applied = self.raft.applied
        if applied <= self.folds.newest_index or self._incoming is not None:
            return  # a snapshot that is to be installed is applied for the core, and not here yet
        try:
            snapshot = self.log.snapshot_at(applied)
        except EntryDamaged:
            return  # once it is mended
        snapshot.configuration.CopyFrom(configurations.to_stored(self.raft.configuration_at(applied)))
        snapshot.state = self.machine.snapshot()
        self.folds.put(batch, snapshot)

    def fold_now(self, batch: WriteBatch) -> None:
        """Write a fold at the applied index, so that the next start has nothing to replay."""
        self._fold(batch)
        self._store_hint(batch)

    def snapshot(self) -> tuple[LogIndex, bytes] | None:
        """What to send to a peer that entries cannot help: (index, stored GroupSnapshot). None before the first fold
        is written. Raises StorageCorrupt.

        Of a partition the oldest: its log behind that is what the peer shall have. Of a state machine the newest, for
        its log is only the way to its state.
        """
        if not self.folds.indexes:
            return None
        index = self.folds.indexes[0] if self.partition is not None else self.folds.indexes[-1]
        stored = self.folds.read(index)
        return (LogIndex(index), stored) if stored is not None else None

    def install(self, snapshot: internal_pb2.GroupSnapshot, leader: NodeId, term: Term) -> None:
        """Take over a snapshot that the leader of `term` sent, unless the log goes as far already. Raises StepError."""
        if self.stopped is not None:
            return
        index, committed = LogIndex(snapshot.index), self.raft.commit_index
        self.raft.step(
            Message(
                MessageType.SNAPSHOT,
                leader,
                self.node_id,
                term,
                index=index,
                log_term=Term(snapshot.term),
                configuration=configurations.to_configuration(snapshot.configuration),
            )
        )
        if index > committed and self.raft.first_index == index + 1:
            self._incoming = snapshot  # the next Ready installs it

    def _install(self, batch: WriteBatch, index: LogIndex) -> bool:
        """Log and state become those of the snapshot, in one write (R18). False when this release cannot read it."""
        snapshot, self._incoming = self._incoming, None
        assert snapshot is not None, "the core installs what was stepped"
        assert snapshot.index == index, f"the snapshot at {snapshot.index} in place of the one at {index}"
        try:
            self.machine.restore(snapshot.state)
        except UnknownCommand as error:
            self.stop(f"group {self.group_id} stopped at the snapshot of index {index}: {error}")
            return False
        self.log.install(batch, snapshot)
        self.folds.replace_all(batch, snapshot)
        self._installed = True
        return True

    def _drop_prefix(self, batch: WriteBatch, trim: Trimmed) -> None:
        """Cut the log at the newest fold that `trim` allows, and drop older folds."""
        upto = min(trim.upto_index, self.raft.applied)
        if self.partition is not None:
            first_readable = self.log.locate(trim.log_start_offset)
            if first_readable is not None:
                upto = min(upto, first_readable - 1)
        cut = self.folds.last_at_or_below(upto)
        if cut is None or cut < self.log.first_index():
            return
        try:
            self.log.compact(batch, cut)
        except EntryDamaged:
            return  # the next trim cuts it
        self.raft.compact(cut)
        self.folds.drop_before(batch, cut)

    # ----------------------------------------------------------------------------------------------------- inputs

    def step(self, message: Message, wall_ms: int) -> None:
        """Take a message of a peer. Raises StepError for one that no sane peer sends: count and drop it."""
        self.tail.wall_ms = wall_ms
        if self.stopped is None:
            self.raft.step(message)

    def tick(self, wall_ms: int) -> None:
        """Let one tick pass."""
        self.tail.wall_ms = wall_ms
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
        self.tail.wall_ms = wall_ms
        index, term = LogIndex(self.raft.last_index + 1), self.raft.term
        header, data = self.tail.make(kind, index, term, payload, count=count, crc=batch_crc)
        self.raft.propose((Entry(index, term, kind, data),))
        if self.partition is not None and kind is EntryKind.RECORDS:
            self.partition.fold_tail(header, read_stored_header(data, HEADER_BYTES))
        self.tail.appended(header)
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
        return self.leads and self.raft.applied >= self.tail.noop_index

    @property
    def high_watermark(self) -> int:
        """First offset that consumers may not read yet."""
        assert self.partition is not None
        return self.partition.next_offset

    @property
    def log_end_offset(self) -> int:
        """Offset after the last record of the local log, committed or not."""
        return self.tail.offset if self.leads else self.log.log_end_offset

    # ------------------------------------------------------------------------------------------------------- a turn

    def collect(self, batch: WriteBatch, votes: list[VoteRecord]) -> Ready | None:
        """Put what is to be written into `batch` and `votes`. None when there is nothing to do, nor to apply."""
        if self.folds.due:
            self._fold(batch)
        backlog = self.raft.applied < self.raft.commit_index
        if self.stopped is not None or not (self.raft.has_ready() or backlog or self._installed):
            return None
        self._notice_role()
        ready = self.raft.ready()
        if ready.hard_state is not None:
            votes.append(VoteRecord(self.group_id, ready.hard_state.term, ready.hard_state.vote))
            put_hard_state(batch, self.group_id, ready.hard_state)
        if ready.install is not None and not self._install(batch, ready.install):
            return None
        if ready.truncate_since is not None:
            try:
                self.log.truncate(batch, ready.truncate_since)
            except EntryDamaged as error:
                self.log_lost = True
                self.stop(f"group {self.group_id} cannot drop its tail from index {ready.truncate_since}: {error}")
                return None
        if ready.entries:
            self.log.append(batch, ready.entries)
            self._store_hint(batch)
        if ready.configurations is not None:
            rows = [(row.index, configurations.to_stored(row.configuration)) for row in ready.configurations]
            configurations.write(batch, self.group_id, rows)
        if ready.repaired:
            mark_whole(batch, self.group_id, self._repair_id)
            self._hooks.on_repaired(self, batch)
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
        if self._installed:
            self._installed = False
            self._hooks.on_installed(self)
        for peer in ready.snapshots_wanted:
            self._hooks.on_snapshot_wanted(self, peer)
        for state in ready.read_states:
            self._confirmed.append((state.index, self._reads.pop(state.context)))
        for context in ready.reads_lost:
            self._reads.pop(context)(False)
        if ready.commit_index > self.raft.applied:
            self._apply_committed(ready.commit_index, next_batch)
        while self._confirmed and self._confirmed[0][0] <= self.raft.applied:
            self._confirmed.popleft()[1](True)
        self._withhold()
        return self.raft.applied < self.raft.commit_index and self.stopped is None and not self._blocked

    @property
    def _blocked(self) -> bool:
        """The next entry to apply is damaged."""
        return self.log.is_damaged(LogIndex(self.raft.applied + 1))

    def note_damage(self, index: int) -> None:
        """A read met a damaged entry. Until it is mended this replica does not lead, for it could not send it."""
        self.log.note_damage(LogIndex(index))
        self._withhold()

    def mend(self, batch: WriteBatch, entries: Sequence[Entry]) -> int:
        """Put entries of another replica in the place of damaged ones. Returns how many were mended."""
        mended = len(self.log.mend(batch, entries))
        if mended:
            self.raft.on_entries_loaded()
            self._withhold()
        return mended

    def begin_behind(self, batch: WriteBatch, snapshot: internal_pb2.GroupSnapshot) -> int:
        """Let the log begin behind a snapshot that another one's begins with, where what it stands for is damaged and
        nobody has it any more. Returns how many damaged entries that does away with.

        Index and term say that it is a state of this very log; being a fold it is committed. Where it was not applied
        here yet, its state takes the place of the entries. Where it was, the log is cut as at a fold of its own, and no
        record goes that may still be read.
        """
        index = LogIndex(snapshot.index)
        before = len(self.log.damaged)
        if self.stopped is not None or self.raft.is_leader or self._incoming is not None:
            return 0
        if not min(self.log.damaged, default=index + 1) <= index <= self.raft.commit_index:
            return 0
        if self.log.term(index) != snapshot.term:
            return 0
        if self.raft.applied < index:
            try:
                self.machine.restore(snapshot.state)
            except UnknownCommand as error:
                self.stop(f"group {self.group_id} stopped at the snapshot of index {index}: {error}")
                return 0
            self.raft.applied_to(index)
            self._installed = True
        elif self.partition is not None and snapshot.next_offset > self.partition.log_start_offset:
            return 0
        self.log.begin_behind(batch, snapshot)
        self.raft.compact(index)
        self.folds.begin_with(batch, snapshot)
        self._withhold()
        return before - len(self.log.damaged)

    def _withhold(self) -> None:
        """Lead only while every entry can be sent; but where nobody else may lead, serve what there is."""
        now = self.raft.configuration
        withheld = self.log.has_damage and any(one != self.node_id for one in (*now.voters, *now.outgoing))
        if withheld != self.withheld:
            self.withheld = withheld
            self.raft.withhold(withheld)

    def _apply_committed(self, commit_index: int, next_batch: WriteBatch | None = None) -> None:
        try:
            entries = self.log.entries(LogIndex(self.raft.applied + 1), LogIndex(commit_index), APPLY_SIZE_BYTES_MAX)
        except EntryDamaged as damage:
            self.note_damage(damage.index)
            return  # until it is mended
        trim: Trimmed | None = None
        for entry in entries:
            header = decode_header(entry.data)
            try:
                value = self.machine.apply(header, entry.data)
            except (UnknownCommand, UnknownEntryKind) as error:
                self.stop(f"group {self.group_id} stopped at index {entry.index}: {error}")
                return
            self.raft.applied_to(entry.index)
            self.folds.note_applied(len(entry.data))
            if header.kind is EntryKind.CONTROL:
                trim = value if isinstance(value, Trimmed) else _trim_of(entry.data) or trim
            self._hooks.on_applied(self, header, value)
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
        self._hooks.on_role(self)

    # ------------------------------------------------------------------------------------------------- leadership

    def _notice_role(self) -> None:
        """Begin or end to lead, as the core has decided meanwhile; a stopped replica leads no more."""
        leads_term = self.raft.term if self.raft.is_leader and self.stopped is None else Term(0)
        if leads_term == self._leads_term:
            return
        if self._leads_term != 0:
            self._end_leadership()
            if leads_term != 0:
                self._hooks.on_role(self)  # lost and won again since the last look: both are news
        if leads_term != 0 and not self._begin_leadership(leads_term):
            self._withhold()
            return
        self._hooks.on_role(self)

    def _begin_leadership(self, term: Term) -> bool:
        """False when the tail cannot be folded, because an entry of it is damaged."""
        tail = self._tail() if self.partition is not None else []
        if tail is None:
            return False
        self._leads_term = term
        if self.partition is None:
            return True
        for entry in tail:
            header = decode_header(entry.data)
            if header.kind is EntryKind.RECORDS:
                self.partition.fold_tail(header, read_stored_header(entry.data, HEADER_BYTES))
        return True

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

    def _tail(self) -> list[Entry] | None:
        """Entries after the applied ones, handed out or not; None when one is damaged."""
        tail: list[Entry] = []
        index = LogIndex(self.raft.applied + 1)
        while index <= self.raft.last_index:
            entries = self.raft.entries(index, APPLY_SIZE_BYTES_MAX)
            if entries is None:
                return None
            tail.extend(entries)
            index = LogIndex(tail[-1].index + 1)
        return tail

    def _entry_at(self, index: LogIndex) -> Sequence[Entry] | None:
        """The entry at `index` alone, handed out or not; None when it is cut off."""
        return self.raft.entries(index, 1) if index >= self.raft.first_index else None


def _trim_of(data: bytes) -> Trimmed | None:
    """The trim that a control entry of an internal topic holds, None for another one."""
    control = internal_pb2.ControlRecord.FromString(payload_of(data))
    if control.WhichOneof("control") != "log_start":
        return None
    return Trimmed(control.log_start.log_start_offset, control.log_start.upto_index)

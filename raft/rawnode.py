"""`RawNode`: the face of the core. Each method is one input; `ready` is the one output."""

from __future__ import annotations

import random
from collections.abc import Sequence

from quorumlog.raft import dispatch, election, following, leading, replication, ticking
from quorumlog.raft.config import Config
from quorumlog.raft.configurations import ConfigurationRow
from quorumlog.raft.core import Core
from quorumlog.raft.errors import InvariantViolation
from quorumlog.raft.invariants import check_invariants
from quorumlog.raft.progress import ProgressView
from quorumlog.raft.ready import Persisted, Ready
from quorumlog.raft.tracer import Tracer
from quorumlog.raft.types import (
    Configuration,
    Entry,
    EntryCodec,
    HardState,
    LogIndex,
    LogReader,
    Message,
    NodeId,
    Role,
    Term,
)


class RawNode:
    """One replica of one group. Not thread-safe; every method returns at once.

    `config` says who this replica is. `log` is read, never written; everything in it at this moment must be durable, as
    must `hard_state`. `configurations` are those of the log, as the last `Ready.configurations` that is durable had
    them; at first one row at index 0. `commit_index` and `applied` are as last persisted, `first_index - 1` or more.

    A `nonce` other than 0, drawn at this start, makes a replica that may have forgotten what it promised (repair): it
    takes entries, but neither campaigns nor votes, and its answers say so, until it has all that a leader had whose
    term was confirmed after that (`Ready.repaired`). Only there may `commit_index` and `applied` stand above the last
    entry. A replica born after its group, whose first row is a configuration without voters, begins like that.
    """

    __slots__ = ("_core", "_role_seen", "_term_seen")

    def __init__(
        self,
        config: Config,
        log: LogReader,
        *,
        hard_state: HardState,
        configurations: Sequence[ConfigurationRow],
        commit_index: LogIndex,
        applied: LogIndex,
        rng: random.Random,
        codec: EntryCodec,
        nonce: int = 0,
        tracer: Tracer | None = None,
    ) -> None:
        self._core = Core(
            config,
            log,
            hard_state,
            configurations,
            commit_index,
            applied,
            rng,
            codec,
            nonce,
            tracer if tracer is not None else Tracer(),
        )
        self._role_seen = self._core.role
        self._term_seen = self._core.term
        if log.last_index() == 0 and not self._core.configuration.voters and not nonce:
            raise InvariantViolation("a replica born after its group begins in repair")
        check_invariants(self._core)

    # Inputs

    def tick(self) -> None:
        """One tick has passed. Nothing happens while the group is quiesced."""
        ticking.tick(self._core)

    def step(self, message: Message) -> None:
        """Takes a message from a peer.

        Raises StepError, and then nothing has changed, when no correct peer would have sent it.
        """
        dispatch.step(self._core, message)

    def propose(self, entries: Sequence[Entry]) -> None:
        """Appends entries, stamped by the shell: consecutive from `last_index + 1`, of the present term (asserted).

        Raises NotLeader (not the leader, or a transfer is under way) or ProposalRefused (too many bytes uncommitted);
        nothing is appended then.
        """
        leading.propose(self._core, entries)

    def read_index(self, context: int) -> None:
        """Asks for a linearizable read (thesis 6.4); the answer stands in `Ready.read_states` or `Ready.reads_lost`.

        Raises NotLeader. A read is confirmed by a quorum of counting voters, once an entry of the present term is
        committed; before that it waits.
        """
        leading.read_index(self._core, context)

    def transfer_leadership(self, target: NodeId) -> None:
        """Hands leadership to `target` (thesis 3.10); given up after an election timeout.

        Raises NotLeader, or ValueError when `target` is not another voter.
        """
        leading.transfer_leadership(self._core, target)

    def propose_configuration(
        self, voters: Sequence[NodeId], learners: Sequence[NodeId] = (), version: int = 0
    ) -> None:
        """Begins to change who votes and who learns (Raft section 6); `configuration` tells when it is done.

        A new voter must be a learner that has caught up. A leader that is to vote no more leads until the change is
        committed, and then lets another one campaign. `version` is the caller's, see Configuration.

        Raises NotLeader (not the leader, or a transfer is under way) or ConfigurationRefused.
        """
        leading.propose_configuration(self._core, voters, learners, version)

    def campaign(self) -> None:
        """Behaves as if the election timeout expired now: pre-vote first. Nothing happens where nobody may campaign."""
        self._core.wake()
        election.campaign(self._core)

    def withhold(self, withheld: bool) -> None:
        """Neither campaigns nor leads while `withheld`, because it lacks entries that it would have to send; a leader
        hands over. It follows and votes as before.
        """
        leading.withhold(self._core, withheld)

    def on_persisted(self, persisted: Persisted) -> None:
        """Everything of the Ready that carried `persisted`, and of all before it, is durable.

        Only the newest one that a sync has covered needs to be told.
        """
        core = self._core
        if not persisted.number <= core.ready_number or persisted.hard_term > core.term:
            raise InvariantViolation(f"a completion from another RawNode: {persisted}")
        core.log.on_persisted(persisted)
        if persisted.hard_term > core.durable_term:
            core.durable_term = persisted.hard_term
            if core.durable_term == core.term:
                election.on_own_vote_durable(core)
        if not core.counting:
            if core.repaired_number and persisted.number >= core.repaired_number:
                following.count_again(core)
            else:
                following.leave_repair(core)
        leadership = core.leadership
        if leadership is not None and core.log.stable_index > leadership.counted[core.node_id]:
            leadership.counted[core.node_id] = core.log.stable_index
            replication.maybe_commit(core, leadership)

    def applied_to(self, index: LogIndex) -> None:
        """Entries through `index` (inclusive) are applied; never falls, never passes the commit index (asserted)."""
        core = self._core
        assert core.applied <= index <= core.commit_index, f"applied {core.applied} to {index} of {core.commit_index}"
        core.applied = index

    def compact(self, upto: LogIndex) -> None:
        """The shell drops the prefix through `upto` (inclusive), which must be applied (asserted).

        Told before or directly after the drop; the term of `upto` itself must stay readable through `LogReader.term`.
        """
        assert upto <= self._core.applied, f"compact upto {upto}, applied is {self._core.applied}"
        self._core.compact(upto)

    def reset_peer(self, peer: NodeId) -> None:
        """A new session with `peer` began. Its match index is 0 again; stickiness towards it as a leader ends."""
        ticking.reset_peer(self._core, peer)

    def report_unreachable(self, peer: NodeId) -> None:
        """The stream to `peer` broke. A leader probes again; a follower of `peer` campaigns within a few ticks."""
        ticking.report_unreachable(self._core, peer)

    def on_entries_loaded(self) -> None:
        """Entries for which `LogReader.entries` had answered None are in memory now."""
        leadership = self._core.leadership
        if leadership is not None:
            for progress in leadership.progress.values():
                if progress.loading:
                    progress.loading = False
                    progress.send_due = leadership.appends_due = True

    def wake(self) -> None:
        """Leaves quiescence."""
        self._core.wake()

    # Outputs

    def has_ready(self) -> bool:
        """Whether `ready` may have something; costs O(1)."""
        core = self._core
        log = core.log
        leadership = core.leadership
        return bool(
            core.outbox
            or core.outbox_after_sync
            or log.pending
            or log.truncate_since is not None
            or log.install is not None
            or core.configurations_changed
            or (core.repaired and not core.repaired_number)
            or core.commit_index != core.handed_commit_index
            or core.term != core.handed_hard_state.term
            or core.vote != core.handed_hard_state.vote
            or core.read_states
            or core.reads_lost
            or (
                leadership is not None
                and (leadership.appends_due or leadership.reads.joining or leadership.commit_notice_due)
            )
        )

    def ready(self) -> Ready:
        """Takes out the work of this turn. It may turn out to be empty."""
        core = self._core
        log = core.log
        if core.leadership is not None:
            replication.flush(core, core.leadership)
        core.ready_number += 1
        repaired = core.repaired and not core.repaired_number
        if repaired:
            core.repaired_number = core.ready_number
        configurations = core.configurations.rows if core.configurations_changed else None
        core.configurations_changed = False
        snapshots_wanted: tuple[NodeId, ...] = ()
        if core.leadership is not None and core.leadership.snapshots_wanted:
            snapshots_wanted = tuple(core.leadership.snapshots_wanted)
            core.leadership.snapshots_wanted.clear()
        hard_state = None
        if core.term != core.handed_hard_state.term or core.vote != core.handed_hard_state.vote:
            hard_state = core.handed_hard_state = HardState(core.term, core.vote)
        messages = tuple(core.outbox)
        after_sync = tuple(core.outbox_after_sync)
        if core.durable_term != core.term:
            # No message of a term leaves before the term is durable; the order among them does not matter.
            messages, after_sync = (), messages + after_sync
        entries = log.frozen()
        truncate_since = log.truncate_since
        install = log.install
        ready = Ready(
            hard_state=hard_state,
            install=install,
            truncate_since=truncate_since,
            entries=entries,
            configurations=configurations,
            repaired=repaired,
            snapshots_wanted=snapshots_wanted,
            messages=messages,
            messages_after_sync=after_sync,
            commit_index=core.commit_index,
            read_states=tuple(core.read_states),
            reads_lost=tuple(core.reads_lost),
            must_sync=(
                hard_state is not None
                or bool(entries)
                or truncate_since is not None
                or install is not None
                or configurations is not None
                or repaired
            ),
            persisted=Persisted(core.term, log.last_term, log.last_index, core.ready_number),
        )
        log.handed_out(core.ready_number)
        core.handed_commit_index = core.commit_index
        core.outbox.clear()
        core.outbox_after_sync.clear()
        core.read_states.clear()
        core.reads_lost.clear()
        if core.role is not self._role_seen or core.term != self._term_seen:
            self._role_seen, self._term_seen = core.role, core.term
            check_invariants(core)
        return ready

    # Views

    @property
    def term(self) -> Term:
        """The present term, durable or not."""
        return self._core.term

    @property
    def vote(self) -> NodeId:
        """Whom this replica voted for in the present term; `NO_NODE` if nobody."""
        return self._core.vote

    @property
    def role(self) -> Role:
        """The role in the present term."""
        return self._core.role

    @property
    def leader_id(self) -> NodeId:
        """The leader of the present term as far as known, else `NO_NODE`."""
        return self._core.leader_id

    @property
    def is_leader(self) -> bool:
        """Whether this replica leads."""
        return self._core.leadership is not None

    @property
    def commit_index(self) -> LogIndex:
        """The last entry known to be committed (inclusive)."""
        return self._core.commit_index

    @property
    def applied(self) -> LogIndex:
        """The last entry applied (inclusive)."""
        return self._core.applied

    @property
    def first_index(self) -> LogIndex:
        """The first entry retained."""
        return self._core.log.first_index

    @property
    def last_index(self) -> LogIndex:
        """The last entry (inclusive), durable or not."""
        return self._core.log.last_index

    @property
    def stable_index(self) -> LogIndex:
        """The last entry that is durable here (inclusive)."""
        return self._core.log.stable_index

    @property
    def configuration(self) -> Configuration:
        """Who votes and who learns, by the last entry of the log that says so, committed or not."""
        return self._core.configuration

    @property
    def configuration_index(self) -> LogIndex:
        """The entry that says so; 0 or an index before the log for what the log began with."""
        return self._core.configurations.latest_index

    def configuration_at(self, index: LogIndex) -> Configuration:
        """The configuration that was in force at `index`, `first_index - 1` or more."""
        return self._core.configurations.at(index)

    @property
    def counting(self) -> bool:
        """Whether this replica's word counts: False in repair."""
        return self._core.counting

    @property
    def quiesced(self) -> bool:
        """Whether the group stopped ticking here."""
        return self._core.quiesced

    @property
    def transferring_to(self) -> NodeId | None:
        """The target of the leadership transfer under way; None without one."""
        leadership = self._core.leadership
        return None if leadership is None else leadership.transferring_to

    def entries(self, first: LogIndex, size_bytes_max: int) -> Sequence[Entry] | None:
        """Entries from `first` (inclusive, retained), handed out or not: one, and then no more than fit.

        May stop early, never empty; None when the shell has to fetch them.
        """
        found = self._core.log.slice(first, size_bytes_max)
        return None if found is None else found[0]

    def progress(self, peer: NodeId) -> ProgressView | None:
        """A copy of the leader's view of `peer`; None when this replica does not lead or `peer` is not its peer."""
        leadership = self._core.leadership
        if leadership is None or peer not in leadership.progress:
            return None
        return leadership.progress[peer].view(leadership.counted[peer])

    def check_invariants(self) -> None:
        """Raises InvariantViolation when this replica is broken. Called by itself whenever role or term changed."""
        check_invariants(self._core)

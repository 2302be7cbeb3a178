"""The state of one replica and the changes of role. What each message does stands in the files beside this one."""

from __future__ import annotations

import random
from collections.abc import Sequence

from quorumlog.raft.config import Config
from quorumlog.raft.configurations import ConfigurationRow, Configurations
from quorumlog.raft.errors import InvariantViolation
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.log import RaftLog
from quorumlog.raft.ready import ReadState
from quorumlog.raft.tracer import Tracer
from quorumlog.raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryCodec,
    EntryKind,
    HardState,
    LogIndex,
    LogReader,
    Message,
    NodeId,
    Role,
    Term,
)


class Core:
    """Everything a replica knows.

    Invariants, executed by `check_invariants`: `first_index - 1 <= applied <= commit_index <= last_index` (in repair,
    `applied` and `commit_index` may stand above `last_index`); `durable_term <= term`; `leadership` is there exactly
    while `role` is LEADER; every message waiting in an outbox was made in the present term; `configuration` is the
    latest one of the log; `counting` is False exactly while `nonce` is not 0.
    """

    __slots__ = (
        "applied",
        "codec",
        "commit_index",
        "config",
        "configuration",
        "configurations",
        "configurations_changed",
        "counting",
        "durable_term",
        "election_elapsed",
        "election_timeout",
        "handed_commit_index",
        "handed_hard_state",
        "leader_heard",
        "leader_id",
        "leadership",
        "log",
        "node_id",
        "nonce",
        "outbox",
        "outbox_after_sync",
        "quiesced",
        "read_states",
        "reads_lost",
        "ready_number",
        "repair_target",
        "repaired",
        "repaired_number",
        "rng",
        "role",
        "term",
        "tracer",
        "verified_index",
        "vote",
        "votes",
        "withheld",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        reader: LogReader,
        hard_state: HardState,
        configurations: Sequence[ConfigurationRow],
        commit_index: LogIndex,
        applied: LogIndex,
        rng: random.Random,
        codec: EntryCodec,
        nonce: int,
        tracer: Tracer,
    ) -> None:
        self.config = config
        self.node_id = config.node_id
        self.configurations = Configurations(configurations)
        self.configuration = self.configurations.latest
        self.configurations_changed = False  # since they were handed out
        self.nonce = nonce
        self.counting = nonce == 0
        self.withheld = False
        self.rng = rng
        self.codec = codec
        self.tracer = tracer
        self.log = RaftLog(reader)

        self.term = hard_state.term
        self.vote = hard_state.vote
        self.durable_term = hard_state.term  # no message of a later term may leave at once
        self.commit_index = commit_index
        self.applied = applied

        self.role = Role.FOLLOWER
        self.leader_id = NO_NODE
        self.leadership: Leadership | None = None
        self.votes: dict[NodeId, bool] = {}  # first answers in the election or pre-election under way
        self.leader_heard = False  # the leader's session is whole: stickiness holds
        self.election_elapsed = 0  # ticks since the leader was heard, a vote granted or a campaign begun
        self.election_timeout = 0
        self.quiesced = False
        self.verified_index = LogIndex(0)  # the log is that of this term's leader through here, by its own APPENDs
        self.repair_target = LogIndex(0)  # in repair: holding all through here of this term's leader ends it
        self.repaired = False  # it has ended, which is not handed out yet
        self.repaired_number = 0  # the Ready that carries that
        self.draw_election_timeout()

        self.outbox: list[Message] = []
        self.outbox_after_sync: list[Message] = []
        self.read_states: list[ReadState] = []
        self.reads_lost: list[int] = []
        self.ready_number = 0
        self.handed_hard_state = hard_state
        self.handed_commit_index = commit_index

    def draw_election_timeout(self) -> None:
        """Redraws the timeout from [election_ticks, 2 * election_ticks), so that campaigns rarely meet (Raft 5.2)."""
        self.election_timeout = self.config.election_ticks + self.rng.randrange(self.config.election_ticks)

    @property
    def sticky(self) -> bool:
        """A live leader was heard within an election timeout: votes are refused (thesis 4.2.3).

        A leader refuses as well: check-quorum makes it step down when it has lost its majority.
        """
        if self.role is Role.LEADER:
            return True
        return self.leader_heard and self.leader_id != NO_NODE and self.election_elapsed < self.config.election_ticks

    @property
    def promotable(self) -> bool:
        """May this replica campaign: fit to lead, its word counts, and it votes, by the old or the new configuration.

        One that the latest configuration leaves out may still campaign while it does not know that to be committed: it
        may be the only one that holds it, and be needed for a majority of the configuration before, where nobody else
        can win against its longer log (thesis 4.2.2).
        """
        if self.withheld or not self.counting:
            return False
        for row in reversed(self.configurations.rows):
            if self.node_id in row.configuration.voters or self.node_id in row.configuration.outgoing:
                return True
            if row.index <= self.commit_index:
                return False
        return False

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries behind the last one; a configuration among them is in force at once (Raft section 6)."""
        if not self.log.append(entries):
            return
        for entry in entries:
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations.append(entry.index, self.codec.read_configuration(entry))
        self._configure()

    def truncate(self, since: LogIndex) -> None:
        """Drops the suffix from `since` (inclusive), and the configurations that it holds."""
        self.log.truncate(since)
        if self.configurations.truncate(since):
            self._configure()

    def begin_behind(self, index: LogIndex, term: Term, configuration: Configuration) -> None:
        """Replaces log and state by a snapshot at `index`; what it stands for is committed and applied."""
        self.log.begin_behind(index, term)
        self.configurations.reset(index, configuration)
        self._configure()
        self.applied = index
        if index > self.commit_index:  # in repair it may stand above already, and never falls
            self.commit_index = index
            self.tracer.on_commit(index)

    def compact(self, upto: LogIndex) -> None:
        """The shell drops the prefix through `upto` (inclusive)."""
        self.log.compact(upto)
        if self.configurations.compact(upto):
            self.configurations_changed = True

    def _configure(self) -> None:
        self.configurations_changed = True
        self.configuration = self.configurations.latest
        if self.leadership is not None:
            self.leadership.configure(self.configuration, LogIndex(self.log.last_index + 1))
        self.tracer.on_configuration(self.configuration, self.configurations.latest_index)

    def commit_to(self, index: LogIndex) -> None:
        """Raises the commit index; a lower `index` is old news."""
        if index > self.commit_index:
            assert index <= self.log.last_index, f"commit {index}, the last entry is {self.log.last_index}"
            self.commit_index = index
            self.tracer.on_commit(index)

    def hear_leader(self, leader_id: NodeId) -> None:
        """A message of the present term's leader arrived."""
        if self.role is not Role.FOLLOWER or self.leader_id != leader_id:
            self.become_follower(self.term, leader_id)
            return
        self.election_elapsed = 0
        if not self.leader_heard:
            self.leader_heard = True
            self.draw_election_timeout()  # it was shortened when the leader seemed lost

    def wake(self) -> None:
        """Starts ticking again."""
        if not self.quiesced:
            return
        self.quiesced = False
        self.election_elapsed = 0
        if self.leadership is not None:
            self.leadership.check_elapsed = 0
            self.leadership.idle_elapsed = 0
            for progress in self.leadership.progress.values():
                progress.quiet_ticks = self.config.heartbeat_ticks  # the next tick wakes the followers
        self.tracer.on_quiesced(False)

    def become_follower(self, term: Term, leader_id: NodeId) -> None:
        """Follows `leader_id` in `term`, or waits for a leader when it is `NO_NODE`."""
        self._enter_term(term)
        self.leave_leadership()
        self._become(Role.FOLLOWER, leader_id)
        self.leader_heard = leader_id != NO_NODE

    def become_pre_candidate(self) -> None:
        """Asks whether a campaign could be won, without touching the term (thesis 9.6)."""
        assert self.promotable, "a replica campaigns that may not lead"
        assert self.role is not Role.LEADER, "a leader campaigns"
        self._become(Role.PRE_CANDIDATE, NO_NODE)

    def become_candidate(self) -> None:
        """Opens a new term with a vote for itself, which counts once it is durable."""
        assert self.promotable, "a replica campaigns that may not lead"
        assert self.role is not Role.LEADER, "a leader campaigns"
        self._enter_term(Term(self.term + 1))
        self.vote = self.node_id
        self._become(Role.CANDIDATE, NO_NODE)

    def become_leader(self) -> None:
        """Leads the present term, which starts with a no-op: only its commit commits what came before (Raft 5.4.2)."""
        assert self.role is Role.CANDIDATE, f"a {self.role.value} wins an election"
        next_index = LogIndex(self.log.last_index + 1)
        self.leadership = Leadership(self.config, self.configuration, next_index, self.log.stable_index)
        self._become(Role.LEADER, self.node_id)
        self.append([Entry(next_index, self.term, EntryKind.NOOP, self.codec.noop(next_index, self.term))])

    def leave_leadership(self) -> None:
        """Drops what only a leader has; reads under way are reported as lost."""
        if self.leadership is not None:
            self.reads_lost.extend(self.leadership.reads.abandon())
            self.leadership = None

    def _become(self, role: Role, leader_id: NodeId) -> None:
        self.wake()
        self.role = role
        self.leader_id = leader_id
        self.leader_heard = False
        self.votes = {}
        self.election_elapsed = 0
        self.draw_election_timeout()
        self.tracer.on_role(role, self.term, leader_id)

    def _enter_term(self, term: Term) -> None:
        """Moves to a later term without a vote in it. Messages of the old term that have not left are dropped.

        The network may lose any message, so dropping is always allowed; it keeps an acknowledgement of the old term
        from leaving after the entry it speaks of has been truncated in the new one.
        """
        if term == self.term:
            return
        if term < self.term:
            raise InvariantViolation(f"term falls from {self.term} to {term}")
        self.term = term
        self.vote = NO_NODE
        self.verified_index = self.repair_target = LogIndex(0)
        self.outbox.clear()
        self.outbox_after_sync.clear()

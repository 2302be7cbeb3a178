"""What must hold at every moment in a simulated cluster, looked at whenever a node has done something.

election safety         one leader per group and term
leader append-only      no leader cuts or overwrites an entry of the term it leads
log matching            entries of one index and term are one entry, and so are those before them
leader completeness     who begins to lead holds what was committed in earlier terms
state machine safety    the entry applied at an index is the same on every replica, for ever; an applied entry is
                        never cut off behind, and is durable on a majority when it is applied first
promises                whatever leaves a node - a vote, an acknowledgement, a term - would survive its power going
monotone                terms and commit indexes within a process, matches within a session of a peer
serial changes          no configuration is appended before the one before it is committed
equal state             replicas that have applied the same have the same state
up to date              who says that it may decide has applied everything that was committed before its term
matches                 what a leader takes for matched stands on the disk of the peer whose session it counts
whole logs              the entries on a disk are those from the log's first to its last, and no others
repair                  who leaves REPAIR has everything that was committed when it came back
power                   what a node is in its cluster, and that it has forgotten nothing, outlives its power going
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from quorumlog.chaos.sim.disk_checks import Folders, check_log, check_match
from quorumlog.chaos.sim.failures import Violation
from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.shadow import Did, GroupShadow, Step, kind_of
from quorumlog.chaos.sim.watching import Watcher
from quorumlog.chaos.sim.world import World
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.partition import Trimmed
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.opened import Opened
from quorumlog.raft import Configuration, EntryKind, LogIndex, Message, MessageType, NodeId

DIGEST_EVERY: Final = 8
"""Entries of a partition or a group's offsets; of `__cluster` every state is compared."""

LOOK_EVERY: Final = 16
"""Turns of a node between two looks at its queues and at what its leaders know of their peers."""

TIMERS_MAX: Final = 20_000
WAITING_MAX: Final = 10_000
"""Bounds of queues that no load of a run comes near."""

_OF_THE_NEXT_TERM: Final = (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE)


class Invariants(Watcher):
    """Watches a world from its beginning to its end. Raises Violation."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leaders: dict[tuple[int, int], int] = {}
        self.applied: dict[int, dict[int, EntryHeader]] = defaultdict(dict)
        self.upto: dict[int, int] = {}
        self.log_starts: dict[int, int] = {}
        self.checks = 0
        self._digests: dict[tuple[int, int], bytes] = {}
        self._entries: dict[tuple[int, int, int], tuple[bytes, int]] = {}
        self._configurations: dict[int, dict[int, int]] = defaultdict(dict)
        self._committed_in: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._seen: dict[tuple[int, int], tuple[Replica, int, int]] = {}
        self._matches: dict[tuple[int, int, int], tuple[tuple[int, ...], int]] = {}
        self._committed_at_start: dict[int, dict[int, int]] = {}
        self._in_repair: set[tuple[int, int]] = set()
        self._to_apply: dict[tuple[int, int], int] = {}
        self._folders = Folders()
        self._changed: dict[int, set[int]] = defaultdict(set)
        self._turns = 0
        world.watchers.append(self)

    def _fail(self, group_id: int, what: str) -> None:
        raise Violation(f"seed {self.world.seed}: group {group_id}: {what}", group_id)

    # ------------------------------------------------------------------------------------------------ leaders

    def on_role(self, node_id: int, replica: Replica) -> None:
        """One leader per group and term, and it has all that was committed before its term."""
        group_id, raft = replica.group_id, replica.raft
        self._changed[node_id].add(group_id)
        self._to_apply.pop((node_id, group_id), None)
        if not replica.leads:
            self.world.tell(f"node {node_id} leads no more", group_id)
            return
        first = self.leaders.setdefault((group_id, raft.term), node_id)
        if first != node_id:
            self._fail(group_id, f"nodes {first} and {node_id} both lead in term {raft.term}")
        self.world.count("elections")
        self.world.tell(f"node {node_id} leads in term {raft.term}", group_id)
        for term, index in reversed(self._committed_in[group_id]):
            if term < raft.term:
                self._must_hold(node_id, replica, index)
                self._to_apply[node_id, group_id] = index
                break

    def _must_hold(self, node_id: int, replica: Replica, index: int) -> None:
        group_id = replica.group_id
        shadow = self.world.nodes[node_id].storage.shadow.visible.get(group_id, GroupShadow())
        header = self.applied[group_id].get(index)
        if header is not None and not shadow.holds(index, header.term):
            self._fail(
                group_id,
                f"node {node_id} leads in term {replica.raft.term} without entry {index} of term {header.term}, which "
                "was committed before",
            )

    # ------------------------------------------------------------------------------------------------ applied entries

    def on_applied(self, node_id: int, replica: Replica, header: EntryHeader, value: object) -> None:
        """What one replica has applied at an index, every replica applies there, at any time."""
        group_id, index = replica.group_id, header.index
        self._changed[node_id].add(group_id)
        log = self.applied[group_id]
        known = log.get(index)
        if known is None:
            log[index] = header
            self._on_committed(node_id, replica, header)
        elif known != header:
            self._fail(group_id, f"node {node_id} applies {header} where {known} was applied")
        if isinstance(value, Trimmed):
            self.log_starts[group_id] = max(self.log_starts.get(group_id, 0), value.log_start_offset)
        if group_id == CLUSTER_GROUP_ID or index % DIGEST_EVERY == 0:
            self._check_digest(node_id, replica)

    def _on_committed(self, node_id: int, replica: Replica, header: EntryHeader) -> None:
        """An entry was applied for the first time anywhere: a majority must have it, whatever happens next."""
        group_id, index = replica.group_id, header.index
        self.upto[group_id] = max(self.upto.get(group_id, 0), index)
        committed = self._committed_in[group_id]
        if committed and committed[-1][0] == replica.raft.term:
            committed[-1] = replica.raft.term, index
        else:
            committed.append((replica.raft.term, index))
        if header.kind is EntryKind.CONFIGURATION:
            self.world.count("configuration_changes")
            self.world.tell(f"{replica.raft.configuration} is committed at {index}", group_id)
        holders = {
            node.node_id
            for node in self.world.nodes.values()
            if any(shadow.ever_held(group_id, index, header.term) for shadow in node.shadows())
        }
        raft = replica.raft
        in_force = raft.configuration_at(LogIndex(index)), raft.configuration
        if not any(_majorities(configuration, holders) for configuration in in_force):
            self._fail(
                group_id,
                f"node {node_id} applies entry {index} of term {header.term}, which is durable on {sorted(holders)} "
                f"alone, under {raft.configuration}",
            )

    def on_installed(self, node_id: int, replica: Replica) -> None:
        """A snapshot stands for committed entries, and its state is the one that they lead to."""
        group_id, index = replica.group_id, replica.raft.applied
        self.world.count("snapshot_installs")
        self.world.tell(f"node {node_id} has installed a snapshot at {index}", group_id)
        self._changed[node_id].add(group_id)
        if index > self.upto.get(group_id, 0):
            self._fail(group_id, f"node {node_id} installed a snapshot at {index}, which nobody has applied")
        self._check_digest(node_id, replica)

    def _check_digest(self, node_id: int, replica: Replica) -> None:
        digest = hashlib.blake2b(replica.machine.snapshot(), digest_size=16).digest()
        applied = replica.raft.applied
        if self._digests.setdefault((replica.group_id, applied), digest) != digest:
            self._fail(replica.group_id, f"node {node_id} has another state at index {applied} than another one had")
        if isinstance(replica.machine, CommandMachine) and isinstance(replica.machine.state_machine, GroupsState):
            replica.machine.state_machine.check_invariants()

    # ------------------------------------------------------------------------------------------------ repair

    def on_opened(self, node: SimNode, opened: Opened) -> None:
        """See Folders."""
        self._folders.check(node, opened)

    def on_started(self, node: SimNode) -> None:
        """Remember what was committed when a process began: what it may have promised before is in that."""
        self._committed_at_start[node.node_id] = dict(self.upto)
        assert node.broker is not None
        assert node.opened is not None
        self._folders.remember(node, node.opened)
        for group_id in node.storage.shadow.visible:
            check_log(node, group_id)
        for group_id, replica in node.broker.multi.replicas.items():
            if not replica.counting:
                self._in_repair.add((node.node_id, group_id))
                self.world.count("repair_entered")

    def on_repaired(self, node_id: int, replica: Replica) -> None:
        """A replica remembers again whatever it may have promised before it forgot."""
        group_id = replica.group_id
        if (node_id, group_id) not in self._in_repair:
            self.world.count("repair_entered")  # it was born that way
        self._in_repair.discard((node_id, group_id))
        self.world.count("repair_exits")
        self.world.tell(f"node {node_id} leaves REPAIR", group_id)
        index = self._committed_at_start.get(node_id, {}).get(group_id, 0)
        header = self.applied[group_id].get(index)
        shadow = self.world.nodes[node_id].storage.shadow.visible.get(group_id, GroupShadow())
        if header is not None and not shadow.holds(index, header.term):
            self._fail(group_id, f"node {node_id} leaves REPAIR without entry {index} of term {header.term}")

    # ------------------------------------------------------------------------------------------------ the disk

    def on_write(self, node: SimNode, steps: Sequence[Step]) -> None:
        """A batch goes to a database: logs match, and nothing that counts is cut off."""
        begins = {step.group_id: step.one for step in steps if step.what is Did.BEGIN}
        changed = self._changed[node.node_id]
        previous: tuple[int, int, int] | None = None
        for step in steps:
            changed.add(step.group_id)
            if step.what is Did.PUT:
                before = previous[2] if previous is not None and previous[:2] == (step.group_id, step.one - 1) else None
                self._on_put(node, step, before)
                previous = step.group_id, step.one, step.two
            elif step.what is Did.CUT:
                self._on_cut(node, step, begins.get(step.group_id, 0))
            elif step.what is Did.HARD:
                shadow = node.storage.shadow.visible.get(step.group_id)
                if shadow is not None and step.one < shadow.term:
                    self._fail(step.group_id, f"node {node.node_id}: its term falls from {shadow.term} to {step.one}")

    def _on_put(self, node: SimNode, step: Step, before: int | None) -> None:
        group_id, index, term = step.group_id, step.one, step.two
        shadow = node.storage.shadow.visible.get(group_id)
        if before is None:
            before = shadow.terms.get(index - 1, -1) if shadow is not None else -1
        known = self._entries.setdefault((group_id, index, term), (step.data, before))
        if known[0] != step.data:
            self._fail(group_id, f"two entries {index} of term {term}: node {node.node_id} writes another one")
        if before >= 0 and known[1] >= 0 and known[1] != before:
            self._fail(group_id, f"entry {index} of term {term} stands behind terms {known[1]} and {before}")
        if kind_of(step.data) == EntryKind.CONFIGURATION:
            self._on_configuration(node, group_id, index, term)

    def _on_configuration(self, node: SimNode, group_id: int, index: int, term: int) -> None:
        known = self._configurations[group_id]
        if self.leaders.get((group_id, term)) == node.node_id and index not in known:
            replica = node.broker.multi.replicas.get(group_id) if node.broker is not None else None
            shadow = node.storage.shadow.visible.get(group_id)
            if replica is not None and shadow is not None:
                earlier = [one for one in known if one < index and shadow.terms.get(one) == known[one]]
                if earlier and max(earlier) > replica.raft.commit_index:
                    self._fail(
                        group_id,
                        f"node {node.node_id} appends the configuration at {index} before the one at {max(earlier)} is "
                        "committed",
                    )
        known[index] = term

    def _on_cut(self, node: SimNode, step: Step, begin: int) -> None:
        group_id = step.group_id
        shadow = node.storage.shadow.visible.get(group_id)
        if shadow is None or step.two == 1 << 63:
            return
        first = max(step.one, shadow.first, begin)
        last = min(step.two - 1, shadow.last)
        if first > last:
            return
        who = f"node {node.node_id}"
        self.world.tell(f"{who} cuts off entries {first} to {last}", group_id)
        applied = self.applied[group_id]
        for index in range(first, min(last, self.upto.get(group_id, 0)) + 1):
            header = applied.get(index)
            if header is not None and shadow.terms.get(index) == header.term:
                self._fail(group_id, f"{who} cuts off entry {index} of term {header.term}, which is applied")
        replica = node.broker.multi.replicas.get(group_id) if node.broker is not None else None
        if replica is not None and replica.raft.is_leader:
            own = [index for index in range(first, last + 1) if shadow.terms.get(index) == replica.raft.term]
            if own:
                self._fail(group_id, f"{who} leads and cuts off its own entries from {own[0]} on")

    # ------------------------------------------------------------------------------------------------ promises

    def on_said(self, node: SimNode, group_id: int, message: Message) -> None:
        """Whatever a message promises would be kept if the power went now."""
        self._changed[node.node_id].add(group_id)
        if message.type in _OF_THE_NEXT_TERM:
            return
        term, vote = node.votes_durable.get(group_id, (0, 0))
        shadow = node.storage.shadow
        durable, visible = shadow.durable.get(group_id), shadow.visible.get(group_id)
        # The database has it written at least: what the votes file kept of an earlier birth needs no sync of its own.
        written = visible.term if visible is not None else 0
        if term < message.term or (not node.past_shadows and written < message.term):
            self._fail(
                group_id,
                f"node {node.node_id} says {message.type.name} in term {message.term}, but would come back in term "
                f"{term} by its votes file, {written} by its database",
            )
        if message.type is MessageType.VOTE:
            self._must_have_voted(node, group_id, message.term, node.node_id, (term, vote))
        elif message.type is MessageType.VOTE_RESPONSE and not message.reject:
            self._must_have_voted(node, group_id, message.term, message.to, (term, vote))
        elif message.type is MessageType.APPEND_RESPONSE and not message.reject:
            self._must_be_durable(node, group_id, durable, message)

    def _must_have_voted(self, node: SimNode, group_id: int, term: int, vote: int, kept: tuple[int, int]) -> None:
        if kept[0] == term and kept[1] != vote:
            self._fail(
                group_id,
                f"node {node.node_id} votes for {vote} in term {term}, but would come back having voted for {kept[1]}",
            )

    def _must_be_durable(self, node: SimNode, group_id: int, durable: GroupShadow | None, message: Message) -> None:
        """The leader's entry at the index acknowledged stands on the disk; who leads no more cannot be asked.

        An acknowledgement of an earlier term may leave behind a later leader's cut: whoever elected that one did not
        have the entry, so it is not committed without one of them, and none of them acknowledges it any more.
        """
        leader = self.leaders.get((group_id, message.term))
        visible = node.storage.shadow.visible.get(group_id)
        if leader != message.to or visible is None or visible.term > message.term:
            return
        broker = self.world.nodes[leader].broker
        replica = broker.multi.replicas.get(group_id) if broker is not None else None
        if replica is None or not replica.raft.is_leader or replica.raft.term != message.term:
            return
        shadow = self.world.nodes[leader].storage.shadow.visible.get(group_id)
        wanted = shadow.terms.get(message.index) if shadow is not None else None
        if wanted is not None and (durable is None or not durable.holds(message.index, wanted)):
            self._fail(
                group_id,
                f"node {node.node_id} acknowledges entry {message.index} of term {wanted} in term {message.term}, "
                "which is not on its disk",
            )

    # ------------------------------------------------------------------------------------------------ turns

    def on_step(self, node: SimNode) -> None:
        """A node has finished a turn: look at the replicas that had a part in it."""
        broker = node.broker
        changed = self._changed[node.node_id]
        if broker is None or not changed:
            return
        self._turns += 1
        look = self._turns % LOOK_EVERY == 0
        for group_id in changed:
            check_log(node, group_id)
            replica = broker.multi.replicas.get(group_id)
            if replica is None:
                continue
            self.checks += 1
            raft = replica.raft
            key = node.node_id, group_id
            now = replica, raft.commit_index, raft.term
            before = self._seen.get(key)
            if before is not None and before[0] is replica and (before[1] > now[1] or before[2] > now[2]):
                what = f"commit index and term fall from {before[1:]} to {now[1:]}"
                self._fail(group_id, f"node {node.node_id}: {what}")
            self._seen[key] = now
            if key in self._to_apply and replica.ready_to_decide:
                index = self._to_apply.pop(key)
                if raft.applied < index:
                    what = f"decides in term {raft.term} with {raft.applied} applied, and {index} was committed before"
                    self._fail(group_id, f"node {node.node_id} {what}")
            if look:
                self._look(node, replica)
        changed.clear()
        if look and len(node.timers) > TIMERS_MAX:
            self._fail(0, f"node {node.node_id} has {len(node.timers)} timers")

    def _look(self, node: SimNode, replica: Replica) -> None:
        raft = replica.raft
        raft.check_invariants()
        if len(replica._waiting) > WAITING_MAX:
            self._fail(replica.group_id, f"node {node.node_id}: {len(replica._waiting)} proposers wait")
        if not raft.is_leader:
            return
        for peer in raft.configuration.replicas:
            progress = raft.progress(NodeId(peer))
            if progress is None:
                continue
            # Who leaves the group and comes back is a new peer, as is one that opens a new session.
            epoch = node.session_id, raft.term, raft.configuration_index, node.heard.get(peer, 0)
            key = node.node_id, replica.group_id, peer
            before = self._matches.get(key)
            if before is not None and before[0] == epoch and progress.match_index < before[1]:
                what = f"the match of node {peer} falls from {before[1]} to {progress.match_index} within a session"
                self._fail(replica.group_id, f"node {node.node_id}: {what}")
            self._matches[key] = epoch, progress.match_index
            if progress.counting:
                check_match(node, replica, self.world.nodes[peer], progress.match_index)

    def check(self) -> None:
        """Look at every replica of every node."""
        for node_id, broker in self.world.brokers().items():
            for replica in broker.multi.replicas.values():
                replica.raft.check_invariants()
                self._check_digest(node_id, replica)


def _majorities(configuration: Configuration, holders: Collection[int]) -> bool:
    """Whether these nodes are a majority of every set of voters."""
    parts = [voters for voters in (configuration.voters, configuration.outgoing) if voters]
    return all(2 * sum(voter in holders for voter in voters) > len(voters) for voters in parts)

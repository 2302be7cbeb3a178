"""A cluster of shells under a random network and random disks, watched after every step.

One seed decides everything: which message arrives, is lost, doubled or overtaken, when a disk finishes, who crashes,
which links are cut, who is to vote, whose disk forgets, and which node loses everything and comes back as another.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from quorumlog.raft import (
    Config,
    Configuration,
    ConfigurationRefused,
    ConfigurationRow,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    NotLeader,
    ProposalRefused,
)
from quorumlog.raft.quorum import has_quorum
from tests.raft.cluster_checks import Checks
from tests.raft.memory_shell import NEVER_VOTED, MemoryLog, Shell, configuration

ROUNDS_TO_RECOVER = 400
NODES_MAX = 6
DISKS_REMEMBERED = 30
NOBODY = Configuration(())


@dataclass(frozen=True, slots=True)
class Frame:
    """A message under way, with who spoke to whom in which lives."""

    message: Message
    sender_life: tuple[int, int]
    receiver_life: tuple[int, int]


class Disk(NamedTuple):
    """A disk as it was after some write."""

    log: MemoryLog
    rows: tuple[ConfigurationRow, ...]
    commit_index: int


class RandomCluster:
    """`shells` are the replicas there are; a node without one was never placed, was removed, or has lost everything.

    A node's life is its incarnation, which changes when it loses everything, and its session. What an earlier
    incarnation sent or was sent is dropped by the shells; what an earlier session sent is dropped by whoever has heard
    a later one. Where sessions are strict, every crash begins one and breaks off what was under way.
    """

    sizes: ClassVar[tuple[int, ...]] = (1, 3, 3, 3, 5)

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        size = self.rng.choice(self.sizes)
        self.nodes = range(1, min(size + 3, NODES_MAX) + 1)
        self.loss = self.rng.choice((0.0, 0.05, 0.3))
        self.duplication = self.rng.choice((0.0, 0.1, 0.5))
        self.fifo = self.rng.random() < 0.3
        self.strict_sessions = self.rng.random() < 0.5
        self.damage = self.rng.choice((0, 1, 4))
        self.changes = self.rng.choice((0, 1, 4, 8))
        self.network: list[Frame] = []
        self.cut: set[tuple[int, int]] = set()
        self.sessions = dict.fromkeys(self.nodes, 0)
        self.heard: dict[tuple[int, int], int] = {}
        self.healed = False
        self.votes_files: dict[int, HardState] = {}
        self.proposed = 0
        self.times_asleep = 0
        self.wipes = 0
        self.rebirths = 0
        self.limits: dict[str, Any] = {
            "election_ticks": self.rng.choice((4, 4, 10)),
            "heartbeat_ticks": 1 if self.rng.random() < 0.7 else 2,
            "inflight_messages_max": self.rng.choice((1, 3, 64)),
            "append_size_bytes_max": self.rng.choice((1, 40, 1000)),
            "inflight_size_bytes_max": 2000,
            "uncommitted_size_bytes_max": 4000,
            "prompt_commit": self.rng.choice((True, False)),
        }
        self.shells: dict[int, Shell] = {}
        self.disks_of_before: dict[int, deque[Disk]] = {}
        founding = configuration(*range(1, size + 1))
        self.checks = Checks(self.shells, founding, self.knows)
        for node_id in founding.voters:
            self.make(node_id, founding)

    def make(self, node_id: int, known: Configuration) -> None:
        """A replica is born, with its group or after it; the file with its votes outlives a replica."""
        self.shells[node_id] = Shell(
            node_id,
            known,
            Config(NodeId(node_id), **self.limits),
            random.Random(self.rng.random()),
            disk_hard_state=self.votes_files.get(node_id, NEVER_VOTED),
            nonce=0 if known.voters else self.rng.getrandbits(31) + 1,
            remembers_commit=self.rng.random() < 0.5,
            tracer=self.checks.tracer(node_id),
            send=self.sender_of(node_id),
            on_read=self.checks.check_read,
            on_apply=self.checks.check_applied,
            on_install=lambda index: self.checks.check_installed(self.shells[node_id], index),
            on_repaired=lambda: self.checks.check_repaired(node_id),
            on_written=lambda: self.remember(node_id),
        )
        self.disks_of_before[node_id] = deque(maxlen=DISKS_REMEMBERED)
        self.remember(node_id)

    def sender_of(self, node_id: int) -> Callable[[Message], None]:
        def send(message: Message) -> None:
            self.checks.check_sent(self.shells[node_id], message)
            self.network.append(Frame(message, self.life(message.sender), self.life(message.to)))

        return send

    def life(self, node_id: int) -> tuple[int, int]:
        return self.checks.incarnations.get(node_id, 0), self.sessions.get(node_id, 0)

    # What happens

    def run(self, steps: int) -> None:
        actions: list[tuple[Callable[[Shell], None], float]] = [
            (self.deliver, 50), (self.work, 30), (self.sync, 20), (self.tick, 40), (self.propose, 6), (self.read, 3),
            (self.crash, 0.8), (self.change_links, 1), (self.compact, 1), (self.snapshot, 2), (self.transfer, 0.4),
            (self.disturb, 0.5), (self.calm, 0.1), (self.configure, self.changes), (self.place, self.changes),
            (self.delete, self.changes / 2), (self.forget, self.damage / 4), (self.wipe, self.damage / 8),
        ]  # fmt: skip
        choices = self.rng.choices([one for one, _ in actions], [weight for _, weight in actions], k=steps)
        for action in choices:
            action(self.rng.choice(list(self.shells.values())))
            self.checks.watch()

    def deliver(self, _: Shell) -> None:
        if not self.network:
            return
        place = 0 if self.fifo else self.rng.randrange(min(len(self.network), 40))
        frame = self.network[place]
        message = frame.message
        if self.healed or self.rng.random() >= self.duplication:
            del self.network[place]
        if not self.healed and (self.rng.random() < self.loss or (message.sender, message.to) in self.cut):
            return
        if message.to in self.shells and self.is_current(frame):
            self.shells[message.to].step(message)

    def is_current(self, frame: Frame) -> bool:
        """Whether the receiver's shell hands the message to its core; a new session is told to it first."""
        sender, to = frame.message.sender, frame.message.to
        now, then = (self.life(sender), self.life(to)), (frame.sender_life, frame.receiver_life)
        if (now[0][0], now[1][0]) != (then[0][0], then[1][0]):
            return False
        if self.strict_sessions:
            return now == then
        session, heard = frame.sender_life[1], self.heard.get((to, sender), 0)
        if session > heard:
            self.heard[to, sender] = session
            self.reset_peer(to, sender)
        return session >= heard

    def knows(self, node_id: int, peer: int) -> bool:
        """Whether a node has heard of the present session of another one."""
        return self.strict_sessions or self.heard.get((node_id, peer), 0) == self.sessions[peer]

    def reset_peer(self, node_id: int, peer: int) -> None:
        self.shells[node_id].node.reset_peer(NodeId(peer))
        self.checks.forget_match(node_id, peer)

    def work(self, shell: Shell) -> None:
        if shell.node.has_ready():
            led_before = shell.node.is_leader and self.checks.leaders.get(shell.node.term) == shell.node_id
            ready = shell.take()
            self.checks.check_written(shell, ready, led_before)

    def sync(self, shell: Shell) -> None:
        shell.sync(self.rng.choice((1, 2, None)))

    def tick(self, shell: Shell) -> None:
        shell.node.tick()

    def propose(self, shell: Shell) -> None:
        shell = self.leader() or shell
        for _ in range(self.rng.choice((1, 1, 5))):
            self.proposed += 1
            try:
                shell.propose(*[b"%d" % self.proposed * self.rng.choice((1, 5))] * self.rng.choice((1, 3)))
            except (NotLeader, ProposalRefused):
                return

    def read(self, shell: Shell) -> None:
        context = len(self.checks.reads) + 1
        self.checks.reads[context] = self.checks.last_committed
        try:
            (self.leader() or shell).node.read_index(context)
        except NotLeader:
            return

    def crash(self, shell: Shell) -> None:
        self.start(shell, new_session=self.strict_sessions)

    def start(self, shell: Shell, *, new_session: bool) -> None:
        if shell.nonce:
            shell.nonce = self.rng.getrandbits(31) + 1
        shell.start()
        self.checks.commits_seen.pop(shell.node_id, None)
        for other in self.nodes:
            self.checks.forget_match(shell.node_id, other)
            self.heard.pop((shell.node_id, other), None)
        if new_session:
            self.sessions[shell.node_id] += 1
        self.tell_of(shell.node_id, reset=new_session and self.strict_sessions)

    def tell_of(self, node_id: int, *, reset: bool) -> None:
        """The streams of a node broke; the others notice."""
        for other in self.shells.values():
            if other.node_id != node_id:
                other.node.report_unreachable(NodeId(node_id))
                if reset:
                    self.reset_peer(other.node_id, node_id)

    def change_links(self, shell: Shell) -> None:
        kind = self.rng.randrange(5)
        if kind == 4:
            here = [one for one in self.nodes if self.rng.random() < 0.5]
            self.cut = {(one, two) for one in self.nodes for two in self.nodes if (one in here) != (two in here)}
        elif kind == 0:
            self.cut.clear()
        elif kind == 1:
            self.cut = {(shell.node_id, one) for one in self.nodes} | {(one, shell.node_id) for one in self.nodes}
        else:
            self.cut = {(one, two) for one in self.nodes for two in self.nodes if self.rng.random() < 0.3}
        for one, two in sorted(self.cut):
            if one != two and two in self.shells and self.rng.random() < 0.5:
                self.shells[two].node.report_unreachable(NodeId(one))

    def compact(self, shell: Shell) -> None:
        """Anywhere in what is applied and durable here: whoever is behind gets a snapshot."""
        upto = min(shell.node.applied, shell.node.stable_index)
        if upto >= shell.node.first_index:
            shell.compact(self.rng.randint(shell.node.first_index, upto))

    def snapshot(self, shell: Shell) -> None:
        """A leader's shell sends a snapshot to a peer, wanted or not, of any state that it may still have."""
        shell = self.leader() or shell
        node = shell.node
        for peer in node.configuration.replicas:
            progress = node.progress(peer)
            wanted = progress is not None and (progress.needs_snapshot or self.rng.random() < 0.1)
            at = self.rng.randint(shell.log.offset, node.applied) if node.applied >= shell.log.offset else 0
            if wanted and at:
                self.send_snapshot(shell, peer, LogIndex(at))

    def send_snapshot(self, shell: Shell, peer: NodeId, at: LogIndex) -> None:
        term = shell.log.term(at)
        assert term is not None
        known, to = shell.node.configuration_at(at), shell.node.term
        if to <= shell.disk_hard_state.term:
            message = Message(MessageType.SNAPSHOT, NodeId(shell.node_id), peer, to, at, term, configuration=known)
            self.sender_of(shell.node_id)(message)

    def transfer(self, shell: Shell) -> None:
        leader = self.leader()
        if leader is not None:
            others = [one for one in leader.node.configuration.voters if one != leader.node_id]
            if others:
                leader.node.transfer_leadership(self.rng.choice(others))

    def disturb(self, shell: Shell) -> None:
        self.rng.choice((shell.node.wake, shell.node.campaign))()

    def calm(self, _: Shell) -> None:
        """Long enough without a fault for the group to fall asleep."""
        self.healed = True
        for _round in range(3 * self.limits["election_ticks"]):
            self.settle()
        self.times_asleep += all(one.node.quiesced for one in self.shells.values())
        self.healed = False

    def settle(self) -> None:
        """One tick everywhere, with every message delivered and every write synced."""
        for shell in self.shells.values():
            self.tick(shell)
            if shell.node.is_leader:
                self.snapshot(shell)
        anyone = next(iter(self.shells.values()))
        for _ in range(6):
            for shell in self.shells.values():
                self.work(shell)
                shell.sync()
            for _ in range(len(self.network)):
                self.deliver(anyone)
            self.checks.watch()

    # Who votes, and where replicas are

    def configure(self, shell: Shell) -> None:
        """The leader is asked for any other configuration of the replicas that there are."""
        leader = self.leader()
        if leader is None:
            return
        now = leader.node.configuration
        present = [NodeId(one) for one in sorted(self.shells)]
        learners = [one for one in present if one not in now.voters and self.rng.random() < 0.7]
        voters = [one for one in now.voters if self.rng.random() < 0.8]
        promoted = [one for one in learners if one in now.learners and self.rng.random() < 0.5]
        demoted = [one for one in now.voters if one not in voters and one in present and self.rng.random() < 0.5]
        if self.rng.random() < 0.3:
            voters = voters[: self.rng.randrange(2)]  # most are replaced
        voters = sorted(voters + promoted)
        if len(voters) <= 5 and self.keeps_a_quorum(voters):
            self.ask(leader, voters, sorted({*learners, *demoted} - set(voters)))

    def ask(self, leader: Shell, voters: Sequence[NodeId], learners: Sequence[NodeId]) -> None:
        try:
            leader.node.propose_configuration(voters, learners)
        except (ConfigurationRefused, NotLeader):
            return

    def place(self, _: Shell) -> None:
        """A replica is placed on a node that has none. It knows nothing of the group, and is in repair."""
        missing = [one for one in self.nodes if one not in self.shells and not self.is_wanted(one)]
        if missing:
            self.rebirth(self.rng.choice(missing))

    def rebirth(self, node_id: int) -> None:
        self.rebirths += 1
        self.sessions[node_id] += 1  # what its former self sent in this process is over as well
        self.make(node_id, NOBODY)
        self.tell_of(node_id, reset=self.strict_sessions)

    def delete(self, shell: Shell) -> None:
        """A replica that the group has let go is deleted. Its votes stay in their file."""
        if not self.is_wanted(shell.node_id) and len(self.shells) > 1 and self.is_spared(shell.node_id):
            self.votes_files[shell.node_id] = shell.disk_hard_state
            self.remove(shell.node_id)

    def remove(self, node_id: int) -> None:
        shell = self.shells.pop(node_id)
        self.checks.commits_seen.pop(node_id, None)
        for other in self.nodes:
            self.checks.forget_match(node_id, other)
            self.heard.pop((node_id, other), None)
        self.checks.lost.pop(node_id, None)
        del shell
        self.tell_of(node_id, reset=False)

    def is_wanted(self, node_id: int) -> bool:
        """Whether the last committed configuration has it, or is only on its way to another."""
        now = self.checks.configurations[-1].configuration
        return now.joint or node_id in now.replicas

    # Damage

    def remember(self, node_id: int) -> None:
        if self.damage:
            shell = self.shells[node_id]
            self.disks_of_before[node_id].append(Disk(shell.disk.copy(), shell.disk_rows, shell.commit_index))

    def forget(self, shell: Shell) -> None:
        """A disk is again as it was some writes ago, or has lost everything; the replica notices, and is in repair.

        What the disk once held stands there again, also where it had been truncated since. Votes have their own file.
        """
        if not self.is_spared(shell.node_id):
            return
        now, before = shell.disk, self.rng.choice(self.disks_of_before[shell.node_id])
        if self.rng.random() < 0.2:
            before = Disk(MemoryLog(), (ConfigurationRow(LogIndex(0), shell.voters),), 0)
        held: dict[int, int] = {one.index: one.term for one in now.stored}
        held |= {index: entry.term for index, entry in self.checks.committed.items() if index <= now.offset}
        lost = self.checks.lost.setdefault(shell.node_id, {})
        lost |= {index: term for index, term in held.items() if not before.log.holds(index, term)}
        shell.disk, shell.disk_rows, shell.commit_index = before.log.copy(), before.rows, before.commit_index
        shell.nonce = 1
        self.start(shell, new_session=True)

    def wipe(self, shell: Shell) -> None:
        """A node loses everything, its votes too. It may come back only as another incarnation, once it is let go."""
        if self.is_spared(shell.node_id) and len(self.shells) > 1:
            self.wipes += 1
            self.votes_files.pop(shell.node_id, None)
            self.checks.incarnations[shell.node_id] = self.checks.incarnations.get(shell.node_id, 0) + 1
            self.remove(shell.node_id)

    def is_spared(self, node_id: int) -> bool:
        """Whether a whole majority is left without this node, by every configuration that may come into force."""
        last = self.checks.configurations[-1]
        possible = [last.configuration, *(row.configuration for one in self.shells.values() for row in one.rows)]
        possible += [one.node.configuration for one in self.shells.values()]
        indexes = [last.index, *(row.index for one in self.shells.values() for row in one.rows)]
        indexes += [one.node.configuration_index for one in self.shells.values()]
        whole = [NodeId(one) for one, shell in self.shells.items() if not shell.nonce and one != node_id]
        return all(has_quorum(one, whole) for one, index in zip(possible, indexes, strict=True) if index >= last.index)

    def keeps_a_quorum(self, voters: Sequence[NodeId]) -> bool:
        whole = [NodeId(one) for one, shell in self.shells.items() if not shell.nonce]
        return bool(voters) and has_quorum(Configuration(tuple(voters)), whole)

    def leader(self) -> Shell | None:
        leaders = [one for one in self.shells.values() if one.node.is_leader]
        return self.rng.choice(leaders) if leaders else None

    # In the end

    def recover(self) -> int:
        """Heals everything and returns the rounds until the group is whole, on its replicas and on a node that had
        none, and has a new entry everywhere; raises if that never is.
        """
        self.healed = True
        self.cut.clear()
        marker: int | None = None
        for round_number in range(ROUNDS_TO_RECOVER):
            self.settle()
            leader = self.newest_leader()
            if leader is None or not self.heal(leader):
                marker = None
            elif marker is None or leader.node.last_index < marker:
                leader.propose(b"marker")
                marker = leader.node.last_index
            elif all(self.shells[one].node.applied >= marker for one in leader.node.configuration.replicas):
                return round_number
        states = [
            (one.node_id, one.node.role.value, one.node.term, one.node.quiesced, one.node.counting, one.node.last_index)
            for one in self.shells.values()
        ]
        raise AssertionError(f"not whole in {ROUNDS_TO_RECOVER} rounds after healing: {states}")

    def newest_leader(self) -> Shell | None:
        leaders = [one for one in self.shells.values() if one.node.is_leader and one.node.transferring_to is None]
        return max(leaders, key=lambda one: one.node.term, default=None)

    def heal(self, leader: Shell) -> bool:
        """Brings the group to three voters or more, on replicas that are there and count. Tells when it is."""
        now = leader.node.configuration
        if now.joint or leader.node.configuration_index > leader.node.commit_index:
            return False
        present = [one for one in now.replicas if one in self.shells]
        if len(present) < len(now.replicas):
            self.ask(leader, [one for one in now.voters if one in present], [x for x in now.learners if x in present])
            return False
        if len(now.replicas) < min(3, len(self.nodes)):
            spare = next(NodeId(one) for one in self.nodes if one not in now.replicas)
            if spare not in self.shells:
                self.rebirth(spare)
            self.ask(leader, now.voters, sorted((*now.learners, spare)))
            return False
        if now.learners:
            self.ask(leader, sorted(now.replicas), ())
            return False
        return all(self.shells[one].node.counting for one in now.replicas)

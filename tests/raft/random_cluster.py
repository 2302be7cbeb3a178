"""A cluster of shells under a random network and random disks, watched after every step.

One seed decides everything: which message arrives, is lost, doubled or overtaken, when a disk finishes, who crashes and
which links are cut. The checks are those of Raft figure 3 and stronger ones about durability, which only a simulation
that sees all disks can make.
"""

import random
from collections.abc import Callable
from typing import Any

from quorumlog.raft import (
    Config,
    Entry,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    NotLeader,
    ProposalRefused,
    ReadState,
)
from tests.raft.memory_shell import Shell, configuration

ROUNDS_TO_RECOVER = 300


class RandomCluster:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.size = self.rng.choice((1, 3, 3, 3, 5))
        self.loss = self.rng.choice((0.0, 0.05, 0.3))
        self.duplication = self.rng.choice((0.0, 0.1, 0.5))
        self.fifo = self.rng.random() < 0.3
        self.strict_sessions = self.rng.random() < 0.5
        self.network: list[tuple[Message, int, int]] = []
        self.cut: set[tuple[int, int]] = set()
        self.sessions = dict.fromkeys(range(1, self.size + 1), 0)
        self.healed = False

        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int], int] = {}
        self.written: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.committed: dict[int, Entry] = {}
        self.reads: dict[int, int] = {}
        self.commits_seen: dict[int, int] = {}
        self.proposed = 0
        self.reads_answered = 0
        self.times_asleep = 0

        limits: dict[str, Any] = {
            "election_ticks": self.rng.choice((4, 10)),
            "heartbeat_ticks": self.rng.choice((1, 2)),
            "inflight_messages_max": self.rng.choice((1, 3, 64)),
            "append_size_bytes_max": self.rng.choice((1, 40, 1000)),
            "inflight_size_bytes_max": 2000,
            "uncommitted_size_bytes_max": 4000,
            "prompt_commit": self.rng.choice((True, False)),
        }
        voters = configuration(*range(1, self.size + 1))
        self.shells = {
            node_id: Shell(
                node_id,
                voters,
                Config(NodeId(node_id), **limits),
                random.Random(self.rng.random()),
                send=self.sender_of(node_id),
                on_read=self.check_read,
                on_apply=self.check_applied,
            )
            for node_id in range(1, self.size + 1)
        }

    def sender_of(self, node_id: int) -> Callable[[Message], None]:
        def send(message: Message) -> None:
            self.check_sent(self.shells[node_id], message)
            self.network.append((message, self.sessions[message.sender], self.sessions[message.to]))

        return send

    # What happens

    def run(self, steps: int) -> None:
        actions = [
            (self.deliver, 50), (self.work, 30), (self.sync, 20), (self.tick, 40), (self.propose, 6), (self.read, 3),
            (self.crash, 0.8), (self.change_links, 1), (self.compact, 0.5), (self.transfer, 0.4), (self.disturb, 0.5),
            (self.calm, 0.1),
        ]  # fmt: skip
        choices = self.rng.choices([one for one, _ in actions], [weight for _, weight in actions], k=steps)
        for action in choices:
            action(self.shells[self.rng.randint(1, self.size)])
            self.watch()

    def deliver(self, _: Shell) -> None:
        if not self.network:
            return
        place = 0 if self.fifo else self.rng.randrange(min(len(self.network), 40))
        message, sender_session, session = self.network[place]
        if self.healed or self.rng.random() >= self.duplication:
            del self.network[place]
        if not self.healed and (self.rng.random() < self.loss or (message.sender, message.to) in self.cut):
            return
        current = (self.sessions[message.sender], self.sessions[message.to])
        if self.strict_sessions and (sender_session, session) != current:
            return
        self.shells[message.to].node.step(message)

    def work(self, shell: Shell) -> None:
        if shell.node.has_ready():
            ready = shell.take()
            self.check_written(shell, ready.entries)

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
        context = len(self.reads) + 1
        self.reads[context] = max(self.committed, default=0)
        try:
            (self.leader() or shell).node.read_index(context)
        except NotLeader:
            return

    def crash(self, shell: Shell) -> None:
        shell.start()
        self.sessions[shell.node_id] += 1
        self.commits_seen.pop(shell.node_id, None)
        for other in self.shells.values():
            if other is not shell:
                other.node.report_unreachable(NodeId(shell.node_id))
                if self.strict_sessions:
                    other.node.reset_peer(NodeId(shell.node_id))

    def change_links(self, shell: Shell) -> None:
        kind = self.rng.randrange(4)
        nodes = range(1, self.size + 1)
        if kind == 0:
            self.cut.clear()
        elif kind == 1:
            self.cut = {(shell.node_id, one) for one in nodes} | {(one, shell.node_id) for one in nodes}
        else:
            self.cut = {(one, two) for one in nodes for two in nodes if self.rng.random() < 0.3}
        for one, two in sorted(self.cut):
            if one != two and self.rng.random() < 0.5:
                self.shells[two].node.report_unreachable(NodeId(one))

    def compact(self, shell: Shell) -> None:
        """As far as every replica has durably applied: there are no snapshots to help one that falls behind."""
        upto = min(min(one.node.applied, one.node.stable_index) for one in self.shells.values())
        if upto >= shell.node.first_index:
            shell.compact(upto)

    def transfer(self, shell: Shell) -> None:
        leader = self.leader()
        if leader is not None and leader is not shell:
            leader.node.transfer_leadership(NodeId(shell.node_id))

    def disturb(self, shell: Shell) -> None:
        self.rng.choice((shell.node.wake, shell.node.campaign))()

    def calm(self, _: Shell) -> None:
        """Long enough without a fault for the group to fall asleep."""
        self.healed = True
        for _round in range(3 * self.shells[1].config.election_ticks):
            self.settle()
        self.times_asleep += all(one.node.quiesced for one in self.shells.values())
        self.healed = False

    def settle(self) -> None:
        """One tick everywhere, with every message delivered and every write synced."""
        for shell in self.shells.values():
            self.tick(shell)
        for _ in range(6):
            for shell in self.shells.values():
                self.work(shell)
                shell.sync()
            for _ in range(len(self.network)):
                self.deliver(self.shells[1])
            self.watch()

    def leader(self) -> Shell | None:
        leaders = [one for one in self.shells.values() if one.node.is_leader]
        return self.rng.choice(leaders) if leaders else None

    # What must hold

    def watch(self) -> None:
        for node_id, shell in self.shells.items():
            node = shell.node
            assert shell.disk_hard_state.term <= node.term
            assert node.commit_index >= self.commits_seen.get(node_id, 0), f"commit of {node_id} falls"
            if node.commit_index > self.commits_seen.get(node_id, 0):
                if node.is_leader:  # a follower may not have handed out yet what it commits; see check_applied
                    self.check_committed(shell, self.commits_seen.get(node_id, 0))
                self.commits_seen[node_id] = node.commit_index
            if node.is_leader and self.leaders.get(node.term) != node_id:
                assert node.term not in self.leaders, f"two leaders in term {node.term}"  # election safety
                self.leaders[node.term] = node_id
                self.check_leader_completeness(shell)

    def check_leader_completeness(self, shell: Shell) -> None:
        node = shell.node
        for index, entry in self.committed.items():
            if entry.term < node.term and index > shell.log.offset:
                assert shell.log.holds(index, entry.term), f"leader {shell.node_id} of {node.term} lacks {index}"

    def check_committed(self, shell: Shell, before: int) -> None:
        """What a leader commits is durable on a quorum at that moment."""
        for index in range(max(before, shell.log.offset) + 1, shell.node.commit_index + 1):
            self.check_is_committed(shell.log.stored[index - shell.log.offset - 1])

    def check_is_committed(self, entry: Entry) -> None:
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"two entries committed at {entry.index}"  # state machine safety
        holders = sum(one.disk.holds(entry.index, entry.term) for one in self.shells.values())
        assert holders > self.size // 2, f"entry {entry.index} is committed but durable on {holders} of {self.size}"

    def check_applied(self, entry: Entry) -> None:
        self.check_is_committed(entry)

    def check_written(self, shell: Shell, entries: tuple[Entry, ...]) -> None:
        """Log matching: an index and a term name one entry, and one entry before it."""
        for entry in entries:
            before = shell.log.term(LogIndex(entry.index - 1))
            assert before is not None
            known = self.written.setdefault((entry.index, entry.term), (entry.data, before))
            assert known == (entry.data, before), f"two entries {entry.index} of term {entry.term}"

    def check_sent(self, shell: Shell, message: Message) -> None:
        """Nothing is promised that a crash at this moment would take back."""
        disk, hard_state = shell.disk, shell.disk_hard_state
        if message.type not in (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE):
            assert message.term <= hard_state.term, f"{message} leaves before its term is durable"
        granted = message.type is MessageType.VOTE_RESPONSE and not message.reject
        if granted or message.type is MessageType.VOTE:
            candidate = message.to if granted else message.sender
            assert hard_state.term == message.term, f"{message} leaves with term {hard_state.term} on the disk"
            assert hard_state.vote == candidate, f"{message} leaves with vote {hard_state.vote} on the disk"
            assert self.votes.setdefault((message.sender, message.term), candidate) == candidate, "voted twice"
        if message.type is MessageType.APPEND_RESPONSE and not message.reject:
            assert disk.last_index() >= message.index, f"{message} acknowledges what is not durable"
            leader = self.shells[message.to]
            if leader.node.is_leader and leader.node.term == message.term and message.index <= leader.log.last_index():
                term = leader.log.term(message.index)
                assert term is None or disk.holds(message.index, term), f"{message} acknowledges another entry"

    def check_read(self, state: ReadState) -> None:
        self.reads_answered += 1
        assert state.index >= self.reads[state.context], f"read {state.context} is answered from the past"

    # In the end

    def recover(self) -> int:
        """Heals everything and returns the rounds until a new entry is applied everywhere; raises if that never is."""
        self.healed = True
        self.cut.clear()
        marker: int | None = None
        for round_number in range(ROUNDS_TO_RECOVER):
            self.settle()
            leader = self.leader()
            if marker is None and leader is not None and leader.node.commit_index == leader.node.last_index:
                try:
                    leader.propose(b"marker")
                except NotLeader:
                    continue
                marker = leader.node.last_index
            elif marker is not None and all(shell.node.applied >= marker for shell in self.shells.values()):
                return round_number
            elif marker is not None and leader is not None and leader.node.last_index < marker:
                marker = None  # the leader changed before it was replicated
        states = [(one.node_id, one.node.role.value, one.node.term, one.node.quiesced) for one in self.shells.values()]
        raise AssertionError(f"no progress in {ROUNDS_TO_RECOVER} rounds after healing: {states}")

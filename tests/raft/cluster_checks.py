"""What must hold in a cluster of replicas at every step: Raft figure 3, durability, changes and repairs."""

from collections.abc import Callable
from itertools import pairwise

from quorumlog.raft import (
    Configuration,
    ConfigurationRow,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    ReadState,
    Ready,
    Term,
    Tracer,
)
from quorumlog.raft.quorum import has_quorum
from tests.raft.memory_shell import Shell, TextCodec

PRE_VOTES = (MessageType.PRE_VOTE, MessageType.PRE_VOTE_RESPONSE)


class Checks:
    """Sees all disks and all messages, which no replica does.

    `shells` are the replicas there are; `knows` tells whether one of them has heard of the present session of another
    one. A replica in repair has lost what its disk once held and keeps nobody's
    promise; where the disks are counted it passes as a holder, and has to hold everything again when it counts.
    """

    def __init__(self, shells: dict[int, Shell], founding: Configuration, knows: Callable[[int, int], bool]) -> None:
        self.shells = shells
        self.knows = knows
        self.founding = founding
        self.leaders: dict[int, int] = {}
        self.votes: dict[tuple[int, int, int], int] = {}
        self.written: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.committed: dict[int, Entry] = {}
        self.configurations: list[ConfigurationRow] = [ConfigurationRow(LogIndex(0), founding)]
        self.reads: dict[int, int] = {}
        self.commits_seen: dict[int, int] = {}
        self.matches_seen: dict[tuple[int, int], tuple[Term, int]] = {}
        self.repaired: set[int] = set()
        self.lost: dict[int, dict[int, int]] = {}
        self.incarnations: dict[int, int] = {}
        self.reads_answered = 0
        self.repairs = 0
        self.installs = 0

    @property
    def last_committed(self) -> int:
        return max(self.committed, default=0)

    def committed_configuration(self, index: int) -> Configuration:
        """The configuration in force at `index`, which is committed."""
        return next(row.configuration for row in reversed(self.configurations) if row.index <= index)

    # After each step

    def watch(self) -> None:
        for node_id, shell in self.shells.items():
            node = shell.node
            assert shell.disk_hard_state.term <= node.term
            assert node.counting or shell.nonce, f"{node_id} is in repair, which its disk does not know"
            assert node.commit_index >= self.commits_seen.get(node_id, 0), f"commit of {node_id} falls"
            self.commits_seen[node_id] = node.commit_index
            if node.is_leader:
                self.watch_leader(node_id, shell)
        self.repaired.clear()

    def watch_leader(self, node_id: int, shell: Shell) -> None:
        node = shell.node
        if self.leaders.get(node.term) != node_id:
            assert node.term not in self.leaders, f"two leaders in term {node.term}"  # election safety
            self.leaders[node.term] = node_id
            self.check_elected(shell)
            self.check_leader_completeness(shell)
        for peer in [two for one, two in self.matches_seen if one == node_id] + list(node.configuration.replicas):
            progress = node.progress(NodeId(peer))
            if progress is None:
                self.forget_match(node_id, peer)
            else:
                term, match = self.matches_seen.get((node_id, peer), (node.term, 0))
                stays = progress.match_index >= match or not progress.counting  # in repair it may have begun anew
                assert term != node.term or stays, f"match of {peer} falls at {node_id}"
                if (term, match) != (node.term, progress.match_index) or peer in self.repaired:
                    self.check_match(shell, peer, progress.match_index)
                self.matches_seen[node_id, peer] = (node.term, progress.match_index)
                assert progress.inflight_messages <= shell.config.inflight_messages_max
        self.check_changes_are_serial(shell)

    def forget_match(self, leader: int, peer: int) -> None:
        """A new session, or a new start, of `peer`: its match index at `leader` may begin again."""
        self.matches_seen.pop((leader, peer), None)

    def check_elected(self, shell: Shell) -> None:
        """A leader has the votes of a majority, however often each of them arrived."""
        node = shell.node
        given = [
            NodeId(voter) for (voter, _, term), to in self.votes.items() if (term, to) == (node.term, shell.node_id)
        ]
        assert has_quorum(node.configuration, {*given, NodeId(shell.node_id)}), (
            f"{shell.node_id} leads by {given} alone"
        )

    def check_match(self, shell: Shell, peer: int, match: LogIndex) -> None:
        """What a leader takes for matched stands on the peer's disk, and stays there at least as long as it leads."""
        other = self.shells.get(peer)
        if other is None or other.node.term > shell.node.term or match < other.disk.first_index():
            return
        if other.nonce and not self.knows(shell.node_id, peer):
            return  # it has forgotten something, and the leader has not heard of that yet
        term = shell.log.term(match)
        assert term is None or other.disk.holds(match, term), f"{shell.node_id} takes {match} for matched at {peer}"

    def check_leader_completeness(self, shell: Shell) -> None:
        node = shell.node
        for index, entry in self.committed.items():
            if entry.term < node.term and index > shell.log.offset:
                assert shell.log.holds(index, entry.term), f"leader {shell.node_id} of {node.term} lacks {index}"

    def check_electable(self) -> None:
        """Were the power to go everywhere now, nobody could be elected who lacks what is committed."""
        index = self.last_committed
        term = self.committed[index].term
        lasts = {
            NodeId(node_id): (shell.disk.term(shell.disk.last_index()) or Term(0), shell.disk.last_index())
            for node_id, shell in self.shells.items()
            if not shell.nonce
        }
        for node_id, last in lasts.items():
            disk = self.shells[node_id].disk
            known = [row.configuration for row in self.shells[node_id].disk_rows if row.index <= disk.last_index()]
            voters = {one for one, its_last in lasts.items() if its_last <= last}
            if not disk.holds(index, term) and node_id in (*known[-1].voters, *known[-1].outgoing):
                assert not has_quorum(known[-1], voters), f"{voters} may elect {node_id}, which lacks entry {index}"

    def check_changes_are_serial(self, shell: Shell) -> None:
        """A leader has one change open at most."""
        node = shell.node
        indexes = {row.index for row in shell.rows} | {node.configuration_index}
        assert sum(index > self.last_committed for index in indexes) <= 1, f"two changes are open at {shell.node_id}"

    def check_handover(self, before: Configuration, after: Configuration) -> None:
        """One configuration hands over to the next in such a way that their majorities meet."""
        if after.joint:
            assert not before.joint, f"{before} becomes {after}"
            assert after.outgoing == before.voters, f"{before} becomes {after}"
        else:
            assert after.voters == before.voters, f"{before} becomes {after}"

    # When something is written, committed, applied or installed

    def check_written(self, shell: Shell, ready: Ready, led_before: bool) -> None:
        """Log matching: an index and a term name one entry, and one entry before it. Leaders only append."""
        assert ready.truncate_since is None or not led_before, f"leader {shell.node_id} truncates"
        for entry in ready.entries:
            before = shell.log.term(LogIndex(entry.index - 1))
            assert before is not None
            if entry.kind is EntryKind.CONFIGURATION and (entry.index, entry.term) not in self.written:
                proven = any(one.term == entry.term for one in self.committed.values())
                assert proven, f"{entry.index} changes the group before anything of term {entry.term} is committed"
            known = self.written.setdefault((entry.index, entry.term), (entry.data, before))
            assert known == (entry.data, before), f"two entries {entry.index} of term {entry.term}"
        for one, later in pairwise(ready.configurations or ()):
            if one.configuration.voters:
                self.check_handover(one.configuration, later.configuration)

    def tracer(self, node_id: int) -> Tracer:
        return CommitTracer(lambda index: self.check_committed(self.shells[node_id], index))

    def check_committed(self, shell: Shell, index: int) -> None:
        """Called at the very moment: what a leader commits is durable on a quorum of the configuration that it goes by;
        what others commit has been committed by a leader.
        """
        node = shell.node
        new = False
        for place in range(max(self.commits_seen.get(shell.node_id, 0) + 1, node.first_index), index + 1):
            found = node.entries(LogIndex(place), 1)
            assert found is not None
            entry = found[0]
            if node.is_leader and place > self.last_committed:
                self.check_holders(entry, node.configuration)
                self.commit(entry)
                new = True
            assert self.committed.get(place) == entry, f"{shell.node_id} commits {place}, which no leader has"
            assert place < index or not node.is_leader or entry.term == node.term, f"{place} of {entry.term} is counted"
        self.commits_seen[shell.node_id] = index
        if new:
            self.check_electable()

    def check_holders(self, entry: Entry, configuration: Configuration) -> None:
        holders = [
            one
            for one in (*configuration.voters, *configuration.outgoing)
            if one not in self.shells or self.shells[one].nonce or self.shells[one].disk.holds(entry.index, entry.term)
        ]
        assert has_quorum(configuration, holders), f"{entry.index} is committed but durable on {holders} alone"

    def commit(self, entry: Entry) -> None:
        assert entry.index == self.last_committed + 1, f"{entry.index} committed behind {self.last_committed}"
        self.committed[entry.index] = entry
        if entry.kind is EntryKind.CONFIGURATION:
            after = TextCodec().read_configuration(entry)
            self.check_handover(self.configurations[-1].configuration, after)
            self.configurations.append(ConfigurationRow(entry.index, after))

    def check_applied(self, entry: Entry) -> None:
        assert self.committed.get(entry.index) == entry, f"{entry.index} is applied, but not what is committed there"

    def check_installed(self, shell: Shell, index: int) -> None:
        self.installs += 1
        assert index in self.committed, f"a snapshot at {index} is installed, which is not committed"
        assert shell.snapshot_terms[index] == self.committed[index].term, f"the snapshot at {index} is of another log"
        known = shell.node.configuration_at(LogIndex(index))
        assert known == self.committed_configuration(index) or (
            not known.voters and index < self.configurations[1].index
        )

    def check_repaired(self, node_id: int) -> None:
        """A replica that counts again holds everything committed that it had lost: that had rested on its promise."""
        self.repairs += 1
        self.repaired.add(node_id)
        disk = self.shells[node_id].disk
        for index, term in self.lost.pop(node_id, {}).items():
            known = self.committed.get(index)
            if known is not None and known.term == term:
                assert disk.holds(index, term), f"{node_id} counts again, and lacks entry {index}"

    # When a message leaves

    def check_sent(self, shell: Shell, message: Message) -> None:
        """Nothing is promised that a crash at this moment would take back."""
        disk, hard_state = shell.disk, shell.disk_hard_state
        if message.type not in PRE_VOTES:
            assert message.term <= hard_state.term, f"{message} leaves before its term is durable"
        if message.type is MessageType.APPEND_RESPONSE or message.type in (
            MessageType.HEARTBEAT_RESPONSE, MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE,
        ):  # fmt: skip
            assert not (message.counting and shell.nonce), f"{message} counts, but its sender is in repair"
        self.check_vote(hard_state, message)
        if message.type is MessageType.APPEND_RESPONSE and not message.reject:
            assert disk.last_index() >= message.index, f"{message} acknowledges what is not durable"
            leader = self.shells.get(message.to)
            if leader is not None and leader.node.is_leader and leader.node.term == message.term:
                self.check_acknowledged(leader, disk.holds, message)

    def check_vote(self, hard_state: HardState, message: Message) -> None:
        granted = message.type is MessageType.VOTE_RESPONSE and not message.reject
        if granted or message.type is MessageType.VOTE:
            candidate = message.to if granted else message.sender
            assert hard_state.term == message.term, f"{message} leaves with term {hard_state.term} on the disk"
            assert hard_state.vote == candidate, f"{message} leaves with vote {hard_state.vote} on the disk"
            voter = (message.sender, self.incarnations.get(message.sender, 0), message.term)
            assert self.votes.setdefault(voter, candidate) == candidate, "voted twice"

    def check_acknowledged(self, leader: Shell, holds: Callable[[int, int], bool], message: Message) -> None:
        if message.index <= leader.log.last_index():
            term = leader.log.term(message.index)
            assert term is None or holds(message.index, term), f"{message} acknowledges another entry"

    def check_read(self, state: ReadState) -> None:
        self.reads_answered += 1
        assert state.index >= self.reads[state.context], f"read {state.context} is answered from the past"


class CommitTracer(Tracer):
    def __init__(self, on_commit: Callable[[int], None]) -> None:
        self._on_commit = on_commit

    def on_commit(self, commit_index: LogIndex) -> None:
        self._on_commit(commit_index)

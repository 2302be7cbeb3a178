"""What must hold at every moment in a simulated cluster, checked while it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from quorumlog.chaos.sim.watching import Watcher
from quorumlog.chaos.sim.world import World
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.metadata.topics import CLUSTER_GROUP_ID
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.partition import Trimmed
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import HEADER_BYTES, EntryHeader, decode_header
from quorumlog.proto.batch import read_stored_header
from quorumlog.raft import Entry, EntryKind, LogIndex


class Invariants(Watcher):
    """Election safety, state machine safety, equal state at equal index, log matching, monotone watermarks."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.leaders: dict[tuple[int, int], int] = {}
        self.applied: dict[int, dict[int, EntryHeader]] = {}
        self.upto: dict[int, int] = {}
        self.log_starts: dict[int, int] = {}
        self.removed: set[int] = set()
        self.checks = 0
        self._digests: dict[tuple[int, int], bytes] = {}
        self._entries: dict[tuple[int, int, int], bytes] = {}
        self._seen: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        world.watchers.append(self)

    def on_role(self, node_id: int, replica: Replica) -> None:
        """One leader per group and term."""
        if replica.leads:
            first = self.leaders.setdefault((replica.group_id, replica.raft.term), node_id)
            assert first == node_id, (
                f"seed {self.world.seed}: nodes {first} and {node_id} lead group {replica.group_id} in term "
                f"{replica.raft.term}"
            )
            self.world.note(f"leads {node_id} {replica.group_id} {replica.raft.term}")

    def on_applied(self, node_id: int, replica: Replica, header: EntryHeader, value: object) -> None:
        """What one replica has applied at an index, every replica applies there, at any time."""
        group_id = replica.group_id
        log = self.applied.setdefault(group_id, {})
        known = log.setdefault(header.index, header)
        assert known == header, (
            f"seed {self.world.seed}: node {node_id} applies {header} in group {group_id} where {known} was applied"
        )
        self.upto[group_id] = max(self.upto.get(group_id, 0), header.index)
        if isinstance(value, Trimmed):
            start = self.log_starts.get(group_id, 0)
            self.log_starts[group_id] = max(start, value.log_start_offset)

    def check(self) -> None:
        """Look at every replica that has changed since the last time."""
        self.checks += 1
        for node_id, broker in self.world.brokers().items():
            session_id = self.world.nodes[node_id].session_id
            for group_id, replica in broker.multi.replicas.items():
                raft = replica.raft
                key = node_id, session_id, group_id
                now = raft.commit_index, raft.last_index, raft.term
                before = self._seen.get(key)
                if now == before:
                    continue
                assert before is None or (before[0] <= now[0] and before[2] <= now[2]), (
                    f"seed {self.world.seed}: commit or term of group {group_id} fell on node {node_id}"
                )
                self._seen[key] = now
                raft.check_invariants()
                self._check_last_entry(replica)
                self._check_digest(node_id, replica)

    def _check_last_entry(self, replica: Replica) -> None:
        """Entries of one index and term are one entry (log matching, Raft 5.3)."""
        raft = replica.raft
        if raft.last_index < raft.first_index:
            return
        entries = raft.entries(LogIndex(raft.last_index), 1)
        assert entries, "the last entry is in memory"
        entry = entries[-1]
        known = self._entries.setdefault((replica.group_id, entry.index, entry.term), entry.data)
        assert known == entry.data, f"seed {self.world.seed}: two entries {entry.index} of term {entry.term}"

    def _check_digest(self, node_id: int, replica: Replica) -> None:
        snapshot = replica.machine.snapshot()
        digest = hashlib.sha256(snapshot).digest()
        known = self._digests.setdefault((replica.group_id, replica.raft.applied), digest)
        assert known == digest, (
            f"seed {self.world.seed}: group {replica.group_id} at index {replica.raft.applied} has another state on "
            f"node {node_id}"
        )
        if isinstance(replica.machine, CommandMachine) and isinstance(replica.machine.state_machine, GroupsState):
            replica.machine.state_machine.check_invariants()

    def check_healed(self) -> None:
        """After healing: nothing that was applied anywhere is missing, and all replicas are equal."""
        brokers = self.world.brokers()
        catalogue = brokers[1].catalogue
        for group_id, upto in self.upto.items():
            if group_id != CLUSTER_GROUP_ID and catalogue.group(group_id) is None:
                for node_id, broker in brokers.items():
                    assert group_id not in broker.multi.replicas, f"node {node_id} keeps deleted group {group_id}"
                continue
            ends = set()
            for node_id, broker in brokers.items():
                replica = broker.multi.replicas[group_id]
                assert replica.stopped is None, f"node {node_id}: {replica.stopped}"
                assert replica.raft.applied >= upto, (
                    f"seed {self.world.seed}: entry {upto} of group {group_id} was applied, node {node_id} has "
                    f"{replica.raft.applied}"
                )
                ends.add((replica.raft.applied, replica.raft.last_index, replica.machine.snapshot()))
                if replica.partition is not None and replica.raft.first_index == 1:
                    check_fold(replica)
            assert len(ends) == 1, f"seed {self.world.seed}: the replicas of group {group_id} differ: {ends}"


def applied_entries(replica: Replica) -> Iterator[Entry]:
    """The applied entries that a replica's log still holds."""
    index = replica.raft.first_index
    while index <= replica.raft.applied:
        for entry in replica.log.entries(index, replica.raft.applied, 1 << 30):
            yield entry
            index = LogIndex(entry.index + 1)


def check_fold(replica: Replica) -> None:
    """The state of a partition is what a dumb replay of its log gives."""
    assert replica.partition is not None
    producers: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
    next_offset = log_start = 0
    for entry in applied_entries(replica):
        header = decode_header(entry.data)
        assert header.base_offset == next_offset, f"a gap before offset {header.base_offset}"
        if header.kind is EntryKind.RECORDS:
            batch = read_stored_header(entry.data, HEADER_BYTES)
            epoch, batches = producers.get(batch.producer_id, (batch.producer_epoch, []))
            if epoch != batch.producer_epoch:
                assert batch.producer_epoch > epoch, "an epoch falls"
                assert batch.base_sequence == 0, "an epoch does not begin with sequence 0"
                batches = []
            elif batches:
                assert batch.base_sequence == batches[-1][0] + batches[-1][1], "a sequence is repeated or left out"
            batches = [*batches, (batch.base_sequence, batch.count, header.base_offset)]
            producers[batch.producer_id] = batch.producer_epoch, batches
            next_offset += header.count
    machine = type(replica.partition)()
    machine.restore(replica.partition.snapshot())
    assert machine.next_offset == next_offset
    assert machine.log_start_offset >= log_start
    folded = {
        producer_id: (
            producer.epoch,
            [(batch.base_sequence, batch.count, batch.base_offset) for batch in producer.batches],
        )
        for producer_id, producer in machine._producers.items()
    }
    assert folded == {key: (epoch, batches[-5:]) for key, (epoch, batches) in producers.items()}

"""One node's groups with nothing around them: syncs finish when a test says so, messages are kept for it to look at."""

from __future__ import annotations

import random
from collections.abc import Callable

from quorumlog.node.replica.hooks import ReplicaHooks
from quorumlog.node.replica.machine import Machine
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.partition import PartitionMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.entry import EntryHeader
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.interface import WriteBatch
from quorumlog.node.storage.memory import MemoryStorage, SyncToken
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.votes import VOTES_NAME, get_hard_state, merge_hard_states
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import encode_columns, header_for, pack_stored
from quorumlog.raft import NO_NODE, Config, EntryKind, HardState, LogIndex, Message, MessageType, NodeId, Term

WALL_MS = 1_700_000_000_000


class Rig:
    """Node 1, its storage in memory, and the replicas that a test adds."""

    def __init__(self) -> None:
        rng = random.Random(1)
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, rng.randbytes)
        self.sent: list[tuple[int, Message]] = []
        self.applied: list[tuple[int, int]] = []
        """(group id, index) in the order of application."""
        self.roles: list[tuple[int, bool]] = []
        """(group id, leads) of every change of role."""
        self.on_applied: Callable[[Replica, EntryHeader, object], None] = lambda replica, header, value: None
        self._syncs: list[tuple[SyncToken, bool, Callable[[], None]]] = []
        self._open()

    def _open(self) -> None:
        self.opened = open_node(self.files, self.database, NodeId(1), random.Random(2).randbytes)
        self.writes: list[WriteBatch] = []
        storage = self.storage
        write = storage.write

        def counted(batch: WriteBatch) -> None:
            write(batch)
            self.writes.append(batch)

        storage.write = counted  # type: ignore[method-assign]
        self.multi = MultiRaft(
            storage=storage,
            votes=self.opened.votes,
            syncer=self,
            send=lambda group_id, message: self.sent.append((group_id, message)),
            on_synced=lambda sequence: None,
            wall_ms=lambda: WALL_MS,
        )

    @property
    def storage(self) -> MemoryStorage:
        assert self.database.storage is not None
        return self.database.storage

    def add(
        self, group_id: int, voters: tuple[int, ...] = (1,), machine: Machine | None = None, counting: bool = True
    ) -> Replica:
        """Take up a group, a partition's unless a machine is given."""
        stored = merge_hard_states(self.opened.votes.get(group_id), get_hard_state(self.storage, group_id))
        replica = Replica(
            internal_pb2.ReplicaDescriptor(group_id=group_id, topic="t", voters=voters),
            node_id=NodeId(1),
            storage=self.storage,
            log=GroupLog(self.storage, group_id),
            machine=machine or PartitionMachine(),
            hard_state=stored or HardState(Term(0), NO_NODE),
            config=Config(node_id=NodeId(1)),
            rng=random.Random(group_id),
            repair_id=self.opened.repair_id,
            whole=counting,
            hooks=RigHooks(self),
        )
        self.multi.add(replica)
        return replica

    def leader(self, group_id: int, voters: tuple[int, ...] = (1,)) -> Replica:
        """Take up a group and lead it; the other voters grant their votes."""
        replica = self.add(group_id, voters)
        replica.raft.campaign()
        self.settle()
        for kind, term in ((MessageType.PRE_VOTE_RESPONSE, 1), (MessageType.VOTE_RESPONSE, 1)):
            for voter in voters[1:]:
                self.step(group_id, Message(kind, NodeId(voter), NodeId(1), Term(term)))
            self.settle()
        assert replica.leads
        self.sent.clear()
        return replica

    def step(self, group_id: int, message: Message) -> None:
        self.multi.step(group_id, message)

    def pump(self) -> bool:
        return self.multi.pump()

    def settle(self) -> None:
        """Pump and finish syncs until nothing is left to do."""
        self.pump()
        while self._syncs or not self.multi.idle:
            if self._syncs:
                self.finish_sync()
            self.pump()

    # Syncer

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        self._syncs.append((self.storage.begin_sync(), votes, done))

    @property
    def syncs_under_way(self) -> int:
        return len(self._syncs)

    def finish_sync(self) -> None:
        token, votes, done = self._syncs.pop(0)
        if votes:
            self.files.finish_sync(self.files.begin_sync(VOTES_NAME))
        self.storage.finish_sync(token)
        done()

    def restart(self, *, power_cut: bool = False) -> None:
        """End the process, with the power or without, and open the folder again; groups are to be added anew."""
        self._syncs.clear()
        if power_cut:
            self.files.crash(random.Random(3))
            self.database.crash()
        else:
            self.opened.close()
        self._open()

    # What a test says and sees

    def acknowledge(self, replica: Replica, peer: int, index: int | None = None) -> None:
        """`peer` has synced the log through `index`, all of it unless told."""
        last = replica.raft.last_index if index is None else LogIndex(index)
        self.step(
            replica.group_id,
            Message(
                MessageType.APPEND_RESPONSE,
                NodeId(peer),
                NodeId(1),
                replica.raft.term,
                index=last,
                last_index=last,
                stable_index=last,
            ),
        )

    def sent_types(self, group_id: int) -> list[MessageType]:
        return [message.type for group, message in self.sent if group == group_id]


class RigHooks(ReplicaHooks):
    """Lets a rig hear of its replicas."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig

    def on_applied(self, replica: Replica, header: EntryHeader, value: object) -> None:
        self.rig.applied.append((replica.group_id, header.index))
        self.rig.on_applied(replica, header, value)

    def on_role(self, replica: Replica) -> None:
        self.rig.roles.append((replica.group_id, replica.leads))


class Answers:
    """A proposer that keeps what it is told."""

    def __init__(self) -> None:
        self.results: list[object] = []

    def __call__(self, result: object) -> None:
        self.results.append(result)


def append(
    rig: Rig,
    replica: Replica,
    reply: Callable[[object], None],
    *,
    values: int = 1,
    size_bytes: int = 10,
    producer: tuple[int, int, int] = (0, 0, 0),
    wall_ms: int = WALL_MS,
) -> EntryHeader:
    """Propose a batch of records; `producer` is (id, epoch, sequence)."""
    producer_id, epoch, sequence = producer
    header = header_for(
        values, first_timestamp_ms=wall_ms, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence
    )
    stored = pack_stored(header, encode_columns([b"x" * size_bytes] * values))
    proposed = replica.propose(EntryKind.RECORDS, stored, count=values, wall_ms=wall_ms, reply=reply)
    rig.multi.touch(replica)
    return proposed

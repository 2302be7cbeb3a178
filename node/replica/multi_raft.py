"""All groups of one node, driven together: one unsynced write per turn, one sync for everything that waits for one.

Why this shape. A sync costs the same for one group and for a hundred, so the entries of all groups go into one database
batch per turn, and while a sync runs in its thread the next turns' batches pile up for the one after it. Terms and
votes of all groups that change in a turn take one append to the votes file, synced beside the database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from quorumlog.node.errors import StorageBusy
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.interface import Storage, WriteBatch
from quorumlog.node.storage.votes import VoteRecord, VotesFile
from quorumlog.raft import Message, Ready, StepError

ROUNDS_PER_PUMP_MAX: Final = 8
"""Rounds of one `pump`; then the caller gets the thread back, even if groups feed each other work."""


class Syncer(Protocol):
    """Makes writes durable without holding up the caller: a thread in the server, virtual time in a simulator."""

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        """Sync what is written by now to the database and, if asked, to the votes file; then call `done` from the
        driving thread. A sync that fails never calls it: the node exits.
        """


class MultiRaft:
    """Owns the replicas of a node and their turns.

    Args:
        send: takes a message for another node; the caller groups what one turn sends to one peer.
        on_synced: called after each sync with the database's sequence number read before it was submitted.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        votes: VotesFile,
        syncer: Syncer,
        send: Callable[[int, Message], None],
        on_synced: Callable[[int], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self.replicas: dict[int, Replica] = {}
        self.next_batch: WriteBatch = storage.new_batch()
        self.step_errors = 0
        self._storage = storage
        self._votes = votes
        self._syncer = syncer
        self._send = send
        self._on_synced = on_synced
        self._wall_ms = wall_ms
        self._dirty: dict[int, Replica] = {}
        self._unsynced: list[tuple[Replica, Ready]] = []
        self._unsynced_groups: dict[int, int] = {}
        self._refused: tuple[WriteBatch, list[tuple[Replica, Ready]]] | None = None
        self._votes_unsynced = False
        self._votes_written = 0  # appends to the votes file, and how many of them a finished sync covers
        self._votes_synced = 0
        self._syncing = False
        self._pumping = False

    def add(self, replica: Replica) -> None:
        """Take charge of a replica."""
        assert replica.group_id not in self.replicas, f"group {replica.group_id} is here already"
        self.replicas[replica.group_id] = replica
        self._dirty[replica.group_id] = replica

    def remove(self, group_id: int) -> Replica:
        """Let go of a replica; what it had in flight is dropped."""
        self._dirty.pop(group_id, None)
        return self.replicas.pop(group_id)

    def touch(self, replica: Replica) -> None:
        """Note that a replica may have work for the next turn."""
        self._dirty[replica.group_id] = replica

    def step(self, group_id: int, message: Message) -> None:
        """Take a message of a peer; one for a group that is not here is dropped, nonsense is counted and dropped."""
        replica = self.replicas.get(group_id)
        if replica is None:
            return
        try:
            replica.step(message, self._wall_ms())
        except StepError:
            self.step_errors += 1
        self._dirty[group_id] = replica

    def tick(self) -> None:
        """Let one tick pass for every group that is awake."""
        wall_ms = self._wall_ms()
        for replica in self.replicas.values():
            if replica.raft.quiesced:
                continue
            replica.tick(wall_ms)
            if replica.raft.has_ready():
                self._dirty[replica.group_id] = replica

    def pump(self) -> bool:
        """Run turns until nothing is left to do. Returns whether to call again soon, because there is more.

        Raises StorageFailed: the outcome of a write is unknown, and the node must exit.
        """
        if self._pumping:
            return False
        self._pumping = True
        try:
            for _ in range(ROUNDS_PER_PUMP_MAX):
                if not self._turn():
                    break
            self._start_sync()
            return bool(self._dirty) and not self.stalled
        finally:
            self._pumping = False

    def _turn(self) -> bool:
        """One turn; False when there was nothing to do or nothing can be done now."""
        if self._refused is not None:
            batch, turn = self._refused
        elif self._dirty or not self.next_batch.is_empty():
            batch, turn = self._collect()
        else:
            return False
        if not batch.is_empty():
            try:
                self._storage.write(batch)
            except StorageBusy:
                # Nothing was written, so nothing of this turn may leave; the same batch is tried again first.
                self._refused = (batch, turn)
                return False
        self._refused = None
        for replica, ready in turn:
            self._after_write(replica, ready)
        return True

    def _collect(self) -> tuple[WriteBatch, list[tuple[Replica, Ready]]]:
        batch, self.next_batch = self.next_batch, self._storage.new_batch()
        dirty, self._dirty = self._dirty, {}
        votes: list[VoteRecord] = []
        turn: list[tuple[Replica, Ready]] = []
        for replica in dirty.values():
            if self.replicas.get(replica.group_id) is not replica:
                continue  # removed meanwhile: it must not write into what is deleted
            ready = replica.collect(batch, votes)
            if ready is not None:
                turn.append((replica, ready))
        if votes:
            self._votes.append(votes)
            self._votes_unsynced = True
            self._votes_written += 1
        return batch, turn

    def _after_write(self, replica: Replica, ready: Ready) -> None:
        group_id = replica.group_id
        if self.replicas.get(group_id) is not replica:
            return  # removed by what another group has applied in this very turn: it says and writes nothing more
        for message in ready.messages:
            self._send(group_id, message)
        if ready.must_sync or (ready.messages_after_sync and self._unsynced_groups.get(group_id)):
            self._unsynced.append((replica, ready))
            self._unsynced_groups[group_id] = self._unsynced_groups.get(group_id, 0) + 1
        else:
            # Everything before it is durable, and it adds nothing.
            for message in ready.messages_after_sync:
                self._send(group_id, message)
        if replica.written(ready, self.next_batch) or replica.raft.has_ready():
            self._dirty[group_id] = replica

    def _start_sync(self) -> None:
        if self._syncing or not self._unsynced:
            return
        self._syncing = True
        job, self._unsynced = self._unsynced, []
        votes, self._votes_unsynced = self._votes_unsynced, False
        # Read before the sync is submitted: it covers this number, perhaps not the next.
        sequence = self._storage.sequence_number()
        written = self._votes_written if votes else self._votes_synced
        self._syncer.submit(votes=votes, done=lambda: self._finish_sync(job, sequence, written))

    def _finish_sync(self, job: list[tuple[Replica, Ready]], sequence: int, votes_written: int) -> None:
        self._syncing = False
        self._votes_synced = votes_written
        self._on_synced(sequence)
        for replica, ready in job:
            group_id = replica.group_id
            left = self._unsynced_groups[group_id] - 1
            if left:
                self._unsynced_groups[group_id] = left
            else:
                del self._unsynced_groups[group_id]
            if self.replicas.get(group_id) is not replica:
                continue
            replica.raft.on_persisted(ready.persisted)
            for message in ready.messages_after_sync:
                self._send(group_id, message)
            self._dirty[group_id] = replica

    @property
    def votes_durable(self) -> bool:
        """Whether everything that the votes file holds is durable: whoever reads it now may speak by it at once."""
        return self._votes_synced == self._votes_written

    @property
    def stalled(self) -> bool:
        """The database pushed back: nothing goes on until it takes the refused batch; call `pump` again in a while."""
        return self._refused is not None

    @property
    def idle(self) -> bool:
        """Nothing to do, nothing on its way to the disk."""
        return not (self._dirty or self._unsynced or self._syncing or self._refused or not self.next_batch.is_empty())

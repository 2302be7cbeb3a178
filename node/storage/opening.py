"""Opening a data folder: who the node is, what it has voted, and whether its database is what it was.

The order, each step standing on the ones before it:

1. lock the folder;
2. read the identity; a folder of another node, another cluster or a newer format is refused, untouched;
3. read the votes file and the watermark;
4. open the database strictly; if that refuses - a flipped bit does it, but so does what an ordinary power cut leaves
   in the unsynced tail - put copies of its write-ahead log aside and open it up to the first record that does
   not check;
5. let the watermark judge. At or above it only unsynced bytes are gone, and the node starts as usual;
6. copy a whole database that a damaged table keeps from taking writes.

A node that has forgotten enters REPAIR: it draws a new repair id, durable before anything else is done, and every
replica that does not hold it is not whole. A node that cannot tell any more what it voted, or who it is, is *wiped*:
it comes back as a new incarnation that waits. In a wiped or new folder the identity comes last, so that a crash on the
way never leaves half an identity. Nothing is ever deleted; what cannot be used is moved to `quarantine/`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.database import Database
from quorumlog.node.storage.files import FileSystem
from quorumlog.node.storage.identity import (
    IDENTITY_NAME,
    Identity,
    IdentityState,
    check_identity,
    load_identity,
    new_identity,
    save_identity,
)
from quorumlog.node.storage.interface import Family, RecoveryMode, Storage
from quorumlog.node.storage.judging import OWNER_KEY, Judging
from quorumlog.node.storage.opened import NodeState, Opened, Severity
from quorumlog.node.storage.repair import replicas_by_wholeness
from quorumlog.node.storage.replacing import salvage
from quorumlog.node.storage.votes import (
    VOTES_NAME,
    VoteRecord,
    VotesFile,
    get_hard_state,
    hard_states_of,
    merge_hard_states,
    put_hard_state,
)
from quorumlog.node.storage.watermark import NEVER_REPAIRED, NO_DATABASE, WATERMARK_NAME, Mark, Watermark
from quorumlog.raft.types import NodeId

CREATING_NAME = "creating"
"""A file that is there from before the first file of a new folder is made until after the identity is."""


def open_node(
    files: FileSystem,
    database: Database,
    node_id: NodeId,
    draw: Callable[[int], bytes],
    cluster_id: bytes | None = None,
) -> Opened:
    """Open the data folder of a node, making it when it is empty. Blocks.

    Args:
        files: the data folder; its lock is held until `Opened.close`.
        database: the database in it.
        node_id: from the configuration.
        draw: returns that many random bytes.
        cluster_id: the cluster (16 bytes) that the configuration names, if it names one.

    Raises WrongDataFolder, FormatTooNew, StorageLocked, StorageFailed; the folder is unlocked again then.
    """
    files.lock()
    opening = _Opening(files, database, node_id, draw, cluster_id)
    try:
        return opening.run()
    except Exception:
        opening.abandon()
        raise


class _Opening(Judging):
    """The steps of one opening, and what they have found so far."""

    def run(self) -> Opened:
        identity, lost = self._read_identity()
        if identity is None:
            return self._start_over(lost)
        if self._files.exists(CREATING_NAME):
            self._files.remove(CREATING_NAME)
            self._files.sync_folder()
        votes_lost = self._open_votes()
        forgotten = self._judge(identity) or self._replace_damaged()
        if forgotten is not None:
            if identity.state is IdentityState.WAITING:
                return self._wipe(f"{forgotten}; the node still waited for a cluster, so no promise is lost")
            if votes_lost is not None:
                return self._wipe(f"{forgotten}, and {votes_lost}: nobody knows what this node has voted")
            if self._exchanged:
                return self._wipe(f"{forgotten}, with the watermark: nobody knows what this node has voted")
            return self._enter_repair(identity, forgotten)
        self._own(identity)
        self._restore_votes(votes_lost)
        return self._opened(identity, self._state_when_nothing_is_missing(identity))

    def abandon(self) -> None:
        """Close what is open after a failure."""
        try:
            self._close_parts()
        finally:
            self._files.close()

    # --- what is there -----------------------------------------------------------------------------------------------

    def _read_identity(self) -> tuple[Identity | None, str | None]:
        """Return the identity, or None and why it is lost; (None, None) when there is no such file."""
        try:
            identity = load_identity(self._files)
        except StorageCorrupt as error:
            return None, str(error)
        if identity is not None:
            check_identity(identity, self._node_id, self._cluster_id, self._files.describe())
        return identity, None

    def _open_votes(self) -> str | None:
        """Open the votes file; return why it is lost, None when it is not."""
        try:
            self._votes = VotesFile.open(self._files)
        except StorageCorrupt as error:
            return str(error)
        if self._votes.torn_bytes:
            self._find(
                Severity.INFO,
                f"the last {self._votes.torn_bytes} bytes of the votes file were torn and are cut off; nobody had "
                "relied on them",
                "nothing to do",
            )
        return None

    def _make_database(self, identity: Identity) -> Storage:
        """Make an empty database, unless one is open. Its rows are put into a table at once: a lost log does not take
        them along.
        """
        storage = self._storage = self._storage or self._database.open(RecoveryMode.TOLERATE_TAIL)
        self._own(identity)
        storage.flush()
        return storage

    def _own(self, identity: Identity) -> None:
        """Let the database say whose it is; one of an earlier release did not."""
        assert self._storage is not None, "a database is open"
        if self._storage.get(Family.META, OWNER_KEY) != identity.incarnation:
            batch = self._storage.new_batch()
            batch.put(Family.META, OWNER_KEY, identity.incarnation)
            self._storage.write(batch)
            self._storage.sync()

    # --- what becomes of it ------------------------------------------------------------------------------------------

    def _restore_votes(self, votes_lost: str | None) -> None:
        """Let the votes file hold all that the database knows of terms and votes; it is made again when it is lost."""
        assert self._storage is not None, "a whole database is open"
        known = hard_states_of(self._storage)
        if self._votes is None:
            self._votes = VotesFile.create(self._files, known)
            self._find(
                Severity.WARNING,
                f"{votes_lost}; it was made again from the database, which is whole and holds {len(known)} groups. "
                "Votes in groups that were removed from this node are forgotten",
                "check the disk (dmesg, smartctl)",
            )
            return
        behind = []
        for group_id, state in known.items():
            merged = merge_hard_states(state, self._votes.get(group_id))
            assert merged is not None, "one of the two is known"
            if merged != self._votes.get(group_id):
                behind.append(VoteRecord(group_id, merged.term, merged.vote))
        if behind:
            self._votes.append(behind)
            self._votes.sync()
        self._restore_hard_states(self._storage, self._votes)

    def _restore_hard_states(self, storage: Storage, votes: VotesFile) -> None:
        """Let the database hold all that the votes file knows, so that either may be lost later: a crash may leave a
        term in the one and not in the other, and nobody writes it again before it changes.
        """
        batch = storage.new_batch()
        for group_id in chain(*replicas_by_wholeness(storage, NEVER_REPAIRED)):
            kept = votes.get(group_id)
            if kept is not None and kept != get_hard_state(storage, group_id):
                put_hard_state(batch, group_id, kept)
        if not batch.is_empty():
            storage.write(batch)
            storage.sync()

    def _state_when_nothing_is_missing(self, identity: Identity) -> NodeState:
        if identity.state is IdentityState.WAITING:
            return NodeState.WAITING
        assert self._storage is not None, "a whole database is open"
        assert self._watermark is not None, "it has judged the database"
        repair_id = self._watermark.mark.repair_id
        if repair_id == NEVER_REPAIRED:
            return NodeState.WHOLE
        whole, in_repair = replicas_by_wholeness(self._storage, repair_id)
        if whole and not in_repair:
            return NodeState.WHOLE
        self._find(
            Severity.ERROR,
            f"this node entered REPAIR at an earlier start ({repair_id.hex()}); {len(whole)} replicas have left it, "
            f"{len(in_repair)} that the database knows have not: {in_repair}",
            REPAIR_FIX,
        )
        return NodeState.REPAIR

    def _enter_repair(self, identity: Identity, forgotten: str) -> Opened:
        """Draw a new repair id and make it durable before anything else; replace a database that cannot be used."""
        repair_id = self._draw(16)
        replaced = ""
        if self._storage is None:
            folder = None
            if self._database.exists():
                folder = self._quarantine("database", f"{forgotten}; the node entered REPAIR")
                self._database.move(folder)
            self._mark(Mark(NO_DATABASE, 0, repair_id))
            self._storage = self._make_database(identity)
            if folder is not None:
                saved = "nothing in it can be used"
                if not self._foreign:
                    saved = salvage(self._database, folder, self._storage)
                replaced = f". The database was moved to {self._files.describe(folder)} and a new one made; {saved}"
        self._restore_votes(None)
        storage = self._storage
        sequence = storage.sequence_number()
        storage.sync()
        self._mark(Mark(storage.database_id(), sequence, repair_id))
        self._find(Severity.ERROR, f"this node entered REPAIR ({repair_id.hex()}): {forgotten}{replaced}", REPAIR_FIX)
        return self._opened(identity, NodeState.REPAIR)

    def _mark(self, mark: Mark) -> None:
        if self._watermark is None:
            self._watermark = Watermark.create(self._files, mark)
        else:
            self._watermark.adopt(mark.database_id, mark.sequence, mark.repair_id)

    def _wipe(self, reason: str) -> Opened:
        """Give up this incarnation.

        The identity goes first: were the votes file made again while it still stood, a crash in between would leave a
        member of the cluster that has forgotten its votes and does not know it.
        """
        self._close_parts()
        return self._start_over(reason)

    def _start_over(self, reason: str | None) -> Opened:
        """Make the folder of a node that waits, after moving aside whatever is there.

        Args:
            reason: why the identity that is there counts no more; None when there is none.
        """
        cut_off = reason is None and self._files.exists(CREATING_NAME)
        wiped = None if cut_off else self._move_all_aside(reason)
        self._files.replace(CREATING_NAME, b"")
        if self._database.exists() and self._open_database():
            self._database.move(self._quarantine("database", "the making of this data folder was cut off"))
        identity = new_identity(self._node_id, self._draw)
        storage = self._make_database(identity)
        sequence = storage.sequence_number()
        storage.sync()
        self._watermark = Watermark.create(self._files, Mark(storage.database_id(), sequence))
        self._votes = VotesFile.create(self._files, {})
        save_identity(self._files, identity)
        self._files.remove(CREATING_NAME)
        self._files.sync_folder()
        if wiped is None:
            return self._opened(identity, NodeState.WAITING)
        self._find(
            Severity.ERROR,
            f"{wiped}. This node is now incarnation {identity.incarnation.hex()} and waits, as a stranger to its "
            "former cluster",
            "keep the other nodes running, acknowledged records are on them; add this node to the cluster as a new "
            "one, and keep quarantine/ until every group has all its replicas",
        )
        return self._opened(identity, NodeState.WIPED)

    def _move_all_aside(self, reason: str | None) -> str | None:
        """Move every part of a former node to quarantine, the identity first; return what to tell, None if none is."""
        names = [name for name in (IDENTITY_NAME, VOTES_NAME, WATERMARK_NAME) if self._files.exists(name)]
        if not names and not self._database.exists():
            return None
        reason = reason or f"data folder {self._files.describe()} holds data, but its identity file is lost"
        folder = self._quarantine("wiped", reason)
        for name in names:
            self._files.move(name, f"{folder}/{name}")
        if self._database.exists():
            self._database.move(folder)
        return f"{reason}; everything was moved to {self._files.describe(folder)}"

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _opened(self, identity: Identity, state: NodeState) -> Opened:
        assert self._storage is not None, "opening ends with a database"
        assert self._votes is not None, "opening ends with a votes file"
        assert self._watermark is not None, "opening ends with a watermark"
        findings = tuple(self._findings)
        return Opened(self._files, self._storage, identity, self._votes, self._watermark, state, findings)


REPAIR_FIX = (
    "keep the other nodes running: acknowledged records are on them. Replicas in REPAIR neither vote nor lead, and "
    "take what they lack from the others by themselves until they have everything; check the disk (dmesg, smartctl), "
    "and keep quarantine/ until then"
)

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
from contextlib import suppress
from itertools import chain

from quorumlog.node.errors import StorageCorrupt, StorageFailed
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
from quorumlog.node.storage.keys import all_groups_range
from quorumlog.node.storage.opened import Finding, NodeState, Opened, Severity
from quorumlog.node.storage.repair import replicas_by_wholeness
from quorumlog.node.storage.replacing import finish_copy, replace_whole, salvage
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
QUARANTINE_NAME = "quarantine"


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


class _Opening:
    """The steps of one opening, and what they have found so far."""

    def __init__(
        self,
        files: FileSystem,
        database: Database,
        node_id: NodeId,
        draw: Callable[[int], bytes],
        cluster_id: bytes | None,
    ) -> None:
        self._files = files
        self._database = database
        self._node_id = node_id
        self._draw = draw
        self._cluster_id = cluster_id
        self._findings: list[Finding] = []
        self._storage: Storage | None = None
        self._foreign = False  # the database that was found belongs to somebody else
        self._votes: VotesFile | None = None
        self._watermark: Watermark | None = None

    def run(self) -> Opened:
        identity, lost = self._read_identity()
        if identity is None:
            return self._start_over(lost)
        if self._files.exists(CREATING_NAME):
            self._files.remove(CREATING_NAME)
            self._files.sync_folder()
        votes_lost = self._open_votes()
        forgotten = self._judge() or self._replace_damaged()
        if forgotten is not None:
            if identity.state is IdentityState.WAITING:
                return self._wipe(f"{forgotten}; the node still waited for a cluster, so no promise is lost")
            if votes_lost is not None:
                return self._wipe(f"{forgotten}, and {votes_lost}: nobody knows what this node has voted")
            return self._enter_repair(identity, forgotten)
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

    def _judge(self) -> str | None:
        """Open watermark and database; return what the node has forgotten, None when the database is whole."""
        mark = None
        watermark_lost = ""
        try:
            self._watermark = Watermark.open(self._files)
            mark = self._watermark.mark
        except StorageCorrupt as error:
            watermark_lost = str(error)
        if self._watermark is not None:
            finish_copy(self._database, self._watermark, self._quarantine)
        if not self._database.exists():
            return "the database is missing"
        refusal = self._open_database()
        if self._storage is None:
            return refusal
        if self._watermark is None or mark is None:
            return f"{watermark_lost}, so nobody knows how far the database had come"
        if self._watermark.slots_valid == 1:
            self._find(
                Severity.WARNING,
                "one of the two slots of the watermark is damaged; the other one was used",
                "nothing to do after a power cut; otherwise check the disk (dmesg, smartctl)",
            )
        return self._compare(self._storage, mark)

    def _compare(self, storage: Storage, mark: Mark) -> str | None:
        found, sequence = storage.database_id(), storage.sequence_number()
        if mark.database_id == NO_DATABASE:
            self._close_storage()  # perhaps half filled
            return "the node stopped while a new database was being made in place of a lost one"
        if found != mark.database_id:
            # It may hold groups of another cluster under the same ids: nothing in it can be used.
            self._foreign = True
            self._close_storage()
            return f"the database has id {found.hex()}, but the watermark belongs to {mark.database_id.hex()}"
        if sequence < mark.sequence:
            return f"the database ends at sequence number {sequence}, but had safely reached {mark.sequence}"
        try:
            storage.scan(Family.META, *all_groups_range())
        except StorageCorrupt as error:
            # Which replicas there are, what they voted and where their logs end: nobody can go on without.
            with suppress(StorageFailed):
                self._close_storage()
            return f"rows of META cannot be read: {error}"
        return None

    def _replace_damaged(self) -> str | None:
        """Copy a whole database that takes no more writes; return what is forgotten if that shows only now."""
        damage = self._database.damage()
        if damage is None:
            return None
        assert self._storage is not None, "a whole database is open"
        assert self._watermark is not None, "it has judged the database"
        if not self._database.has_room_for_copy():
            self._find(
                Severity.ERROR,
                f"a table of the database is damaged ({damage}), and the disk has no room for a copy without it. "
                "Writes will fail as soon as the damage is met again",
                "free space on this disk, at least as much as the database takes, and start the node again",
            )
            return None
        self._storage, saved = replace_whole(self._database, self._storage, self._watermark, self._quarantine)
        self._find(
            Severity.WARNING,
            f"a table of the database was damaged ({damage}). All else is in a new one, nothing is forgotten: "
            f"{saved.in_words()}; the old one is in {self._files.describe(QUARANTINE_NAME)}",
            "damaged entries come back from other nodes by themselves; check the disk (dmesg, smartctl), and "
            "remove the old database once every group has all its replicas",
        )
        return None

    def _open_database(self) -> str:
        """Open the database in two steps; return why it could not be, with `_storage` still None then."""
        try:
            self._storage = self._database.open(RecoveryMode.TOLERATE_TAIL)
            return ""
        except StorageCorrupt as error:
            refusal = str(error)
        folder = self._quarantine("wal", f"the database refused its write-ahead log: {refusal}")
        self._database.copy_wal(folder)
        try:
            self._storage = self._database.open(RecoveryMode.POINT_IN_TIME)
        except StorageCorrupt as error:
            return f"the database cannot be opened: {error}"
        self._find(
            Severity.WARNING,
            f"the write-ahead log does not end as it should ({refusal}); it was read up to the first record that does "
            f"not check, and copies are in {self._files.describe(folder)}",
            "nothing to do after a power cut, the copies may be removed; otherwise check the disk (dmesg, smartctl)",
        )
        return ""

    def _make_database(self) -> Storage:
        """Make an empty database. Its id is put into a table at once, so that a lost log does not take it along."""
        storage = self._database.open(RecoveryMode.TOLERATE_TAIL)
        storage.flush()
        return storage

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
            self._storage = self._make_database()
            if folder is not None:
                saved = "nothing in it can be used"
                if not self._foreign:
                    saved = salvage(self._database, folder, self._storage)
                replaced = f". The database was moved to {self._files.describe(folder)} and a new one made; {saved}"
        self._restore_votes(None)
        sequence = self._storage.sequence_number()
        self._storage.sync()
        self._mark(Mark(self._storage.database_id(), sequence, repair_id))
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
        storage = self._storage = self._storage or self._make_database()
        sequence = storage.sequence_number()
        storage.sync()
        self._watermark = Watermark.create(self._files, Mark(storage.database_id(), sequence))
        self._votes = VotesFile.create(self._files, {})
        identity = new_identity(self._node_id, self._draw)
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

    def _quarantine(self, why: str, reason: str) -> str:
        """Make the next folder in quarantine, with the reason in a file that an operator can read."""
        numbers = [int(name[:4]) for name in self._files.list_names(QUARANTINE_NAME)]
        folder = f"{QUARANTINE_NAME}/{max(numbers, default=0) + 1:04d}-{why}"
        self._files.replace(f"{folder}/reason.txt", reason.encode() + b"\n")
        return folder

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _find(self, severity: Severity, message: str, fix: str) -> None:
        self._findings.append(Finding(severity, message, fix))

    def _opened(self, identity: Identity, state: NodeState) -> Opened:
        assert self._storage is not None, "opening ends with a database"
        assert self._votes is not None, "opening ends with a votes file"
        assert self._watermark is not None, "opening ends with a watermark"
        findings = tuple(self._findings)
        return Opened(self._files, self._storage, identity, self._votes, self._watermark, state, findings)

    def _close_storage(self) -> None:
        storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()

    def _close_parts(self) -> None:
        self._close_storage()
        for part in (self._votes, self._watermark):
            if part is not None:
                part.close()
        self._votes = self._watermark = None


REPAIR_FIX = (
    "keep the other nodes running: acknowledged records are on them. Replicas in REPAIR neither vote nor lead, and "
    "take what they lack from the others by themselves until they have everything; check the disk (dmesg, smartctl), "
    "and keep quarantine/ until then"
)

"""Whether a database is what it was, as opening a data folder asks after reading the small files beside it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from quorumlog.node.errors import StorageCorrupt, StorageFailed
from quorumlog.node.storage.database import Database
from quorumlog.node.storage.files import FileSystem
from quorumlog.node.storage.identity import Identity
from quorumlog.node.storage.interface import Family, RecoveryMode, Storage
from quorumlog.node.storage.keys import NODE_WIDE, MetaRow, all_groups_range, group_range, meta_key
from quorumlog.node.storage.opened import Finding, Severity
from quorumlog.node.storage.replacing import finish_copy, replace_whole
from quorumlog.node.storage.votes import VotesFile
from quorumlog.node.storage.watermark import NO_DATABASE, Mark, Watermark
from quorumlog.raft.types import NodeId

QUARANTINE_NAME: Final = "quarantine"
OWNER_KEY: Final = meta_key(NODE_WIDE, MetaRow.OWNER)
"""META row of the node: the incarnation that made the database; none in one that an earlier release made."""

_META_START, _META_END = group_range(NODE_WIDE)[0], all_groups_range()[1]


class Judging:
    """The parts of a data folder that are open so far, what was found, and the verdict on the database.

    Methods that judge return in words what the node has forgotten, None when that is nothing.
    """

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
        self._exchanged = False  # and so does the watermark
        self._votes: VotesFile | None = None
        self._watermark: Watermark | None = None

    def _judge(self, identity: Identity) -> str | None:
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
        unreadable = self._check_meta(self._storage)
        if unreadable is not None:
            return unreadable
        if self._watermark is None or mark is None:
            exchanged = self._refuse_owner(self._storage, identity)
            if exchanged is not None:
                return f"{watermark_lost}, and {exchanged}"
            return f"{watermark_lost}, so nobody knows how far the database had come"
        if self._watermark.slots_valid == 1:
            self._find(
                Severity.WARNING,
                "one of the two slots of the watermark is damaged; the other one was used",
                "nothing to do after a power cut; otherwise check the disk (dmesg, smartctl)",
            )
        return self._compare(self._storage, mark, identity)

    def _refuse_owner(self, storage: Storage, identity: Identity) -> str | None:
        """Put away a database that another incarnation made, and say so; None for one's own."""
        owner = storage.get(Family.META, OWNER_KEY)
        if owner is None or owner == identity.incarnation:
            return None
        self._foreign = True
        self._close_storage()
        return f"the database belongs to incarnation {owner.hex()}, this node is {identity.incarnation.hex()}"

    def _compare(self, storage: Storage, mark: Mark, identity: Identity) -> str | None:
        found, sequence = storage.database_id(), storage.sequence_number()
        if mark.database_id == NO_DATABASE:
            self._close_storage()  # perhaps half filled
            return "the node stopped while a new database was being made in place of a lost one"
        if found != mark.database_id:
            # It may hold groups of another cluster under the same ids: nothing in it can be used.
            self._foreign = True
            self._close_storage()
            return f"the database has id {found.hex()}, but the watermark belongs to {mark.database_id.hex()}"
        exchanged = self._refuse_owner(storage, identity)
        if exchanged is not None:
            self._exchanged = True  # the votes may be of either node
            return exchanged
        if sequence < mark.sequence:
            return f"the database ends at sequence number {sequence}, but had safely reached {mark.sequence}"
        return None

    def _check_meta(self, storage: Storage) -> str | None:
        """Which replicas there are, what they voted and where their logs end: a database without that is put away."""
        try:
            storage.scan(Family.META, _META_START, _META_END)
        except StorageCorrupt as error:
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
        try:
            self._storage, saved = replace_whole(self._database, self._storage, self._watermark, self._quarantine)
        except StorageCorrupt as error:
            with suppress(StorageFailed):
                self._close_storage()
            return f"the database cannot be copied as a whole: {error}"
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

    def _quarantine(self, why: str, reason: str) -> str:
        """Make the next folder in quarantine, with the reason in a file that an operator can read."""
        numbers = [int(name[:4]) for name in self._files.list_names(QUARANTINE_NAME)]
        folder = f"{QUARANTINE_NAME}/{max(numbers, default=0) + 1:04d}-{why}"
        self._files.replace(f"{folder}/reason.txt", reason.encode() + b"\n")
        return folder

    def _find(self, severity: Severity, message: str, fix: str) -> None:
        self._findings.append(Finding(severity, message, fix))

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

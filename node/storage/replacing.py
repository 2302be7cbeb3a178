"""Replacing a damaged database by a copy of what can be read of it.

A database that opens and is whole, but holds a table that compaction cannot read, takes no more writes. It is copied
beside itself, and nothing is forgotten: the watermark is bound to the finished copy first, and that decides which of
the two counts, so a crash anywhere leaves the old one or the new one. One that does not open is in quarantine already
when its remains are copied; that saves traffic, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

from quorumlog.node.errors import StorageCorrupt, StorageFailed
from quorumlog.node.storage.database import Database
from quorumlog.node.storage.interface import RecoveryMode, Storage
from quorumlog.node.storage.salvage import Saved, copy_database
from quorumlog.node.storage.watermark import Watermark

Quarantine = Callable[[str, str], str]
"""(why, reason) -> a new folder in quarantine."""


def replace_whole(
    database: Database, storage: Storage, watermark: Watermark, quarantine: Quarantine
) -> tuple[Storage, Saved]:
    """Copy the open and whole `storage` and take the copy; returns it, open. Blocks for as long as copying takes.

    Raises StorageCorrupt, with nothing changed, when rows of META cannot be read; StorageFailed.
    """
    copy = database.make_copy()
    try:
        saved = copy_database(storage, copy, (), as_whole=True)
        copy.flush()
        copy_id, sequence = copy.database_id(), copy.sequence_number()
    except StorageCorrupt:
        copy.close()
        database.drop_copy()
        raise
    copy.close()
    watermark.adopt(copy_id, sequence, watermark.mark.repair_id)
    with suppress(StorageFailed):  # the old one may have given up meanwhile; nothing was written to it
        storage.close()
    finish_copy(database, watermark, quarantine)
    return database.open(RecoveryMode.TOLERATE_TAIL), saved


def finish_copy(database: Database, watermark: Watermark, quarantine: Quarantine) -> None:
    """Take the copy that the watermark belongs to, or drop one that was never finished. Raises StorageFailed."""
    copy_id = database.copy_id()
    if copy_id is None or copy_id != watermark.mark.database_id:
        database.drop_copy()
        return
    if database.exists():
        database.move(quarantine("database", "a table of it was damaged; a copy of all that could be read replaced it"))
    database.take_copy()


def salvage(database: Database, folder: str, target: Storage) -> str:
    """Copy what can be read of the database in `folder` into the new `target`; returns in words what that was.

    Raises UnknownEntryKind; StorageFailed where `target` fails.
    """
    if not database.has_room_for_copy(folder):
        return "nothing was salvaged from it: the disk has no room for a second copy"
    with ExitStack() as stack:
        try:
            source, loose = stack.enter_context(database.salvaging(folder))
        except (StorageCorrupt, StorageFailed) as error:
            return f"nothing was salvaged from it: {error}"
        return f"salvaged from it: {copy_database(source, target, loose, as_whole=False).in_words()}"

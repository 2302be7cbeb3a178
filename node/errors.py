"""Errors of a node. Each message names the thing it is about and what to do about it."""

from __future__ import annotations


class NodeError(Exception):
    """Base of everything that a node raises on purpose."""


class StorageError(NodeError):
    """Base of what storage raises."""


class StorageBusy(StorageError):
    """Back-pressure: nothing of the batch was written, and the same batch may be written again later."""


class StorageFailed(StorageError):
    """A write, sync or read failed in the device or the file system.

    The outcome of what was under way is unknown, and the database refuses writes until it is opened again: the node
    gives up its leaderships and exits, the supervisor starts it again.
    """


class StorageCorrupt(StorageError):
    """Stored bytes are not what was written: a checksum, an order or a position does not hold. Never read as "end of
    log".
    """


class StorageLocked(StorageError):
    """Another process has the database open."""


class EntryCorrupt(StorageCorrupt):
    """A stored or received entry is not what its writer made. A replica with such an entry gives up leading that
    group.
    """


class EntryDamaged(StorageCorrupt):
    """One stored entry of a log cannot be read, or is not the one that belongs there. All others are served.

    The group goes on; the entry is fetched from another replica and put in its place.
    """

    def __init__(self, group_id: int, index: int, reason: str) -> None:
        super().__init__(
            f"entry {index} of group {group_id} is damaged ({reason}): it must be fetched from another replica"
        )
        self.group_id = group_id
        self.index = index


class LogLost(StorageCorrupt):
    """Nothing says any more where the log of a group begins and ends. The replica has to begin anew, in REPAIR; the
    other groups of the node go on.
    """

    def __init__(self, group_id: int, reason: str) -> None:
        super().__init__(f"the log of group {group_id} is lost ({reason}): the replica must be repaired from its peers")
        self.group_id = group_id


class UnknownEntryKind(NodeError):
    """An intact entry of a kind or format that this release does not know. It stops the group and is never skipped."""


class ReplicaStopped(NodeError):
    """A replica takes no further part: its log holds an entry that cannot be read. The other replicas go on."""

"""Which replicas of this node are whole, and which are in REPAIR.

A node that has forgotten something draws a new random repair id. A replica is whole only if its META row holds the
present one, so REPAIR outlives every restart without a list of who is in it: whoever has not proved itself since is.
The row is written at an ordinary birth, and otherwise in the synced batch with which the replica leaves REPAIR.
"""

from __future__ import annotations

from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.keys import MetaRow, all_groups_range, group_and_row_of_meta_key, meta_key


def is_whole(storage: Storage, group_id: int, repair_id: bytes) -> bool:
    """Whether the replica of this group may vote, lead and count. `repair_id` is 16 bytes, from the watermark.

    Raises StorageCorrupt or StorageFailed.
    """
    return storage.get(Family.META, meta_key(group_id, MetaRow.WHOLE)) == repair_id


def mark_whole(batch: WriteBatch, group_id: int, repair_id: bytes) -> None:
    """Add to `batch` that the replica is whole; true once the batch is synced."""
    batch.put(Family.META, meta_key(group_id, MetaRow.WHOLE), repair_id)


def replicas_by_wholeness(storage: Storage, repair_id: bytes) -> tuple[list[int], list[int]]:
    """Return the group ids of the replicas that are whole, and of those in REPAIR, both sorted.

    Only replicas with a row in the database are known here; one that the database has lost altogether is missing in
    both. Reads all of META, which is small. Raises StorageCorrupt or StorageFailed.
    """
    groups: dict[int, bool] = {}
    for key, value in storage.scan(Family.META, *all_groups_range()):
        group_id, row = group_and_row_of_meta_key(key)
        groups[group_id] = groups.get(group_id, False) or (row == MetaRow.WHOLE and value == repair_id)
    return [group for group, whole in groups.items() if whole], [group for group, whole in groups.items() if not whole]

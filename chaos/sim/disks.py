"""Disks that are slow or full, that fail, and that lose what they were given.

The first kind never loses what was synced. The second does, and so asks the atlas first.
"""

from __future__ import annotations

import random

from quorumlog.chaos.sim.atlas import Flip
from quorumlog.chaos.sim.field import Field
from quorumlog.chaos.sim.node import SimNode
from quorumlog.node.errors import StorageFailed
from quorumlog.node.storage.interface import Family, RecoveryMode
from quorumlog.node.storage.keys import index_of_log_key
from quorumlog.node.storage.votes import VOTES_NAME
from quorumlog.node.storage.watermark import WATERMARK_NAME


def slow_syncs(field: Field, rng: random.Random) -> bool:
    """A disk takes its time."""
    node = field.any_node(rng)
    factor = rng.choice([5.0, 20.0, 100.0])
    field.tell(f"syncs of node {node.node_id} take {factor:.0f} times as long")
    node.sync_slowness = factor

    def mend() -> None:
        node.sync_slowness = 1.0

    field.later(rng.uniform(0.5, 8.0), mend)
    return True


def hung_syncs(field: Field, rng: random.Random) -> bool:
    """A disk finishes no sync for a while."""
    node = field.any_node(rng)
    field.tell(f"syncs of node {node.node_id} hang")
    node.hold_syncs()
    field.later(rng.uniform(0.1, 4.0), node.release_syncs)
    return True


def write_stall(field: Field, rng: random.Random) -> bool:
    """A database pushes writes back for a while."""
    node = field.running(rng)
    if node is None:
        return False
    storage = node.storage
    field.tell(f"the database of node {node.node_id} pushes back")
    storage.refusing = True

    def mend() -> None:
        storage.refusing = False

    field.later(rng.uniform(0.1, 3.0), mend)
    return True


def full_disk(field: Field, rng: random.Random) -> bool:
    """A write finds no space: the process exits, and is started again when there is some."""
    node = field.running(rng)
    if node is None:
        return False
    field.tell(f"the disk of node {node.node_id} is full")
    node.storage.fail_next_write = StorageFailed("no space left on device: made to fail")
    node.restart_seconds = rng.uniform(0.5, 6.0)
    return True


def sync_error(field: Field, rng: random.Random) -> bool:
    """A sync fails: the process exits, and what it wrote last is there or not."""
    node = field.running(rng)
    if node is None:
        return False
    field.tell(f"the next sync of node {node.node_id} fails")
    node.storage.fail_next_sync = StorageFailed("input/output error: made to fail")
    return True


# ---------------------------------------------------------------------------------------------------- what is lost


def flipped_bit(field: Field, rng: random.Random) -> bool:
    """A bit of a stored entry is another one than was written."""
    node = _victim(field, rng)
    if node is None:
        return False
    keys = node.storage.keys(Family.LOG)
    if not keys:
        return False
    key = rng.choice(keys)
    value = bytearray(node.storage.get(Family.LOG, key) or b"")
    place = rng.randrange(len(value))
    value[place] ^= 1 << rng.randrange(8)
    group_id, index = int.from_bytes(key[1:9], "big"), index_of_log_key(key)
    field.tell(f"a bit flips on node {node.node_id}, in byte {place} of entry {index} of group {group_id}")
    field.atlas.flip(Flip(node, node.storage, key, bytes(value)))
    field.later(rng.uniform(0.0, 20.0), field.atlas.read_damage)
    return True


def lost_database(field: Field, rng: random.Random) -> bool:
    """A node comes back with a database that opens in no mode."""

    def lose(node: SimNode) -> None:
        node.database.refusing = frozenset(RecoveryMode)

    return _lose(field, rng, "the database", lose)


def torn_log(field: Field, rng: random.Random) -> bool:
    """The write-ahead log does not end as it should, as a power cut may leave it: nothing that was synced is lost."""
    node = field.running(rng)
    if node is None:
        return False
    field.tell(f"the write-ahead log of node {node.node_id} ends in zeros")
    node.crash()
    node.database.refusing = frozenset({RecoveryMode.TOLERATE_TAIL})
    field.world.start_later(node, rng.uniform(0.1, 3.0))
    return True


def lost_watermark(field: Field, rng: random.Random) -> bool:
    """The watermark file is gone, so nobody knows whether the database is whole."""
    return _lose(field, rng, "the watermark", lambda node: _remove(node, WATERMARK_NAME))


def lost_votes(field: Field, rng: random.Random) -> bool:
    """The votes file is gone."""
    return _lose(field, rng, "the votes file", lambda node: _remove(node, VOTES_NAME))


def wiped(field: Field, rng: random.Random) -> bool:
    """The whole disk is gone: the node comes back as a stranger."""
    return _lose(field, rng, "the disk", SimNode.lose_disk)


def _remove(node: SimNode, name: str) -> None:
    if node.files.exists(name):
        node.files.remove(name)
        node.files.sync_folder()


def _victim(field: Field, rng: random.Random) -> SimNode | None:
    """A node that may lose something."""
    node = field.running(rng)
    return node if node is not None and field.atlas.may_hurt(node) else None


def _lose(field: Field, rng: random.Random, what: str, lose: object) -> bool:
    node = _victim(field, rng)
    if node is None:
        return False
    assert callable(lose)
    field.atlas.hurt_now(node)
    node.crash()
    field.tell(f"{what} of node {node.node_id} is lost")
    node.robbed = True
    lose(node)
    field.world.start_later(node, rng.uniform(0.1, 3.0))
    return True

"""The keys of the database. Each begins with a version byte; numbers are big-endian, so that bytes order as numbers do.

    LOG    version u8 | group id u64 | index u64                    -> stored entry (see entry.py)
    INDEX  version u8 | group id u64 | row u8 | index u64           -> SPARSE: milestone, EPOCH: term and first offset
    STATE  version u8 | group id u64 | index u64 | part u32         -> part of a fold or a snapshot taken at `index`
    META   version u8 | group id u64 | row u8                       -> one small row (hard state, prefix, ...)

In META the group id 0 (no group has it) holds the rows of the node as a whole.

INDEX is keyed by index, not by offset or time: every entry has an index of its own while many share an offset, so
cutting a prefix or a suffix is one range, and because offsets and running maxima never fall along the log, a search by
offset or time is a binary search over the same rows.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

KEY_VERSION: Final = 1
NODE_WIDE: Final = 0
"""The group id under which META keeps the rows of the node itself."""

INDEX_MAX: Final = (1 << 64) - 1

_GROUP_AND_INDEX: Final = Struct(">BQQ")
_INDEX_ROW: Final = Struct(">BQBQ")
_STATE_PART: Final = Struct(">BQQI")
_META_ROW: Final = Struct(">BQB")


class IndexRow(IntEnum):
    """Kinds of rows in INDEX."""

    SPARSE = 1
    EPOCH = 2


class MetaRow(IntEnum):
    """Rows in META: from 1 those of a group, from 128 those of the node."""

    HARD_STATE = 1
    COMMIT_HINT = 2
    PREFIX = 3
    REPLICA = 4
    WHOLE = 5
    CONFIGURATIONS = 6
    LAST = 7
    DATABASE_ID = 128
    BORN_UPTO = 129
    OWNER = 130


def log_key(group_id: int, index: int) -> bytes:
    """Key of the entry at `index`, 17 bytes."""
    return _GROUP_AND_INDEX.pack(KEY_VERSION, group_id, index)


def index_of_log_key(key: bytes) -> int:
    """Index in a key made by `log_key`."""
    return int.from_bytes(key[9:17], "big")


def index_key(group_id: int, row: IndexRow, index: int) -> bytes:
    """Key of an index row, 18 bytes."""
    return _INDEX_ROW.pack(KEY_VERSION, group_id, row, index)


def index_of_index_key(key: bytes) -> int:
    """Index in a key made by `index_key`."""
    return int.from_bytes(key[10:18], "big")


def state_key(group_id: int, index: int, part: int = 0) -> bytes:
    """Key of one part of the state that a group had after applying `index`, 21 bytes."""
    return _STATE_PART.pack(KEY_VERSION, group_id, index, part)


def meta_key(group_id: int, row: MetaRow) -> bytes:
    """Key of a group's row, or of a row of the node with `NODE_WIDE`, 10 bytes."""
    return _META_ROW.pack(KEY_VERSION, group_id, row)


def group_range(group_id: int) -> tuple[bytes, bytes]:
    """Start and exclusive end of everything a group has, the same in every family: what a removed group's deletion
    takes.
    """
    return _prefix(group_id), _prefix(group_id + 1)


def all_groups_range() -> tuple[bytes, bytes]:
    """Start and exclusive end of what all groups together have; the node's own rows are outside."""
    return _prefix(NODE_WIDE + 1), (KEY_VERSION + 1).to_bytes(1, "big")


def group_and_row_of_meta_key(key: bytes) -> tuple[int, int]:
    """Group id and row in a key made by `meta_key`."""
    _, group_id, row = _META_ROW.unpack(key)
    return group_id, row


def group_of_key(key: bytes) -> int:
    """Group id in any key, NODE_WIDE for a row of the node."""
    return int.from_bytes(key[1:9], "big")


def _prefix(group_id: int) -> bytes:
    return KEY_VERSION.to_bytes(1, "big") + group_id.to_bytes(8, "big")

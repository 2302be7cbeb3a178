"""The largest record timestamp of a stored entry, read without opening its batch."""

from __future__ import annotations

from struct import Struct
from typing import Final

from quorumlog.node.storage.entry import HEADER_BYTES, EntryHeader
from quorumlog.proto.batch import APPEND_TIME

_FLAGS_AND_MAX_TIMESTAMP: Final = Struct(">xxH17xq")
"""Where the packed batch header has them; a test compares with the codec. Unpacking the batch would copy its payload.
"""


def max_timestamp_of(header: EntryHeader, data: bytes) -> int:
    """Largest timestamp of the records in the stored entry `data` (kind RECORDS), Unix milliseconds.

    With the flag APPEND_TIME that is the time the leader stamped on the entry.
    """
    flags, max_timestamp_ms = _FLAGS_AND_MAX_TIMESTAMP.unpack_from(data, HEADER_BYTES)
    return header.append_time_ms if flags & APPEND_TIME else int(max_timestamp_ms)

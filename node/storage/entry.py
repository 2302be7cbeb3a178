"""The stored entry: what stands in the log, and what travels between replicas, byte for byte.

     0  version u8 = 1
     1  kind u8                 EntryKind
     2  reserved u16 = 0
     4  group_id u64
    12  index u64
    20  term u64
    28  base_offset i64         offset of the first record; the next offset where there are none
    36  count u32               offsets taken, 0 for all but records
    40  append_time_ms i64      the leader's clock, Unix milliseconds
    48  batch_crc u32           CRC-32C of the payload
    52  payload_length u32
    56  header_crc u32          CRC-32C of bytes 0 to 55
    60  payload

Numbers are big-endian. There are two checks: the payload is hashed once, by whoever made it, and that sum is carried
here, so stamping an offset, a term and a time on a batch costs a sum over 56 bytes instead of one over the whole
batch. Group id and index are under the header's sum, so a read that brought back another entry's bytes is caught as
well.

Every kind carries `base_offset`, so that the next offset survives when nothing but entries without records is left.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from quorumlog.node.errors import EntryCorrupt, UnknownEntryKind
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import EntryKind

ENTRY_VERSION: Final = 1
HEADER_BYTES: Final = 60
PAYLOAD_BYTES_MAX: Final = (1 << 32) - 1

_SUMMED: Final = Struct(">BBHQQQqIqII")
_HEADER: Final = Struct(">BBHQQQqIqIII")
_SUMMED_BYTES: Final = HEADER_BYTES - 4
_KINDS: Final = {int(kind): kind for kind in EntryKind}

assert _SUMMED.size == _SUMMED_BYTES
assert _HEADER.size == HEADER_BYTES


class EntryHeader(NamedTuple):
    """The header of a stored entry, decoded. (Two names hide methods of tuple that nobody calls on a header.)"""

    kind: EntryKind
    group_id: int
    index: int  # type: ignore[assignment]
    term: int
    base_offset: int
    count: int  # type: ignore[assignment]
    append_time_ms: int
    batch_crc: int
    payload_length: int

    @property
    def next_offset(self) -> int:
        """The offset after this entry's records."""
        return self.base_offset + self.count


def encode_entry(
    kind: EntryKind,
    group_id: int,
    index: int,
    term: int,
    base_offset: int,
    count: int,
    append_time_ms: int,
    payload: bytes,
    batch_crc: int,
) -> bytes:
    """Bytes of an entry. `batch_crc` is the CRC-32C of `payload`, which is not computed again here."""
    assert count == 0 or kind is EntryKind.RECORDS, f"{kind.name} takes no offsets"
    summed = _SUMMED.pack(
        ENTRY_VERSION, kind, 0, group_id, index, term, base_offset, count, append_time_ms, batch_crc, len(payload)
    )
    return b"".join((summed, crc32c(summed).to_bytes(4, "big"), payload))


def decode_header(data: bytes) -> EntryHeader:
    """Header of the entry in `data`, its sum checked; the payload is not looked at.

    Raises EntryCorrupt, or UnknownEntryKind for an intact header of a kind that this release does not know.
    """
    if len(data) < HEADER_BYTES:
        raise EntryCorrupt(f"stored entry has {len(data)} bytes, its header alone has {HEADER_BYTES}")
    (
        version,
        kind_number,
        reserved,
        group_id,
        index,
        term,
        base_offset,
        count,
        append_time_ms,
        batch_crc,
        payload_length,
        header_crc,
    ) = _HEADER.unpack_from(data)
    if crc32c(data[:_SUMMED_BYTES]) != header_crc:
        raise EntryCorrupt(f"header checksum of a stored entry does not match (it says {index} of group {group_id})")
    if version != ENTRY_VERSION or reserved != 0:
        raise UnknownEntryKind(
            f"entry {index} of group {group_id} has format {version}, reserved {reserved}; this release reads format "
            f"{ENTRY_VERSION}, reserved 0: start the release that wrote it, or a newer one"
        )
    kind = _KINDS.get(kind_number)
    if kind is None:
        raise UnknownEntryKind(
            f"entry {index} of group {group_id} is of kind {kind_number}, which this release does not know: start the "
            "release that wrote it, or a newer one"
        )
    return EntryHeader(kind, group_id, index, term, base_offset, count, append_time_ms, batch_crc, payload_length)


def check_entry(data: bytes, group_id: int, index: int) -> EntryHeader:
    """Header of `data` after checking everything: both sums, the length, and that it is the entry that was asked for.

    Raises EntryCorrupt or UnknownEntryKind.
    """
    header = decode_header(data)
    if header.group_id != group_id or header.index != index:
        raise EntryCorrupt(
            f"asked for entry {index} of group {group_id}, found entry {header.index} of group {header.group_id}"
        )
    if len(data) != HEADER_BYTES + header.payload_length:
        raise EntryCorrupt(
            f"entry {index} of group {group_id} has {len(data) - HEADER_BYTES} bytes of payload instead of "
            f"{header.payload_length}"
        )
    if crc32c(data[HEADER_BYTES:]) != header.batch_crc:
        raise EntryCorrupt(f"payload checksum of entry {index} of group {group_id} does not match")
    return header


def payload_of(data: bytes) -> bytes:
    """Payload of a stored entry."""
    return data[HEADER_BYTES:]

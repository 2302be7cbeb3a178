"""The record batch: the unit of replication and of reading, and how it is checked.

A client encodes and compresses records once and seals them; leader, follower, disk and fetch pass the same bytes on.
What the checksum covers is the *packed header* and the payload after it, which is also what an entry of the log stores,
so the batch CRC is simply the CRC-32C of the stored bytes:

     0  version u8 = 1
     1  format u8               BatchFormat
     2  flags u16               1 transactional, 2 control, 4 append time
     4  compression u8          Compression
     5  count u32               records in the payload
     9  last_offset_delta u32
    13  first_timestamp_ms i64
    21  max_timestamp_ms i64
    29  producer_id i64         0: not idempotent
    37  producer_epoch u32
    41  base_sequence u32       below 2^31
    45  payload                 big-endian numbers before it, opaque bytes here

What the leader stamps (base offset, leader epoch, append time) stands outside: it changes after the client has sealed
the batch, and the entry header has a check of its own for it.
"""

import struct
from typing import Final, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.columns import (
    RecordColumns,
    RecordHeaders,
    check_timestamps,
    decode_columns,
    encode_columns,
    parse_columns,
    read_columns,
)
from quorumlog.proto.compression import inflate
from quorumlog.proto.crc32c import crc32c
from quorumlog.proto.invalid import BatchInvalid

__all__ = [
    "APPEND_TIME",
    "CONTROL",
    "FLAGS_FROM_CLIENTS",
    "PACKED_HEADER_BYTES",
    "SEQUENCES",
    "TRANSACTIONAL",
    "BatchHeader",
    "BatchInvalid",
    "BatchLimits",
    "RecordColumns",
    "RecordHeaders",
    "check_batch",
    "check_crc",
    "decode_columns",
    "encode_columns",
    "header_for",
    "header_of",
    "open_batch",
    "pack_stored",
    "read_stored_header",
    "seal",
    "to_wire",
    "unpack_stored",
]

TRANSACTIONAL: Final = 1
"""Flag: part of a transaction."""
CONTROL: Final = 2
"""Flag: written by a node, not by a client."""
APPEND_TIME: Final = 4
"""Flag: the records' timestamps are the time the leader appended them."""
FLAGS_FROM_CLIENTS: Final = TRANSACTIONAL | APPEND_TIME

SEQUENCES: Final = 2**31
"""Sequence numbers run from 0 to SEQUENCES - 1, and wrap."""

_VERSION: Final = 1
_PACKED_HEADER: Final = struct.Struct(">BBHBIIqqqII")
PACKED_HEADER_BYTES: Final = _PACKED_HEADER.size


class BatchHeader(NamedTuple):
    """Every field of a batch that its CRC covers besides the payload, in the order of the packed header."""

    format: int
    flags: int
    compression: int
    count: int  # type: ignore[assignment] # the contract's word; nobody counts fields of a header
    last_offset_delta: int
    first_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int

    def pack(self) -> bytes:
        """Return the packed header. Raises struct.error for values that have no place in it."""
        return _PACKED_HEADER.pack(_VERSION, *self)


class BatchLimits(NamedTuple):
    """What a batch may be at most: bytes as sent, bytes when opened, and the ratio of the two."""

    size_bytes_max: int
    inflated_size_bytes_max: int
    ratio_max: float


def header_for(
    count: int,
    *,
    first_timestamp_ms: int,
    max_timestamp_ms: int | None = None,
    flags: int = 0,
    compression: int = pb.NONE,
    producer_id: int = 0,
    producer_epoch: int = 0,
    base_sequence: int = 0,
) -> BatchHeader:
    """Return the header of a new columnar batch of `count` records, all of one timestamp unless a maximum is given."""
    latest = first_timestamp_ms if max_timestamp_ms is None else max_timestamp_ms
    return BatchHeader(
        pb.COLUMNS,
        flags,
        compression,
        count,
        count - 1,
        first_timestamp_ms,
        latest,
        producer_id,
        producer_epoch,
        base_sequence,
    )


def check_crc(header: BatchHeader, payload: bytes) -> int:
    """Return the batch CRC: CRC-32C of the packed header and the payload."""
    return crc32c(payload, crc32c(header.pack()))


def seal(header: BatchHeader, payload: bytes) -> pb.RecordBatch:
    """Return the batch as a client sends it, with its CRC. `payload` is compressed as the header says."""
    return _message(header, payload, crc=check_crc(header, payload))


def _message(
    header: BatchHeader,
    payload: bytes,
    *,
    crc: int,
    base_offset: int = 0,
    leader_epoch: int = 0,
    append_time_ms: int = 0,
) -> pb.RecordBatch:
    return pb.RecordBatch(
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        append_time_ms=append_time_ms,
        crc=crc,
        format=pb.BatchFormat.ValueType(header.format),
        flags=header.flags,
        compression=pb.Compression.ValueType(header.compression),
        count=header.count,
        last_offset_delta=header.last_offset_delta,
        first_timestamp_ms=header.first_timestamp_ms,
        max_timestamp_ms=header.max_timestamp_ms,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        payload=payload,
    )


def header_of(batch: pb.RecordBatch) -> BatchHeader:
    """Return the header of a batch, unchecked."""
    return BatchHeader(
        batch.format,
        batch.flags,
        batch.compression,
        batch.count,
        batch.last_offset_delta,
        batch.first_timestamp_ms,
        batch.max_timestamp_ms,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
    )


def pack_stored(header: BatchHeader, payload: bytes) -> bytes:
    """Return what an entry of the log stores; its CRC-32C is the batch CRC."""
    return header.pack() + payload


def read_stored_header(stored: bytes | memoryview, start: int = 0) -> BatchHeader:
    """Return the header of the batch at `start` of `stored`, whose checks it has passed. Copies no payload."""
    return BatchHeader._make(_PACKED_HEADER.unpack_from(stored, start)[1:])


def unpack_stored(stored: bytes | memoryview) -> tuple[BatchHeader, bytes]:
    """Return header and payload of what an entry stores. The caller has checked the entry's CRC.

    Raises BatchInvalid for bytes that are too short or of another version.
    """
    if len(stored) < PACKED_HEADER_BYTES:
        raise BatchInvalid(pb.BATCH_INVALID, f"a stored batch of {len(stored)} bytes ends within its header")
    version, *fields = _PACKED_HEADER.unpack_from(stored)
    if version != _VERSION:
        raise BatchInvalid(
            pb.UNSUPPORTED_VERSION, f"a stored batch has version {version}; {_VERSION} is known", "upgrade this node"
        )
    return BatchHeader._make(fields), bytes(stored[PACKED_HEADER_BYTES:])


def to_wire(
    stored: bytes | memoryview, *, base_offset: int, leader_epoch: int, append_time_ms: int, crc: int
) -> pb.RecordBatch:
    """Return the batch as it is fetched: what was stored, what the leader stamped, and the CRC the client had set."""
    header, payload = unpack_stored(stored)
    return _message(
        header,
        payload,
        crc=crc,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        append_time_ms=append_time_ms,
    )


def check_batch(batch: pb.RecordBatch, limits: BatchLimits, *, flags_allowed: int = FLAGS_FROM_CLIENTS) -> BatchHeader:
    """Return the header of a batch that is sound in every respect, or raise BatchInvalid with what is wrong with it.

    Codes: UNSUPPORTED_VERSION (format, flag, compression), BATCH_INVALID (unknown fields, counts or timestamps that
    disagree, an empty batch, no CRC), RECORD_TOO_LARGE, BATCH_CORRUPT (wrong CRC), COMPRESSION_BOMB. Raises
    CodecUnavailable where the library of a codec is missing.
    """
    header, _ = _checked(batch, limits, flags_allowed)
    return header


def open_batch(
    batch: pb.RecordBatch, limits: BatchLimits, *, flags_allowed: int = FLAGS_FROM_CLIENTS | CONTROL
) -> RecordColumns:
    """Return the records of a batch that was fetched, after the checks of `check_batch`; raises what that raises."""
    header, columns = _checked(batch, limits, flags_allowed)
    records = read_columns(columns, header.first_timestamp_ms)
    if header.flags & APPEND_TIME:
        return records._replace(timestamps_ms=[batch.append_time_ms] * header.count)
    return records


def _checked(batch: pb.RecordBatch, limits: BatchLimits, flags_allowed: int) -> tuple[BatchHeader, pb.Columns]:
    header, payload = header_of(batch), batch.payload
    if len(UnknownFieldSet(batch)):
        raise BatchInvalid(pb.BATCH_INVALID, "the batch has a field that is not known here", "upgrade the older side")
    _check_header(header, flags_allowed)
    if len(payload) > limits.size_bytes_max:
        message = f"a batch of {len(payload)} bytes; {limits.size_bytes_max} are allowed"
        raise BatchInvalid(pb.RECORD_TOO_LARGE, message)
    if not batch.HasField("crc"):
        raise BatchInvalid(
            pb.BATCH_INVALID, "the batch has no CRC", "seal it with CRC-32C of packed header and payload, or send rows"
        )
    crc = check_crc(header, payload)
    if crc != batch.crc:
        message = f"the batch of {header.count} records has CRC {crc:08x}, but says {batch.crc:08x}"
        raise BatchInvalid(pb.BATCH_CORRUPT, message)
    opened = inflate(header.compression, payload, limits.inflated_size_bytes_max, limits.ratio_max)
    columns = parse_columns(opened, header.count)
    check_timestamps(columns, header.first_timestamp_ms, header.max_timestamp_ms)
    return header, columns


def _check_header(header: BatchHeader, flags_allowed: int) -> None:
    if header.format != pb.COLUMNS:
        raise BatchInvalid(
            pb.UNSUPPORTED_VERSION, f"batch format {header.format} is not known", f"use {pb.COLUMNS} (COLUMNS), or rows"
        )
    if header.flags & ~flags_allowed:
        refused = header.flags & ~flags_allowed
        raise BatchInvalid(
            pb.UNSUPPORTED_VERSION,
            f"batch flags {refused:#x} are not known or not allowed here",
            "send no such flags, or upgrade the node",
        )
    if header.compression not in _CODECS:
        raise BatchInvalid(
            pb.UNSUPPORTED_VERSION,
            f"compression {header.compression} is not known",
            "use one of: " + ", ".join(f"{codec} {name.lower()}" for name, codec in pb.Compression.items()),
        )
    if header.count == 0:
        raise BatchInvalid(pb.BATCH_INVALID, "the batch has no records", "send nothing instead")
    if header.last_offset_delta != header.count - 1:
        message = f"last_offset_delta {header.last_offset_delta} of a batch of {header.count} records"
        raise BatchInvalid(pb.BATCH_INVALID, message, f"it is to be {header.count - 1}")
    if header.producer_id < 0 or header.base_sequence >= SEQUENCES:
        message = f"producer_id {header.producer_id}, base_sequence {header.base_sequence}"
        raise BatchInvalid(pb.BATCH_INVALID, message, "ids are not negative, sequences below 2^31")


_CODECS: Final = frozenset(pb.Compression.values())

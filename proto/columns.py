"""The native payload: the records of one batch, column by column, as the protobuf message `Columns`.

Columns and not one message per record, because in Python a message costs far more than its bytes: 1,000 records of
100 bytes take about 60 ns each to encode and as much to decode. A column that says nothing (no keys, one timestamp for
all, no nulls) is absent.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.invalid import BatchInvalid

RecordHeaders: TypeAlias = tuple[tuple[str, bytes | None], ...]
"""The headers of one record: (name, value) in their order, names may repeat."""

RESERVED_HEADER_PREFIX: Final = "ql."
_RESERVED_HEADERS_KNOWN: Final = frozenset(("ql.traceparent",))
_TIMESTAMP_MS_MAX: Final = 2**63 - 1


class RecordColumns(NamedTuple):
    """The records of a batch: four lists of one entry per record. A null key or value is None."""

    values: list[bytes | None]
    keys: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[RecordHeaders]


def encode_columns(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None = None,
    headers: Mapping[int, Sequence[tuple[str, bytes | None]]] | None = None,
    timestamps_ms: Sequence[int] | None = None,
) -> bytes:
    """Return the payload for these records; its header's `first_timestamp_ms` is to be `timestamps_ms[0]`.

    `headers` are sparse: position of the record to its headers. Without `timestamps_ms` all records have the header's
    `first_timestamp_ms`. Raises ValueError where a column has another length than `values`, BatchInvalid for a header
    name that is reserved and not known here.
    """
    columns = pb.Columns()
    count = len(values)
    if None in values:
        columns.null_values = _bitmap(values)
        columns.values.extend([value or b"" for value in values])
    else:
        columns.values.extend(values)  # type: ignore[arg-type] # no None among them
    if keys is not None:
        if len(keys) != count:
            raise ValueError(f"{len(keys)} keys for {count} values")
        if None in keys:
            if any(key is not None for key in keys):
                columns.null_keys = _bitmap(keys)
                columns.keys.extend([key or b"" for key in keys])
        else:
            columns.keys.extend(keys)  # type: ignore[arg-type] # no None among them
    if timestamps_ms is not None:
        if len(timestamps_ms) != count:
            raise ValueError(f"{len(timestamps_ms)} timestamps for {count} values")
        first = timestamps_ms[0] if count else 0
        deltas = [timestamp - first for timestamp in timestamps_ms]
        if any(deltas):
            columns.timestamp_deltas_ms.extend(deltas)
    if headers:
        _encode_headers(columns, headers, count)
    return columns.SerializeToString()


def _bitmap(column: Sequence[bytes | None]) -> bytes:
    bits = bytearray((len(column) + 7) // 8)
    for position, entry in enumerate(column):
        if entry is None:
            bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def _encode_headers(columns: pb.Columns, headers: Mapping[int, Sequence[tuple[str, bytes | None]]], count: int) -> None:
    for record in sorted(headers):
        if not 0 <= record < count:
            raise ValueError(f"headers for record {record} of {count}")
        if not headers[record]:
            continue
        row = columns.headers.add(record=record)
        for name, value in headers[record]:
            _check_header_name(name, record)
            row.headers.add(name=name, value=value)


def _check_header_name(name: str, record: int) -> None:
    if name.startswith(RESERVED_HEADER_PREFIX) and name not in _RESERVED_HEADERS_KNOWN:
        raise BatchInvalid(
            pb.UNSUPPORTED_VERSION,
            f"record {record} has the header {name!r}, which asks for a feature that is not known here",
            f"names beginning with {RESERVED_HEADER_PREFIX!r} are reserved: choose another one, or upgrade the node",
        )


def parse_columns(payload: bytes, count: int) -> pb.Columns:
    """Return the parsed payload of a batch of `count` records.

    Raises BatchInvalid where it is not such a payload: unknown fields, columns of another length, a bitmap that
    disagrees with its column, headers out of order or with reserved names.
    """
    try:
        columns = pb.Columns.FromString(payload)
    except DecodeError as error:
        raise _invalid(f"the payload is not a Columns message: {error}") from None
    if len(UnknownFieldSet(columns)):
        raise _invalid("the payload has a column that is not known here", "upgrade the older side")
    # Always there, so that `count` cannot be larger than what was sent.
    if len(columns.values) != count:
        raise _invalid(f"the header counts {count} records, the payload has {len(columns.values)}")
    if len(columns.keys) not in (0, count):
        raise _invalid(f"{len(columns.keys)} keys for {count} records")
    if len(columns.timestamp_deltas_ms) not in (0, count):
        raise _invalid(f"{len(columns.timestamp_deltas_ms)} timestamps for {count} records")
    if columns.null_values:
        _check_bitmap("values", columns.null_values, columns.values)
    if columns.null_keys:
        _check_bitmap("keys", columns.null_keys, columns.keys)
    if columns.headers:
        _check_headers(columns, payload, count)
    return columns


def _invalid(message: str, hint: str = "") -> BatchInvalid:
    return BatchInvalid(pb.BATCH_INVALID, message, hint)


def _null_positions(bitmap: bytes) -> list[int]:
    return [
        byte_position * 8 + bit
        for byte_position, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]


def _check_bitmap(name: str, bitmap: bytes, column: Sequence[bytes]) -> None:
    if len(bitmap) != (len(column) + 7) // 8:
        raise _invalid(f"the null bitmap of {len(column)} {name} has {len(bitmap)} bytes")
    for position in _null_positions(bitmap):
        if position >= len(column) or column[position]:
            raise _invalid(f"the null bitmap of {name} marks record {position}, which has one or does not exist")


def _check_headers(columns: pb.Columns, payload: bytes, count: int) -> None:
    records = [row.record for row in columns.headers]
    if any(left >= right for left, right in pairwise(records)) or records[-1] >= count:
        raise _invalid(f"headers are not in the order of the {count} records")
    # Looking for unknown fields message by message would cost more than everything else here.
    size_bytes = columns.ByteSize()
    columns.DiscardUnknownFields()
    if columns.ByteSize() != size_bytes:
        raise _invalid("a header has a field that is not known here", "upgrade the older side")
    if RESERVED_HEADER_PREFIX.encode() in payload:
        for row in columns.headers:
            for header in row.headers:
                _check_header_name(header.name, row.record)


def check_timestamps(columns: pb.Columns, first_timestamp_ms: int, max_timestamp_ms: int) -> None:
    """Raise BatchInvalid unless no timestamp is negative and the largest one is `max_timestamp_ms`."""
    earliest = latest = first_timestamp_ms
    if columns.timestamp_deltas_ms:
        earliest += min(columns.timestamp_deltas_ms)
        latest += max(columns.timestamp_deltas_ms)
    if earliest < 0 or latest > _TIMESTAMP_MS_MAX:
        raise _invalid(f"timestamps from {earliest} to {latest} ms", "timestamps are ms since 1970, not negative")
    if latest != max_timestamp_ms:
        raise _invalid(f"the header says max_timestamp_ms {max_timestamp_ms}, the records say {latest}")


def read_columns(columns: pb.Columns, first_timestamp_ms: int) -> RecordColumns:
    """Return the records of a message that `parse_columns` has accepted."""
    count = len(columns.values)
    values: list[bytes | None] = columns.values[:]  # type: ignore[assignment] # nulls are put in below
    for position in _null_positions(columns.null_values):
        values[position] = None
    keys: list[bytes | None] = columns.keys[:] or [None] * count  # type: ignore[assignment]
    for position in _null_positions(columns.null_keys):
        keys[position] = None
    timestamps_ms = [first_timestamp_ms + delta for delta in columns.timestamp_deltas_ms]
    headers: list[RecordHeaders] = [()] * count
    for row in columns.headers:
        headers[row.record] = tuple([(header.name, header.value or _empty_or_null(header)) for header in row.headers])
    return RecordColumns(values, keys, timestamps_ms or [first_timestamp_ms] * count, headers)


def _empty_or_null(header: pb.Header) -> bytes | None:
    return b"" if header.HasField("value") else None


def decode_columns(payload: bytes, count: int, first_timestamp_ms: int = 0) -> RecordColumns:
    """Return the records of an uncompressed payload. Raises BatchInvalid as `parse_columns` does."""
    return read_columns(parse_columns(payload, count), first_timestamp_ms)

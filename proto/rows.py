"""Plain rows, for clients that have nothing but generated code: the node packs them into a batch, and unpacks one."""

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import BatchLimits, encode_columns, header_for, open_batch, seal
from quorumlog.proto.invalid import BatchInvalid


def rows_to_batch(rows: pb.Rows, now_ms: int) -> pb.RecordBatch:
    """Return the rows as one sealed batch, uncompressed and not idempotent. Rows without a timestamp get `now_ms`.

    Raises BatchInvalid: no rows, unknown fields, a negative timestamp, a reserved header. Its size is for `check_batch`
    to judge, as that of every batch.
    """
    records = rows.records
    if not records:
        raise BatchInvalid(pb.BATCH_INVALID, "there are no rows to append", "send nothing instead")
    size_bytes = rows.ByteSize()
    rows.DiscardUnknownFields()
    if rows.ByteSize() != size_bytes:
        raise BatchInvalid(pb.BATCH_INVALID, "a row has a field that is not known here", "upgrade the older side")
    timestamps_ms = [row.timestamp_ms or now_ms for row in records]
    if min(timestamps_ms) < 0:
        position = timestamps_ms.index(min(timestamps_ms))
        message = f"row {position} has timestamp {timestamps_ms[position]}"
        raise BatchInvalid(pb.BATCH_INVALID, message, "timestamps are ms since 1970; 0 means now")
    keys = [row.key if row.HasField("key") else None for row in records]
    payload = encode_columns(
        [row.value if row.HasField("value") else None for row in records],
        keys,
        {position: _headers(row) for position, row in enumerate(records) if row.headers},
        timestamps_ms,
    )
    header = header_for(len(records), first_timestamp_ms=timestamps_ms[0], max_timestamp_ms=max(timestamps_ms))
    return seal(header, payload)


def _headers(row: pb.Record) -> list[tuple[str, bytes | None]]:
    return [(header.name, header.value if header.HasField("value") else None) for header in row.headers]


def batch_to_rows(batch: pb.RecordBatch, limits: BatchLimits) -> list[pb.Record]:
    """Return the records of a fetched batch with their offsets. Raises what `open_batch` raises."""
    columns = open_batch(batch, limits)
    return [
        pb.Record(
            key=key,
            value=value,
            headers=[pb.Header(name=name, value=header) for name, header in headers],
            timestamp_ms=timestamp_ms,
            offset=offset,
            leader_epoch=batch.leader_epoch,
        )
        for offset, (value, key, timestamp_ms, headers) in enumerate(zip(*columns, strict=True), batch.base_offset)
    ]

"""Between batches as the client keeps them and batches as they travel."""

from quorumlog.pending import PendingBatch
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import encode_columns, header_for, seal
from quorumlog.proto.compression import deflate

# Below this size compression costs more than it saves.
COMPRESS_BYTES_MIN = 1024


def encode(batch: PendingBatch, producer_id: int, compression: int) -> pb.RecordBatch:
    """Return the batch ready to send, under its present epoch and sequence; the records are encoded at its first
    attempt only."""
    timestamps_ms = batch.timestamps_ms
    if batch.payload is None:
        payload = encode_columns(batch.values, batch.keys, batch.headers, timestamps_ms)
        if compression != pb.NONE and len(payload) >= COMPRESS_BYTES_MIN:
            packed = deflate(compression, payload)
            if len(packed) < len(payload):
                payload = packed
                batch.compression = compression
        batch.payload = payload
    header = header_for(
        batch.count,
        first_timestamp_ms=timestamps_ms[0],
        max_timestamp_ms=max(timestamps_ms),
        compression=batch.compression,
        producer_id=producer_id,
        producer_epoch=batch.epoch,
        base_sequence=batch.base_sequence,
    )
    return seal(header, batch.payload)

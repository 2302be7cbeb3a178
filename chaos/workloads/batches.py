"""Batches as clients make and read them, with values that prove themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quorumlog.clock import wall_ms
from quorumlog.cursor import LIMITS
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import SEQUENCES, encode_columns, header_for, open_batch, seal


class Read(NamedTuple):
    """One record as it was read."""

    offset: int
    value: str
    term: int
    producer_id: int
    epoch: int
    sequence: int


def batch_of(values: Sequence[str], producer_id: int, epoch: int, sequence: int) -> pb.RecordBatch:
    """Return the batch of these values."""
    header = header_for(
        len(values),
        first_timestamp_ms=wall_ms(),
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )
    return seal(header, encode_columns([value.encode() for value in values]))


def read_batches(batches: Sequence[pb.RecordBatch], start: int) -> list[Read]:
    """Return the records of batches from offset `start` on.

    Raises:
        BatchInvalid: a batch is not what it says.
    """
    found = []
    for batch in batches:
        for position, value in enumerate(open_batch(batch, LIMITS).values):
            offset = batch.base_offset + position
            if offset >= start:
                found.append(
                    Read(
                        offset,
                        "" if value is None else value.decode(errors="replace"),
                        batch.leader_epoch,
                        batch.producer_id,
                        batch.producer_epoch,
                        (batch.base_sequence + position) % SEQUENCES,
                    )
                )
    return found

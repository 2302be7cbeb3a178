"""The batch: its bytes are fixed, its checksum covers what it should, and nothing unsound is accepted."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import (
    APPEND_TIME,
    CONTROL,
    PACKED_HEADER_BYTES,
    TRANSACTIONAL,
    BatchHeader,
    BatchInvalid,
    BatchLimits,
    check_batch,
    check_crc,
    encode_columns,
    header_for,
    header_of,
    open_batch,
    pack_stored,
    read_stored_header,
    seal,
    to_wire,
    unpack_stored,
)
from quorumlog.proto.compression import deflate
from quorumlog.proto.crc32c import crc32c

LIMITS = BatchLimits(size_bytes_max=1 << 20, inflated_size_bytes_max=1 << 22, ratio_max=500)
VALUES = [b"one", b"two", None]
HEADER = BatchHeader(
    format=pb.COLUMNS,
    flags=APPEND_TIME | TRANSACTIONAL,
    compression=pb.NONE,
    count=3,
    last_offset_delta=2,
    first_timestamp_ms=1_700_000_000_000,
    max_timestamp_ms=1_700_000_000_000,
    producer_id=77,
    producer_epoch=3,
    base_sequence=2**31 - 1,
)


def sealed(**changes: int) -> pb.RecordBatch:
    return seal(HEADER._replace(**changes), encode_columns(VALUES))


def resealed(batch: pb.RecordBatch) -> pb.RecordBatch:
    """The batch with the CRC that fits it, so that only what was changed can be refused."""
    batch.crc = check_crc(header_of(batch), batch.payload)
    return batch


def test_golden_bytes() -> None:
    stored = pack_stored(HEADER, b"payload")
    assert stored.hex(" ") == (
        "01 01 00 05 00 "  # version, format, flags, compression
        "00 00 00 03 00 00 00 02 "  # count, last_offset_delta
        "00 00 01 8b cf e5 68 00 00 00 01 8b cf e5 68 00 "  # first and max timestamp
        "00 00 00 00 00 00 00 4d 00 00 00 03 7f ff ff ff "  # producer id, epoch, base sequence
        "70 61 79 6c 6f 61 64"
    )
    assert len(stored) == PACKED_HEADER_BYTES + 7
    assert check_crc(HEADER, b"payload") == crc32c(stored) == 0x56D323C7


def test_what_is_stored_comes_back() -> None:
    stored = pack_stored(HEADER, b"payload")
    assert unpack_stored(stored) == unpack_stored(memoryview(stored)) == (HEADER, b"payload")
    assert read_stored_header(b"before" + stored, 6) == HEADER


def test_what_is_fetched_is_what_was_sent_and_stamped() -> None:
    sent = sealed()
    stored = pack_stored(header_of(sent), sent.payload)
    fetched = to_wire(stored, base_offset=500, leader_epoch=9, append_time_ms=1234, crc=sent.crc)
    assert (fetched.base_offset, fetched.leader_epoch, fetched.append_time_ms) == (500, 9, 1234)
    assert check_batch(fetched, LIMITS) == HEADER
    columns = open_batch(fetched, LIMITS)
    assert columns.values == VALUES
    assert columns.timestamps_ms == [1234] * 3, "the flag says that the leader's clock counts"
    fetched.base_offset = fetched.leader_epoch = fetched.append_time_ms = 0
    assert fetched == sent


@pytest.mark.parametrize("codec", pb.Compression.values())
def test_compressed_batches_open(codec: int) -> None:
    values: list[bytes | None] = [b"value %d" % number for number in range(300)]
    timestamps_ms = [1000 + number % 7 for number in range(300)]
    header = header_for(300, first_timestamp_ms=1000, max_timestamp_ms=1006, compression=codec)
    batch = seal(header, deflate(codec, encode_columns(values, values, timestamps_ms=timestamps_ms)))
    assert check_batch(batch, LIMITS) == header
    columns = open_batch(batch, LIMITS)
    assert columns.values == columns.keys == values
    assert columns.timestamps_ms == timestamps_ms


@pytest.mark.parametrize("field", BatchHeader._fields)
def test_the_crc_covers_every_field_of_the_header(field: str) -> None:
    payload = encode_columns(VALUES)
    changed = HEADER._replace(**{field: getattr(HEADER, field) ^ 1})
    assert check_crc(changed, payload) != check_crc(HEADER, payload)


def test_the_fields_of_the_message_are_those_covered_and_those_stamped() -> None:
    fields = {field.name for field in pb.RecordBatch.DESCRIPTOR.fields}
    assert fields == {*BatchHeader._fields, "payload", "crc", "base_offset", "leader_epoch", "append_time_ms"}


@given(st.integers(0, 2**32))
def test_any_flipped_bit_of_the_payload_is_noticed(seed: int) -> None:
    batch = sealed()
    damaged = bytearray(batch.payload)
    bit = random.Random(seed).randrange(len(damaged) * 8)
    damaged[bit // 8] ^= 1 << bit % 8
    batch.payload = bytes(damaged)
    with pytest.raises(BatchInvalid) as refused:
        check_batch(batch, LIMITS)
    assert refused.value.code == pb.BATCH_CORRUPT
    assert f"says {batch.crc:08x}" in refused.value.message


def with_unknown_field(batch: pb.RecordBatch) -> pb.RecordBatch:
    return pb.RecordBatch.FromString(batch.SerializeToString() + b"\xa8\x06\x01")


def without_crc(batch: pb.RecordBatch) -> pb.RecordBatch:
    batch.ClearField("crc")
    return batch


@pytest.mark.parametrize(
    ("batch", "code", "names"),
    [
        (sealed(format=0), pb.UNSUPPORTED_VERSION, "format 0"),
        (sealed(format=2), pb.UNSUPPORTED_VERSION, "format 2"),
        (sealed(flags=8), pb.UNSUPPORTED_VERSION, "flags 0x8"),
        (sealed(flags=CONTROL), pb.UNSUPPORTED_VERSION, "flags 0x2"),
        (sealed(compression=9), pb.UNSUPPORTED_VERSION, "compression 9"),
        (sealed(count=0, last_offset_delta=0), pb.BATCH_INVALID, "no records"),
        (sealed(count=4, last_offset_delta=3), pb.BATCH_INVALID, "counts 4 records, the payload has 3"),
        (sealed(count=2**32 - 1, last_offset_delta=2**32 - 2), pb.BATCH_INVALID, "the payload has 3"),
        (sealed(last_offset_delta=5), pb.BATCH_INVALID, "last_offset_delta 5"),
        (sealed(base_sequence=2**31), pb.BATCH_INVALID, "base_sequence 2147483648"),
        (sealed(producer_id=-1), pb.BATCH_INVALID, "producer_id -1"),
        (sealed(first_timestamp_ms=-5, max_timestamp_ms=-5), pb.BATCH_INVALID, "timestamps from -5"),
        (sealed(max_timestamp_ms=5), pb.BATCH_INVALID, "max_timestamp_ms 5"),
        (with_unknown_field(sealed()), pb.BATCH_INVALID, "a field that is not known"),
        (without_crc(sealed()), pb.BATCH_INVALID, "no CRC"),
        (sealed(compression=pb.ZSTD), pb.BATCH_INVALID, "zstd payload cannot be opened"),
        (
            resealed(pb.RecordBatch(format=pb.COLUMNS, count=1, payload=b"\xff")),
            pb.BATCH_INVALID,
            "not a Columns message",
        ),
        (seal(HEADER, encode_columns([bytes(2 << 20)])), pb.RECORD_TOO_LARGE, "1048576 are allowed"),
        (
            seal(header_for(1, first_timestamp_ms=0, compression=pb.GZIP), deflate(pb.GZIP, bytes(1 << 21))),
            pb.COMPRESSION_BOMB,
            "inflates to more than",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unsound_batches_are_refused(batch: pb.RecordBatch, code: int, names: str) -> None:
    for accept in (check_batch, open_batch):
        if accept is open_batch and batch.flags == CONTROL:
            continue
        with pytest.raises(BatchInvalid) as refused:
            accept(batch, LIMITS)
        assert refused.value.code == code
        assert names in refused.value.message


@pytest.mark.parametrize(
    ("stored", "code", "names"),
    [
        (b"", pb.BATCH_INVALID, "0 bytes"),
        (pack_stored(HEADER, b"")[:-1], pb.BATCH_INVALID, "44 bytes"),
        (b"\x02" + pack_stored(HEADER, b"x")[1:], pb.UNSUPPORTED_VERSION, "version 2"),
    ],
)
def test_stored_bytes_of_another_kind_are_refused(stored: bytes, code: int, names: str) -> None:
    with pytest.raises(BatchInvalid, match=names) as refused:
        unpack_stored(stored)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "damage", [lambda data, at, byte: data[:at], lambda data, at, byte: data[:at] + bytes([byte]) + data[at:]]
)
@given(at=st.integers(0, 80), byte=st.integers(0, 255))
def test_no_payload_raises_anything_else(damage: Callable[[bytes, int, int], bytes], at: int, byte: int) -> None:
    batch = seal(HEADER, damage(encode_columns(VALUES, VALUES, {1: [("h", b"x")]}, [5, 6, 7]), at, byte))
    try:
        count = len(open_batch(batch, LIMITS).values)
    except BatchInvalid:
        return
    assert count == 3

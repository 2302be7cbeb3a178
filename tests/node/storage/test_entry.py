"""The stored entry: its bytes, and that nothing wrong with them goes unnoticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.errors import EntryCorrupt, NodeError, StorageCorrupt, UnknownEntryKind
from quorumlog.node.storage.entry import (
    HEADER_BYTES,
    EntryHeader,
    check_entry,
    decode_header,
    encode_entry,
    payload_of,
)
from quorumlog.node.storage.timestamps import max_timestamp_of
from quorumlog.proto.batch import APPEND_TIME, header_for, pack_stored, unpack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import EntryKind

GOLDEN = bytes.fromhex(
    "01030000"  # version 1, RECORDS, reserved
    "0000000000000007"  # group id
    "000000000000002a"  # index
    "0000000000000003"  # term
    "00000000000003e8"  # base offset
    "00000005"  # count
    "0000018bcfe56800"  # append time
    "9a71bb4c"  # the payload's sum: CRC-32C of "hello"
    "00000005"  # the payload's length
    "ec0b42a8"  # the header's sum
    "68656c6c6f"  # the payload
)

HEADER = EntryHeader(EntryKind.RECORDS, 7, 42, 3, 1000, 5, 1_700_000_000_000, 0x9A71BB4C, 5)


def entry_with(**changes: int) -> bytes:
    """The golden entry with other values in its header and a header sum that fits them."""
    summed = bytearray(GOLDEN[: HEADER_BYTES - 4])
    for name, value in changes.items():
        position = {"version": 0, "kind": 1, "reserved": 3}[name]
        summed[position] = value
    return bytes(summed) + crc32c(bytes(summed)).to_bytes(4, "big") + b"hello"


def test_the_bytes_of_an_entry_are_fixed() -> None:
    encoded = encode_entry(EntryKind.RECORDS, 7, 42, 3, 1000, 5, 1_700_000_000_000, b"hello", crc32c(b"hello"))
    assert encoded == GOLDEN
    assert check_entry(GOLDEN, 7, 42) == HEADER
    assert payload_of(GOLDEN) == b"hello"
    assert HEADER.next_offset == 1005


@given(
    st.sampled_from(EntryKind),
    st.integers(1, 2**64 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**62),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=50),
)
def test_what_is_encoded_is_decoded(
    kind: EntryKind, group_id: int, index: int, term: int, base_offset: int, count: int, time_ms: int, payload: bytes
) -> None:
    count = count if kind is EntryKind.RECORDS else 0
    crc = crc32c(payload)
    data = encode_entry(kind, group_id, index, term, base_offset, count, time_ms, payload, crc)
    header = EntryHeader(kind, group_id, index, term, base_offset, count, time_ms, crc, len(payload))
    assert check_entry(data, group_id, index) == header
    assert payload_of(data) == payload
    assert header.next_offset == base_offset + count


@pytest.mark.parametrize("position", range(HEADER_BYTES))
def test_every_flipped_bit_of_the_header_is_caught(position: int) -> None:
    for bit in range(8):
        damaged = bytearray(GOLDEN)
        damaged[position] ^= 1 << bit
        with pytest.raises(EntryCorrupt):
            decode_header(bytes(damaged))


@pytest.mark.parametrize("position", range(HEADER_BYTES, len(GOLDEN)))
def test_every_flipped_bit_of_the_payload_is_caught(position: int) -> None:
    for bit in range(8):
        damaged = bytearray(GOLDEN)
        damaged[position] ^= 1 << bit
        with pytest.raises(EntryCorrupt, match="payload checksum of entry 42 of group 7"):
            check_entry(bytes(damaged), 7, 42)


@pytest.mark.parametrize("length", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, len(GOLDEN) - 1])
def test_an_entry_cut_short_is_caught(length: int) -> None:
    with pytest.raises(EntryCorrupt):
        check_entry(GOLDEN[:length], 7, 42)


def test_an_entry_with_more_bytes_than_it_says_is_caught() -> None:
    with pytest.raises(EntryCorrupt, match="6 bytes of payload instead of 5"):
        check_entry(GOLDEN + b"!", 7, 42)


@pytest.mark.parametrize(("group_id", "index"), [(8, 42), (7, 43), (42, 7)])
def test_a_misdirected_read_is_caught(group_id: int, index: int) -> None:
    with pytest.raises(EntryCorrupt, match=f"asked for entry {index} of group {group_id}, found entry 42 of group 7"):
        check_entry(GOLDEN, group_id, index)


def test_an_intact_entry_of_an_unknown_kind_is_not_called_corrupt() -> None:
    with pytest.raises(UnknownEntryKind, match=r"entry 42 of group 7 is of kind 77.*newer one"):
        decode_header(entry_with(kind=77))


@pytest.mark.parametrize("change", ["version", "reserved"])
def test_an_intact_entry_of_another_format_is_not_called_corrupt(change: str) -> None:
    with pytest.raises(UnknownEntryKind, match=r"entry 42 of group 7 has format .*newer one"):
        decode_header(entry_with(**{change: 2}))


def test_corruption_can_be_caught_as_such_and_an_unknown_kind_cannot() -> None:
    assert issubclass(EntryCorrupt, StorageCorrupt)
    assert issubclass(UnknownEntryKind, NodeError)
    assert not issubclass(UnknownEntryKind, StorageCorrupt)


def test_only_records_take_offsets() -> None:
    with pytest.raises(AssertionError, match="NOOP takes no offsets"):
        encode_entry(EntryKind.NOOP, 7, 42, 3, 1000, 1, 0, b"", crc32c(b""))


@pytest.mark.parametrize(("flags", "expected"), [(0, 9000), (APPEND_TIME, 12_345)])
def test_the_largest_timestamp_is_the_batchs_or_the_leaders(flags: int, expected: int) -> None:
    batch = header_for(3, first_timestamp_ms=5000, max_timestamp_ms=9000, flags=flags)
    payload = pack_stored(batch, b"columns")
    data = encode_entry(EntryKind.RECORDS, 1, 1, 1, 0, 3, 12_345, payload, crc32c(payload))
    assert unpack_stored(payload)[0].max_timestamp_ms == 9000
    assert max_timestamp_of(check_entry(data, 1, 1), data) == expected

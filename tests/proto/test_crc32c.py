"""CRC-32C: published vectors, and both forms against each other."""

import google_crc32c
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quorumlog.proto.crc32c import _FOLD_BYTES_MIN, _SPARSE_MULTIPLES, IN_HARDWARE, crc32c, crc32c_python

# RFC 3720, appendix B.4, and the usual check value.
VECTORS = [
    (b"", 0x00000000),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]


@pytest.mark.parametrize(("data", "check"), VECTORS)
def test_published_vectors(data: bytes, check: int) -> None:
    assert crc32c(data) == crc32c_python(data) == check


def test_the_compiled_form_is_in_use_where_it_is_installed() -> None:
    assert google_crc32c.implementation == "c"
    assert IN_HARDWARE


@given(data=st.binary(max_size=2000), seed=st.integers(0, 2**32 - 1))
@example(data=bytes(_FOLD_BYTES_MIN), seed=0)
@example(data=b"\xff" * (_FOLD_BYTES_MIN - 1), seed=2**32 - 1)
def test_python_agrees_with_hardware(data: bytes, seed: int) -> None:
    assert crc32c_python(data, seed) == google_crc32c.extend(seed, data)


@given(head=st.binary(max_size=64), length=st.integers(0, 200_000), fill=st.integers(0, 255))
def test_python_agrees_with_hardware_on_long_data(head: bytes, length: int, fill: int) -> None:
    data = head + bytes([fill, 0, fill ^ 0x5A]) * (length // 3) + head
    assert crc32c_python(data) == google_crc32c.value(data)


def test_python_agrees_with_hardware_at_every_length_around_the_fold() -> None:
    data = bytes(i * 151 % 251 for i in range(2600))
    for length in range(len(data)):
        assert crc32c_python(data[:length], 7) == google_crc32c.extend(7, data[:length])


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_the_seed_continues(first: bytes, second: bytes) -> None:
    assert crc32c(second, crc32c(first)) == crc32c(first + second)
    assert crc32c_python(second, crc32c_python(first)) == crc32c_python(first + second)


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_buffers_are_accepted(kind: type[bytearray] | type[memoryview]) -> None:
    assert crc32c(kind(b"123456789")) == 0xE3069283


@pytest.mark.parametrize("multiple", _SPARSE_MULTIPLES)
def test_the_sparse_multiples_are_multiples_of_the_generator(multiple: tuple[int, ...]) -> None:
    remainder = sum(1 << exponent for exponent in (*multiple, 0))
    while remainder.bit_length() > 32:
        remainder ^= 0x11EDC6F41 << (remainder.bit_length() - 33)
    assert remainder == 0

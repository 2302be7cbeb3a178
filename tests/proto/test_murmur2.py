"""The key hash is Kafka's."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.proto.murmur2 import murmur2, partition_for_key

# org.apache.kafka.common.utils.UtilsTest.testMurmur2, as Java's signed int.
KAFKA_VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "java"), KAFKA_VECTORS)
def test_kafkas_vectors(key: bytes, java: int) -> None:
    assert struct.unpack(">i", struct.pack(">I", murmur2(key)))[0] == java


@pytest.mark.parametrize(("key", "java"), KAFKA_VECTORS)
def test_the_partition_ignores_the_sign_bit(key: bytes, java: int) -> None:
    assert partition_for_key(key, 1000) == (java & 0x7FFFFFFF) % 1000


def alternative_murmur2(data: bytes) -> int:
    """The algorithm as Kafka writes it, byte by byte."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    for i in range(0, len(data) // 4 * 4, 4):
        k = data[i] | data[i + 1] << 8 | data[i + 2] << 16 | data[i + 3] << 24
        k = (k * m) & mask
        k ^= k >> 24
        k = (k * m) & mask
        h = (h * m) & mask
        h ^= k
    tail = data[len(data) // 4 * 4 :]
    if len(tail) >= 3:
        h ^= tail[2] << 16
    if len(tail) >= 2:
        h ^= tail[1] << 8
    if len(tail) >= 1:
        h ^= tail[0]
        h = (h * m) & mask
    h ^= h >> 13
    h = (h * m) & mask
    return h ^ (h >> 15)


@given(st.binary(max_size=300))
def test_agrees_with_the_plain_form(data: bytes) -> None:
    assert murmur2(data) == alternative_murmur2(data)

"""Kafka's key hash, so that a key has the same partition whichever client sends it.

MurmurHash2, 32 bits, seed 0x9747b28c, as in org.apache.kafka.common.utils.Utils.murmur2; the partitioner takes it
without the sign bit (`toPositive`), modulo the number of partitions. It also places groups on partitions of `__groups`.
"""

import struct
from typing import Final

_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF
# Most keys are short; building the format for each would cost as much as hashing it.
_WORDS: Final = tuple(struct.Struct(f"<{count}I") for count in range(33))


def murmur2(data: bytes) -> int:
    """Return the hash as an unsigned 32-bit number (Java shows the same bits as a signed one)."""
    length = len(data)
    state = _SEED ^ (length & _MASK)
    count = length >> 2
    words = _WORDS[count].unpack_from(data) if count < len(_WORDS) else struct.unpack_from(f"<{count}I", data)
    for word in words:
        word = (word * _M) & _MASK
        state = ((state * _M) ^ ((word ^ (word >> 24)) * _M)) & _MASK
    rest = length & 3
    if rest:
        state = ((state ^ int.from_bytes(data[-rest:], "little")) * _M) & _MASK
    state = ((state ^ (state >> 13)) * _M) & _MASK
    return state ^ (state >> 15)


def partition_for_key(key: bytes, partitions: int) -> int:
    """Return the partition, from 0 to `partitions` - 1, of records with this key."""
    return (murmur2(key) & _POSITIVE) % partitions

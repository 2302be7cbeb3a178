"""CRC-32C (Castagnoli), the check over batches and entries.

`crc32c(data, seed)` is computed in hardware when google-crc32c is installed (`pip install 'quorumlog[fast]'`) and
otherwise in Python, at about 5 ns per byte, so that a client with nothing but grpcio and protobuf still checks every
batch.

How the Python form is fast. A CRC is the remainder of a polynomial over GF(2), so the message may be replaced by any
shorter one that is congruent to it. Python's big integers shift and XOR at memory speed, which makes one kind of step
very cheap: with a *sparse* multiple of the generator, x^a + x^b + ... + 1, every bit of degree d >= a may be moved to
d-a+b, ..., d-a. Whole stretches are moved at once, and because squaring over GF(2) only doubles exponents, the same
multiple works at every scale 2^k. The message is folded down to a few dozen bytes, and a table finishes those.
"""

from collections.abc import Callable
from typing import Final

_GENERATOR_REFLECTED: Final = 0x82F63B78
_MASK: Final = 0xFFFFFFFF
_FOLD_BYTES_MIN: Final = 64
"""Below this many bytes the table alone is quicker."""

_SPARSE_MULTIPLES: Final = ((6777, 484, 100), (290, 136, 113, 107, 32))
"""Exponents of multiples of the generator besides the final + 1; found by search, checked by a test.

The gap between the first two exponents is what one fold can remove, so both have a wide one. The first has four terms
and serves long messages; none that sparse exists at a degree as low as the second's (the code's Hamming distance)."""


def _table() -> tuple[int, ...]:
    """The 256 states reached from each byte value by eight reflected division steps."""
    rows = []
    for state in range(256):
        for _ in range(8):
            state = (state >> 1) ^ (_GENERATOR_REFLECTED if state & 1 else 0)
        rows.append(state)
    return tuple(rows)


_TABLE: Final = _table()


def _by_table(data: bytes, state: int) -> int:
    table = _TABLE
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


def _fold(message: int, length_bits: int, multiple: tuple[int, ...]) -> tuple[int, int]:
    """Return a shorter (message, length_bits) with the same remainder, at most `multiple[0] + 7` bits long.

    The message is bit-reflected, as the CRC is: bit 0 is the coefficient of the highest degree. Lengths stay multiples
    of 8.
    """
    top, *rest = multiple
    scale = max(length_bits // top, 1).bit_length() - 1
    while scale >= 0:
        degree = top << scale
        while (removable := min(degree - (rest[0] << scale), length_bits - degree) & ~7) > 0:
            high = message & ((1 << removable) - 1)
            message >>= removable
            message ^= high << (degree - removable)
            for exponent in rest:
                message ^= high << (degree - (exponent << scale) - removable)
            length_bits -= removable
        scale -= 1
    return message, length_bits


def crc32c_python(data: bytes, seed: int = 0) -> int:
    """Return what `crc32c` returns, without any compiled package."""
    state = seed ^ _MASK
    if len(data) < _FOLD_BYTES_MIN:
        return _by_table(data, state) ^ _MASK
    # A start state is the same as XORing it into the first four bytes and starting from zero.
    message, length_bits = int.from_bytes(data, "little") ^ state, len(data) * 8
    for multiple in _SPARSE_MULTIPLES:
        message, length_bits = _fold(message, length_bits, multiple)
    return _by_table(message.to_bytes(length_bits // 8, "little"), 0) ^ _MASK


def _hardware() -> Callable[[int, bytes], int] | None:
    """The compiled `extend(seed, data)`, or None where the package is missing or is itself only Python."""
    try:
        import google_crc32c
    except ImportError:
        return None
    extend: Callable[[int, bytes], int] = google_crc32c.extend
    return extend if google_crc32c.implementation == "c" else None


_extend: Final = _hardware()

IN_HARDWARE: Final = _extend is not None
"""True when google-crc32c does the work."""


def crc32c(data: bytes | bytearray | memoryview, seed: int = 0) -> int:
    """Return the CRC-32C of `data` as an unsigned 32-bit number.

    `seed` is the CRC of what came before, so `crc32c(b, crc32c(a)) == crc32c(a + b)`. A memoryview or bytearray is
    copied once, because the compiled form takes `bytes` only.
    """
    octets = data if type(data) is bytes else bytes(data)
    return crc32c_python(octets, seed) if _extend is None else _extend(seed, octets)

"""Compression of batch payloads. It is the client's: a node passes payloads on as they came and only checks them.

| codec  | framing                                   | needs   |
|--------|-------------------------------------------|---------|
| GZIP   | one gzip member                           | nothing |
| SNAPPY | one raw block                             | cramjam |
| LZ4    | LZ4 frame                                 | cramjam |
| ZSTD   | one Zstandard frame, window at most 8 MiB | cramjam |

`inflate` is bounded before it starts: a few kilobytes may ask for gigabytes (a decompression bomb), so the output
buffer is never larger than the bound, and a Zstandard frame whose window alone would need more memory is refused
unopened.
"""

import zlib
from typing import Any, Final

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.invalid import BatchInvalid

_ZSTD_LEVEL: Final = 3
_LZ4_LEVEL: Final = 1
_GZIP_LEVEL: Final = 6
_GZIP_WINDOW_BITS: Final = 31  # 15 bits of window, + 16 for the gzip framing
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BYTES_MAX: Final = 8 << 20  # what RFC 8878, 3.1.1.1.2, asks every decoder to support
_FIRST_GUESS_RATIO: Final = 8
_FIRST_GUESS_BYTES_MIN: Final = 4096
_NEEDS_CRAMJAM: Final = frozenset((pb.SNAPPY, pb.LZ4, pb.ZSTD))

INSTALL_HINT: Final = "needs: pip install 'quorumlog[fast]'"


class CodecUnavailable(RuntimeError):
    """The library for a codec is not installed here; `hint` says how to install it."""

    def __init__(self, name: str) -> None:
        self.hint = INSTALL_HINT
        super().__init__(f"compression {name.lower()} is not available: cramjam is not installed ({INSTALL_HINT})")


def _cramjam(codec: int) -> Any:
    try:
        import cramjam
    except ImportError:
        raise CodecUnavailable(pb.Compression.Name(pb.Compression.ValueType(codec))) from None
    return cramjam


def require_codec(codec: int) -> None:
    """Raise CodecUnavailable unless `codec` can be used here, BatchInvalid where there is no such codec."""
    if codec not in pb.Compression.values():
        raise _unknown(codec)
    if codec in _NEEDS_CRAMJAM:
        _cramjam(codec)


def _unknown(codec: int) -> BatchInvalid:
    known = ", ".join(f"{number} {name.lower()}" for name, number in pb.Compression.items())
    return BatchInvalid(pb.UNSUPPORTED_VERSION, f"compression {codec} is not known", f"use one of: {known}")


def deflate(codec: int, data: bytes) -> bytes:
    """Return `data` compressed with `codec`.

    Raises CodecUnavailable where its library is missing, BatchInvalid where there is no such codec.
    """
    if codec == pb.NONE:
        return data
    if codec == pb.GZIP:
        return zlib.compress(data, _GZIP_LEVEL, _GZIP_WINDOW_BITS)
    if codec == pb.SNAPPY:
        return bytes(_cramjam(codec).snappy.compress_raw(data))
    if codec == pb.LZ4:
        return bytes(_cramjam(codec).lz4.compress(data, level=_LZ4_LEVEL))
    if codec == pb.ZSTD:
        return bytes(_cramjam(codec).zstd.compress(data, level=_ZSTD_LEVEL))
    raise _unknown(codec)


def inflate(codec: int, data: bytes, size_bytes_max: int, ratio_max: float) -> bytes:
    """Return what `data` was before `deflate`: at most `size_bytes_max` bytes and `ratio_max` times `len(data)`.

    Raises BatchInvalid (COMPRESSION_BOMB over a bound, BATCH_INVALID for damaged data, UNSUPPORTED_VERSION for a codec
    that is not known), CodecUnavailable where the library is missing.
    """
    bound = min(size_bytes_max, int(len(data) * ratio_max))
    if codec == pb.NONE:
        if len(data) > size_bytes_max:
            raise _bomb(codec, data, size_bytes_max)
        return data
    if codec == pb.GZIP:
        return _inflate_gzip(data, bound)
    if codec == pb.SNAPPY:
        return _inflate_snappy(data, bound)
    if codec == pb.LZ4:
        return _inflate_growing(codec, _cramjam(codec).lz4.decompress_into, data, bound)
    if codec == pb.ZSTD:
        decompress_into = _cramjam(codec).zstd.decompress_into
        _check_zstd_frame(data, bound)
        return _inflate_growing(codec, decompress_into, data, bound)
    raise _unknown(codec)


def _name(codec: int) -> str:
    return pb.Compression.Name(pb.Compression.ValueType(codec)).lower()


def _bomb(codec: int, data: bytes, bound: int) -> BatchInvalid:
    message = f"a {_name(codec)} payload of {len(data)} bytes inflates to more than the {bound} bytes allowed"
    return BatchInvalid(pb.COMPRESSION_BOMB, message)


def _damaged(codec: int, why: str) -> BatchInvalid:
    return BatchInvalid(pb.BATCH_INVALID, f"the {_name(codec)} payload cannot be opened: {why}")


def _inflate_gzip(data: bytes, bound: int) -> bytes:
    opened = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        out = opened.decompress(data, bound + 1)
    except zlib.error as error:
        raise _damaged(pb.GZIP, str(error)) from None
    if len(out) > bound:
        raise _bomb(pb.GZIP, data, bound)
    if not opened.eof:
        raise _damaged(pb.GZIP, "it is cut off")
    if opened.unused_data:
        raise _damaged(pb.GZIP, f"{len(opened.unused_data)} bytes follow its end")
    return out


def _inflate_snappy(data: bytes, bound: int) -> bytes:
    cramjam = _cramjam(pb.SNAPPY)
    try:
        size_bytes = cramjam.snappy.decompress_raw_len(data)
        if size_bytes > bound:
            raise _bomb(pb.SNAPPY, data, bound)
        out = bytearray(size_bytes)
        written = cramjam.snappy.decompress_raw_into(data, out)
    except cramjam.DecompressionError as error:
        raise _damaged(pb.SNAPPY, str(error)) from None
    return bytes(out[:written])


def _inflate_growing(codec: int, decompress_into: Any, data: bytes, bound: int) -> bytes:
    """Inflate a format that does not tell its size: into a likely buffer first, then into larger ones up to `bound`."""
    if not data:
        raise _damaged(codec, "it is empty")
    cramjam = _cramjam(codec)
    capacity = min(bound, max(_FIRST_GUESS_BYTES_MIN, len(data) * _FIRST_GUESS_RATIO))
    while True:
        out = bytearray(capacity)
        try:
            written = decompress_into(data, out)
        except cramjam.DecompressionError as error:
            if "failed to write whole buffer" not in str(error):
                raise _damaged(codec, str(error)) from None
        else:
            del out[written:]
            return bytes(out)
        if capacity == bound:
            raise _bomb(codec, data, bound)
        capacity = min(bound, capacity * _FIRST_GUESS_RATIO)


def _check_zstd_frame(data: bytes, bound: int) -> None:
    """Refuse all but one frame with an acceptable window, before a decoder allocates that window (RFC 8878, 3.1.1)."""
    if data[:4] != _ZSTD_MAGIC or len(data) < 6:
        raise _damaged(pb.ZSTD, "it does not begin with a Zstandard frame")
    descriptor = data[4]
    single_segment, has_checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
    content_size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    position = 5
    if not single_segment:
        exponent, mantissa = data[position] >> 3, data[position] & 7
        window_bytes = (1 << (10 + exponent)) // 8 * (8 + mantissa)
        if window_bytes > _ZSTD_WINDOW_BYTES_MAX:
            message = f"a zstd payload asks for a window of {window_bytes} bytes; {_ZSTD_WINDOW_BYTES_MAX} are allowed"
            raise BatchInvalid(pb.COMPRESSION_BOMB, message, "compress at an ordinary level, without long matches")
        position += 1
    position += dictionary_bytes
    if content_size_bytes:
        size_bytes = int.from_bytes(data[position : position + content_size_bytes], "little")
        if size_bytes + (256 if content_size_bytes == 2 else 0) > bound:
            raise _bomb(pb.ZSTD, data, bound)
        position += content_size_bytes
    last = False
    while not last:
        if position + 3 > len(data):
            raise _damaged(pb.ZSTD, "it is cut off")
        block = int.from_bytes(data[position : position + 3], "little")
        last, kind, size_bytes = bool(block & 1), block >> 1 & 3, block >> 3
        position += 3 + (1 if kind == 1 else size_bytes)
    position += 4 if has_checksum else 0
    if position != len(data):
        raise _damaged(pb.ZSTD, "it is cut off" if position > len(data) else "something follows its only frame")

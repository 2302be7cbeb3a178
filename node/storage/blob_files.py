"""The records of RocksDB's blob files, read without RocksDB: what `Rdict.repair` leaves behind when a manifest is lost.

    header   30 bytes: magic u32, version u32, column family u32, has_ttl u8, compression u8, expiration range 2 x u64
    record   32 bytes: key length u64, value length u64, expiration u64, CRC-32C of these 24 bytes u32 (masked),
             CRC-32C of key and value u32 (masked); then key and value
    footer   32 bytes, does not check as a record

Numbers are little-endian. A record says nothing of whether it is still alive: whoever takes a value has to know by
other means that it is the one of its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final

from quorumlog.proto.crc32c import crc32c

_HEADER: Final = Struct("<IIIBBQQ")
_MAGIC: Final = 2395959
_VERSION: Final = 1
_RECORD: Final = Struct("<QQQII")
_CHECKED_BYTES: Final = 24
_UNCOMPRESSED: Final = 0
_LENGTH_MAX: Final = 1 << 32


def read_blobs(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every record in the `*.blob` files of `folder`, file by file, one at a time in memory.

    A damaged value is passed over; the rest of a file behind a damaged record header is, too, and so is a file that
    cannot be read.
    """
    for path in sorted(folder.glob("*.blob")):
        try:
            yield from _read_file(path)
        except OSError:
            continue


def _read_file(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with open(path, "rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return
        magic, version, _, _, compression, _, _ = _HEADER.unpack(header)
        if (magic, version, compression) != (_MAGIC, _VERSION, _UNCOMPRESSED):
            return
        while len(record := file.read(_RECORD.size)) == _RECORD.size:
            key_bytes, value_bytes, _, header_crc, blob_crc = _RECORD.unpack(record)
            if header_crc != _masked(crc32c(record[:_CHECKED_BYTES])) or max(key_bytes, value_bytes) > _LENGTH_MAX:
                return
            content = file.read(key_bytes + value_bytes)
            if blob_crc == _masked(crc32c(content)):
                yield content[:key_bytes], content[key_bytes:]


def _masked(crc: int) -> int:
    """RocksDB stores sums rotated and shifted, so that a sum over data with a sum in it stays a good one."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

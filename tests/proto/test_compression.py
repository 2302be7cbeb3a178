"""Every codec brings back what it was given, and none can be made to use more than the bound."""

import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.compression import CodecUnavailable, deflate, inflate, require_codec
from quorumlog.proto.invalid import BatchInvalid

CODECS = [pb.NONE, pb.GZIP, pb.SNAPPY, pb.LZ4, pb.ZSTD]
REAL_CODECS = CODECS[1:]
names = pb.Compression.Name

BOMB_BYTES = 400_000_000
BOUND_BYTES = 1 << 20


def bomb(codec: int) -> bytes:
    """A small payload that inflates to BOMB_BYTES."""
    if codec == pb.GZIP:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join(packer.compress(bytes(10_000_000)) for _ in range(BOMB_BYTES // 10_000_000)) + packer.flush()
    return deflate(codec, bytes(BOMB_BYTES))


@pytest.mark.parametrize("codec", CODECS, ids=names)
@given(data=st.binary(max_size=5000), repeat=st.integers(1, 40))
def test_round_trip(codec: int, data: bytes, repeat: int) -> None:
    data *= repeat
    assert inflate(codec, deflate(codec, data), len(data), 100_000) == data


@pytest.mark.parametrize("codec", CODECS, ids=names)
def test_the_size_bound_is_exact(codec: int) -> None:
    data = os.urandom(3000) * 3
    packed = deflate(codec, data)
    assert inflate(codec, packed, len(data), 1000) == data
    with pytest.raises(BatchInvalid, match=f"more than the {len(data) - 1} bytes allowed") as refused:
        inflate(codec, packed, len(data) - 1, 1000)
    assert refused.value.code == pb.COMPRESSION_BOMB


@pytest.mark.parametrize("codec", REAL_CODECS, ids=names)
def test_the_ratio_bound_refuses_what_compresses_too_well(codec: int) -> None:
    packed = deflate(codec, bytes(200_000))
    assert inflate(codec, packed, 1 << 20, 200_000 / len(packed) + 1) == bytes(200_000)
    with pytest.raises(BatchInvalid) as refused:
        inflate(codec, packed, 1 << 20, 200_000 / len(packed) - 1)
    assert refused.value.code == pb.COMPRESSION_BOMB


BOMB_PROGRAM = """
import resource, sys
from quorumlog.proto.compression import inflate
from quorumlog.proto.invalid import BatchInvalid
codec, bound, payload = int(sys.argv[1]), int(sys.argv[2]), sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inflate(codec, payload, bound, 1e9)
except BatchInvalid as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, error.code)
"""


@pytest.mark.parametrize("codec", REAL_CODECS, ids=names)
def test_a_bomb_is_refused_without_the_memory_it_asks_for(codec: int) -> None:
    payload = bomb(codec)
    assert len(payload) < BOMB_BYTES // 15
    done = subprocess.run(
        [sys.executable, "-c", BOMB_PROGRAM, str(codec), str(BOUND_BYTES)],
        input=payload,
        capture_output=True,
        check=True,
        timeout=60,
    )
    grown_bytes, code = map(int, done.stdout.split())
    assert code == pb.COMPRESSION_BOMB
    # The decoders keep windows and copies of their own; none of it grows with what the bomb asks for.
    assert grown_bytes < 16 * BOUND_BYTES


def test_a_zstd_frame_that_asks_for_a_huge_window_is_refused_unopened() -> None:
    def frame(window_exponent: int) -> bytes:
        return b"\x28\xb5\x2f\xfd\x00" + bytes([(window_exponent - 10) << 3]) + b"\x19\x00\x00abc"

    assert inflate(pb.ZSTD, frame(23), 3, 100) == b"abc"
    with pytest.raises(BatchInvalid, match="a window of 134217728 bytes") as refused:
        inflate(pb.ZSTD, frame(27), 3, 100)
    assert refused.value.code == pb.COMPRESSION_BOMB
    assert refused.value.hint


@pytest.mark.parametrize("codec", REAL_CODECS, ids=names)
@pytest.mark.parametrize("damage", [lambda p: p[:-6], lambda p: b"", lambda p: b"garbage" + p, lambda p: p + b"rest"])
def test_damaged_payloads_are_refused(codec: int, damage: Callable[[bytes], bytes]) -> None:
    packed = deflate(codec, os.urandom(50) * 40)
    with pytest.raises(BatchInvalid) as refused:
        inflate(codec, damage(packed), 1 << 20, 1000)
    assert refused.value.code in (pb.BATCH_INVALID, pb.COMPRESSION_BOMB)
    assert pb.Compression.Name(pb.Compression.ValueType(codec)).lower() in refused.value.message


@pytest.mark.parametrize("codec", REAL_CODECS, ids=names)
@given(data=st.binary(max_size=200))
def test_no_input_raises_anything_else(codec: int, data: bytes) -> None:
    for candidate in (data, deflate(codec, data)[: len(data)], b"\x28\xb5\x2f\xfd" + data, b"\x04\x22\x4d\x18" + data):
        with suppress(BatchInvalid):
            assert len(inflate(codec, candidate, 10_000, 1000)) <= 10_000


def test_zstd_of_other_encoders_is_read() -> None:
    data = os.urandom(1000) * 5
    for level in (1, 3, 11):
        assert inflate(pb.ZSTD, bytes(cramjam.zstd.compress(data, level=level)), 5000, 100) == data
    # A single-segment frame with a content size of one byte and one raw block, drawn by hand from RFC 8878.
    assert inflate(pb.ZSTD, b"\x28\xb5\x2f\xfd\x20\x03\x19\x00\x00abc", 3, 100) == b"abc"


def test_an_unknown_codec_names_the_known_ones() -> None:
    for call in (lambda: inflate(9, b"x", 1, 1), lambda: deflate(9, b"x"), lambda: require_codec(9)):
        with pytest.raises(BatchInvalid, match="compression 9 is not known") as refused:
            call()
        assert refused.value.code == pb.UNSUPPORTED_VERSION
        assert "4 zstd" in refused.value.hint


def test_without_cramjam_gzip_works_and_the_others_say_what_to_install(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["cramjam"] = None
from quorumlog.proto.compression import *
from quorumlog.proto.compression import CodecUnavailable
assert inflate(1, deflate(1, b"abc"), 3, 10) == b"abc"
for codec in (2, 3, 4):
    for call in (lambda: deflate(codec, b"x"), lambda: inflate(codec, b"x", 9, 9), lambda: require_codec(codec)):
        try:
            call()
        except CodecUnavailable as error:
            assert "pip install 'quorumlog[fast]'" in str(error) and error.hint
        else:
            raise SystemExit(f"codec {codec} worked without its library")
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=60)


def test_with_cramjam_every_codec_is_available() -> None:
    for codec in CODECS:
        require_codec(codec)
    assert issubclass(CodecUnavailable, RuntimeError)

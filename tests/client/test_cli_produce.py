"""Lines of standard input, on their way to become records."""

import io
from typing import Any

import pytest

from quorumlog.cli.errors import CommandFailed
from quorumlog.cli.produce import LINE_BYTES_MAX, lines_of, split_key


class Endless(io.RawIOBase):
    """An input whose only line never ends; counts what has been read of it."""

    def __init__(self) -> None:
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self.read_bytes += len(buffer)
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_lines_come_without_their_ends_and_the_last_may_have_none() -> None:
    assert list(lines_of(io.BytesIO(b"one\n\r\n\ntwo"))) == [b"one", b"\r", b"", b"two"]
    assert list(lines_of(io.BytesIO())) == []


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_may_be_as_long_as_the_largest_record(end: bytes) -> None:
    longest = b"x" * LINE_BYTES_MAX
    assert list(lines_of(io.BytesIO(longest + end))) == [longest]
    with pytest.raises(CommandFailed, match=f"line 2: a record of more than {LINE_BYTES_MAX} bytes is over the limit"):
        list(lines_of(io.BytesIO(b"fine\n" + longest + b"x" + end)))


def test_a_line_that_does_not_end_is_not_read_to_its_end() -> None:
    source = Endless()
    with pytest.raises(CommandFailed, match="line 1: a record of more than"):
        list(lines_of(io.BufferedReader(source)))
    assert source.read_bytes <= LINE_BYTES_MAX + 2 * io.DEFAULT_BUFFER_SIZE


def test_a_line_without_the_delimiter_has_no_key() -> None:
    assert split_key(b"k:v:w", b":") == (b"k", b"v:w")
    assert split_key(b"kv", b":") == (None, b"kv")
    assert split_key(b"k:v", None) == (None, b"k:v")

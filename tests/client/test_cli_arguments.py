"""What users write on the command line, and what it means."""

import argparse
from datetime import UTC, datetime

import pytest

from quorumlog.cli.arguments import Position, duration, pair, pairs, position, positive, positive_32, whole, whole_32
from quorumlog.cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("start", Position(word="earliest")),
        ("earliest", Position(word="earliest")),
        ("end", Position(word="latest")),
        ("0", Position(offset=0)),
        ("1500", Position(offset=1500)),
        ("@1700000000", Position(time=1_700_000_000.0)),
        ("@1700000000.5", Position(time=1_700_000_000.5)),
        ("@2026-01-31T12:00:00+00:00", Position(time=datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())),
    ],
)
def test_positions(text: str, meaning: Position) -> None:
    assert position(text) == meaning


@pytest.mark.parametrize("text", ["", "middle", "-1", "1.5", "@", "@noon", "²"])
def test_a_position_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not"):
        position(text)


def test_a_value_may_hold_the_sign_that_ends_the_key() -> None:
    assert pair("a=b=c") == ("a", "b=c")
    assert pair("a=") == ("a", "")


@pytest.mark.parametrize("text", ["a", "=a", ""])
def test_a_pair_without_key_or_sign_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not key=value"):
        pair(text)


def test_a_key_is_given_once() -> None:
    assert pairs("-c", [("a", "1"), ("b", "2")]) == {"a": "1", "b": "2"}
    assert pairs("-c", None) == {}
    with pytest.raises(UsageError, match="-c gives a twice: 1 and 2"):
        pairs("-c", [("a", "1"), ("a", "2")])


def test_numbers_have_limits() -> None:
    assert (positive("3"), whole("0"), duration("0.5")) == (3, 0, 0.5)
    for read, text in ((positive, "0"), (positive, "x"), (whole, "-1"), (whole, "1.5")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a whole number of at least"):
            read(text)
    assert (positive_32("4294967295"), whole_32("4294967295"), positive("4294967296")) == (2**32 - 1, 2**32 - 1, 2**32)
    for read_32 in (positive_32, whole_32):
        with pytest.raises(argparse.ArgumentTypeError, match="'4294967296' is not a whole number below 4294967296"):
            read_32("4294967296")
    for text in ("0", "-1", "nan", "inf", "soon"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a number of seconds above 0"):
            duration(text)

"""How records and tables are written."""

import json

import pytest

from quorumlog.cli.errors import UsageError
from quorumlog.cli.formats import formatter, record_json, unescape
from quorumlog.cli.output import size, table
from quorumlog.cli.produce import split_key
from quorumlog.records import Record

RECORD = Record("orders", 3, 17, 1_700_000_000.25, b"k1", b"paid", (("trace", b"1"), ("empty", None)), 5)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("%v", b"paid\n"),
        ("%k %v %p %o", b"k1 paid 3 17\n"),
        ("%t[%p]@%o e%e %T", b"orders[3]@17 e5 1700000000250\n"),
        ("%h", b"trace=1,empty=\n"),
        ("100%%: %k%%%v%%", b"100%: k1%paid%\n"),
        (r"%k\t%v\n", b"k1\tpaid\n\n"),
        ("", b"\n"),
        ("%v 5%", b"paid 5%\n"),
    ],
)
def test_formats(text: str, written: bytes) -> None:
    assert formatter(text)(RECORD) == written


def test_bytes_go_out_as_they_are_and_nothing_is_empty() -> None:
    record = RECORD._replace(key=None, value=b"\xff\x00")
    assert formatter("%k|%v")(record) == b"|\xff\x00\n"


@pytest.mark.parametrize("text", ["%x", "%v % v"])
def test_an_unknown_field_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"--format has %[x ], which is not known") as caught:
        formatter(text)
    assert "%k %v" in caught.value.hint


def test_escapes_that_are_not_known_stay() -> None:
    assert unescape(r"\d\\n\0") == "\\d\\n\0"


def test_json_has_stable_keys_and_says_what_is_no_text() -> None:
    assert json.loads(record_json(RECORD)) == {
        "topic": "orders",
        "partition": 3,
        "offset": 17,
        "timestamp_ms": 1_700_000_000_250,
        "leader_epoch": 5,
        "key": "k1",
        "value": "paid",
        "headers": [{"name": "trace", "value": "1"}, {"name": "empty", "value": None}],
    }
    binary = json.loads(record_json(RECORD._replace(key=None, value=b"\xff")))
    assert binary["key"] is None
    assert binary["value_base64"] == "/w=="
    assert "value" not in binary


def test_a_line_is_one_record_of_json_whatever_it_holds() -> None:
    written = record_json(RECORD._replace(value=b"two\nlines \xc3\xa4"))
    assert written.count(b"\n") == 1
    assert json.loads(written)["value"] == "two\nlines ä"


def test_tables_line_up_with_numbers_to_the_right() -> None:
    rows = [("orders", 12, None, ""), ("a", 3, 1, "x")]
    assert table(("topic", "partitions", "lag", "note"), rows).splitlines() == [
        "TOPIC   PARTITIONS  LAG  NOTE",
        "orders          12    -  -",
        "a                3    1  x",
    ]
    assert table(("topic", "lag"), []) == "TOPIC  LAG"


def test_sizes_are_for_people() -> None:
    assert [size(1023), size(1536), size(5 << 30), size(3 << 40)] == ["1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB"]


def test_a_key_ends_at_the_first_delimiter() -> None:
    assert split_key(b"a:b:c", b":") == (b"a", b"b:c")
    assert split_key(b":b", b":") == (b"", b"b")
    assert split_key(b"plain", b":") == (None, b"plain")
    assert split_key(b"a:b", None) == (None, b"a:b")

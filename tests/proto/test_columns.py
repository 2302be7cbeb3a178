"""The columnar payload brings back what it was given, and refuses what contradicts itself."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.columns import decode_columns, encode_columns
from quorumlog.proto.invalid import BatchInvalid

octets = st.one_of(st.none(), st.binary(max_size=6))
header_lists = st.lists(st.tuples(st.text(min_size=1, max_size=4).filter(lambda n: not n.startswith("ql.")), octets))
records = st.lists(st.tuples(octets, octets, st.integers(0, 2**40), header_lists), min_size=1, max_size=30)


@given(records)
def test_round_trip(rows: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]]) -> None:
    values = [row[0] for row in rows]
    keys = [row[1] for row in rows]
    timestamps_ms = [row[2] for row in rows]
    headers = {position: row[3] for position, row in enumerate(rows)}
    payload = encode_columns(values, keys, headers, timestamps_ms)
    columns = decode_columns(payload, len(rows), timestamps_ms[0])
    assert columns.values == values
    assert columns.keys == keys
    assert columns.timestamps_ms == timestamps_ms
    assert columns.headers == [tuple(row[3]) for row in rows]


def test_golden_bytes() -> None:
    payload = encode_columns([b"v0", None], [None, b"k"], {1: [("h", b"x"), ("n", None)]}, [100, 99])
    assert (
        payload.hex(" ")
        == (
            "0a 02 76 30 0a 00 "  # values: "v0", empty
            "12 00 12 01 6b "  # keys: empty, "k"
            "1a 01 02 "  # null_values: record 1
            "22 01 01 "  # null_keys: record 0
            "2a 02 00 01 "  # timestamp deltas: 0, -1 (zigzag)
            "32 0f 08 01 12 06 0a 01 68 12 01 78 12 03 0a 01 6e"  # headers of record 1
        )
        or payload == pb.Columns.FromString(payload).SerializeToString()
    )


def test_columns_that_say_nothing_are_absent() -> None:
    payload = encode_columns([b"a", b"b"], [None, None], {0: []}, [7, 7])
    assert payload == encode_columns([b"a", b"b"]) == b"\n\x01a\n\x01b"
    columns = decode_columns(payload, 2, 7)
    assert columns.keys == [None, None]
    assert columns.timestamps_ms == [7, 7]
    assert columns.headers == [(), ()]


def test_an_empty_value_is_not_a_null_one() -> None:
    columns = decode_columns(encode_columns([b"", None], [b"", None]), 2)
    assert columns.values == columns.keys == [b"", None]


def message(change: Callable[[pb.Columns], object]) -> bytes:
    columns = pb.Columns(values=[b"a", b"", b"c"])
    change(columns)
    return columns.SerializeToString()


@pytest.mark.parametrize(
    ("payload", "names"),
    [
        (b"\xff\xff", "not a Columns message"),
        (message(lambda c: None) + b"\xa8\x01\x05", "a column that is not known"),
        (message(lambda c: c.values.append(b"d")), "the header counts 3 records, the payload has 4"),
        (b"", "the payload has 0"),
        (message(lambda c: c.keys.append(b"k")), "1 keys for 3 records"),
        (message(lambda c: c.timestamp_deltas_ms.append(1)), "1 timestamps for 3 records"),
        (message(lambda c: setattr(c, "null_values", b"\x01")), "marks record 0"),
        (message(lambda c: setattr(c, "null_values", b"\x08")), "marks record 3"),
        (message(lambda c: setattr(c, "null_values", b"\x02\x00")), "has 2 bytes"),
        (message(lambda c: setattr(c, "null_keys", b"\x01")), "null bitmap of 0 keys has 1 bytes"),
        (message(lambda c: c.headers.add(record=3)), "not in the order"),
        (message(lambda c: (c.headers.add(record=1), c.headers.add(record=1))), "not in the order"),
        (message(lambda c: None) + b"\x32\x04\x08\x01\x28\x01", "a header has a field"),
        (message(lambda c: c.headers.add(record=1).headers.add(name="ql.deliver_at")), "'ql.deliver_at'"),
    ],
)
def test_contradictions_are_refused(payload: bytes, names: str) -> None:
    with pytest.raises(BatchInvalid) as refused:
        decode_columns(payload, 3)
    assert names in refused.value.message
    assert refused.value.code == (pb.UNSUPPORTED_VERSION if "ql." in names else pb.BATCH_INVALID)


def test_reserved_headers_are_refused_when_encoding_except_the_known_one() -> None:
    with pytest.raises(BatchInvalid, match=r"ql\.message_id") as refused:
        encode_columns([b"v"], headers={0: [("ql.message_id", b"1")]})
    assert "reserved" in refused.value.hint
    payload = encode_columns([b"v"], headers={0: [("ql.traceparent", b"00-1-2-01")]})
    assert decode_columns(payload, 1).headers == [(("ql.traceparent", b"00-1-2-01"),)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: encode_columns([b"a"], [b"k", b"l"]),
        lambda: encode_columns([b"a"], timestamps_ms=[1, 2]),
        lambda: encode_columns([b"a"], headers={1: [("h", b"")]}),
    ],
)
def test_columns_of_other_lengths_are_a_mistake_of_the_caller(call: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r"keys for 1 values|timestamps for 1 values|record 1 of 1"):
        call()

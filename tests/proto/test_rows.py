"""Plain rows become a batch and come back."""

import pytest

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import BatchInvalid, BatchLimits, check_batch
from quorumlog.proto.rows import batch_to_rows, rows_to_batch

LIMITS = BatchLimits(size_bytes_max=1 << 20, inflated_size_bytes_max=1 << 20, ratio_max=100)
ROWS = [
    pb.Record(key=b"k", value=b"v", timestamp_ms=2000, headers=[pb.Header(name="h", value=b"x"), pb.Header(name="n")]),
    pb.Record(value=b""),
    pb.Record(key=b"gone"),
]


def test_round_trip() -> None:
    batch = rows_to_batch(pb.Rows(records=ROWS), now_ms=1000)
    header = check_batch(batch, LIMITS)
    assert (header.count, header.first_timestamp_ms, header.max_timestamp_ms) == (3, 2000, 2000)
    batch.base_offset, batch.leader_epoch = 40, 6
    rows = batch_to_rows(batch, LIMITS)
    assert [row.offset for row in rows] == [40, 41, 42]
    assert [row.timestamp_ms for row in rows] == [2000, 1000, 1000]
    assert {row.leader_epoch for row in rows} == {6}
    for row in rows:
        for stamped in ("offset", "leader_epoch", "timestamp_ms"):
            row.ClearField(stamped)
    assert rows == [pb.Record(key=b"k", value=b"v", headers=ROWS[0].headers), *ROWS[1:]]


@pytest.mark.parametrize(
    ("rows", "code", "names"),
    [
        (pb.Rows(), pb.BATCH_INVALID, "no rows"),
        (pb.Rows(records=[pb.Record(timestamp_ms=-4)]), pb.BATCH_INVALID, "row 0 has timestamp -4"),
        (pb.Rows.FromString(b"\x0a\x03\xa8\x06\x01"), pb.BATCH_INVALID, "a row has a field"),
        (
            pb.Rows(records=[pb.Record(headers=[pb.Header(name="ql.deliver_at")])]),
            pb.UNSUPPORTED_VERSION,
            "'ql.deliver_at'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_rows_are_refused(rows: pb.Rows, code: int, names: str) -> None:
    with pytest.raises(BatchInvalid) as refused:
        rows_to_batch(rows, now_ms=1)
    assert refused.value.code == code
    assert names in refused.value.message

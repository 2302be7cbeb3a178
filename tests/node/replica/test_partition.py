"""The fold of a partition's log: equal logs give equal states, wherever a snapshot was taken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.replica.partition import PartitionMachine, Trimmed
from quorumlog.node.replica.producers import PRODUCER_TTL_MS, TIME_STEP_MS_MAX, Verdict
from quorumlog.node.storage.entry import EntryHeader, decode_header, encode_entry
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import BatchHeader, encode_columns, header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import EntryKind

BEGIN_MS = 1_700_000_000_000


class Log:
    """Entries as a leader would write them, one after the other."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.next_offset = 0
        self.time_ms = BEGIN_MS

    def _add(self, kind: EntryKind, payload: bytes, count: int = 0) -> bytes:
        data = encode_entry(
            kind,
            7,
            len(self.entries) + 1,
            1,
            self.next_offset,
            count,
            self.time_ms,
            payload,
            crc32c(payload),
        )
        self.entries.append(data)
        self.next_offset += count
        return data

    def records(self, count: int, producer_id: int = 0, epoch: int = 0, base_sequence: int = 0) -> bytes:
        return self._add(EntryKind.RECORDS, batch(count, producer_id, epoch, base_sequence)[1], count)

    def trim(self, log_start_offset: int, upto_index: int = 0) -> bytes:
        trim = internal_pb2.LogStart(log_start_offset=log_start_offset, upto_index=upto_index)
        return self._add(EntryKind.CONTROL, internal_pb2.ControlRecord(log_start=trim).SerializeToString())

    def noop(self) -> bytes:
        return self._add(EntryKind.NOOP, b"")


def batch(count: int, producer_id: int, epoch: int, base_sequence: int) -> tuple[BatchHeader, bytes]:
    header = header_for(
        count, first_timestamp_ms=0, producer_id=producer_id, producer_epoch=epoch, base_sequence=base_sequence
    )
    return header, pack_stored(header, encode_columns([b""] * count))


def apply(machine: PartitionMachine, data: bytes) -> object:
    return machine.apply(decode_header(data), data)


def replayed(entries: Sequence[bytes]) -> PartitionMachine:
    machine = PartitionMachine()
    for data in entries:
        apply(machine, data)
    return machine


def verdict(machine: PartitionMachine, count: int, producer_id: int, epoch: int, base_sequence: int) -> Verdict:
    return machine.judge(batch(count, producer_id, epoch, base_sequence)[0]).verdict


steps = st.lists(
    st.one_of(
        st.tuples(st.just("records"), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("trim"), st.integers(0, 40), st.just(0), st.just(0)),
        st.tuples(st.just("noop"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("time"), st.integers(1, 9 * 24), st.just(0), st.just(0)),
    ),
    max_size=40,
)


def written(drawn: Sequence[tuple[str, int, int, int]]) -> Log:
    log = Log()
    for kind, number, producer_id, epoch in drawn:
        if kind == "records":
            log.records(number, producer_id, epoch)
        elif kind == "trim":
            log.trim(number)
        elif kind == "noop":
            log.noop()
        else:
            log.time_ms += number * 3600 * 1000
    return log


@given(drawn=steps, cut=st.integers(0, 40))
def test_a_snapshot_stands_for_the_prefix_wherever_it_was_taken(
    drawn: list[tuple[str, int, int, int]], cut: int
) -> None:
    entries = written(drawn).entries
    restored = PartitionMachine()
    restored.restore(replayed(entries[:cut]).snapshot())
    for data in entries[cut:]:
        apply(restored, data)
    assert restored.snapshot() == replayed(entries).snapshot()


@given(drawn=steps)
def test_what_a_leader_has_seen_beyond_the_applied_entries_leaves_no_trace(
    drawn: list[tuple[str, int, int, int]],
) -> None:
    entries = written(drawn).entries
    machine = replayed(entries)
    before = machine.snapshot()
    header, stored = batch(2, 2, 9, 0)
    data = encode_entry(
        EntryKind.RECORDS, 7, len(entries) + 1, 2, machine.next_offset, 2, BEGIN_MS, stored, crc32c(stored)
    )
    machine.fold_tail(decode_header(data), header)
    assert machine.judge(header).verdict is Verdict.DUPLICATE
    assert machine.snapshot() == before
    machine.drop_tail()
    assert verdict(machine, 2, 2, 9, 0) is Verdict.APPEND


def test_a_tail_names_the_entry_that_a_duplicate_waits_for_and_an_applied_batch_does_not() -> None:
    log, machine = Log(), PartitionMachine()
    data = log.records(2, producer_id=5)
    header = batch(2, 5, 0, 0)[0]
    machine.fold_tail(decode_header(data), header)
    waiting = machine.judge(header).batch
    assert waiting is not None
    assert waiting.index == 1
    apply(machine, data)
    machine.drop_tail()
    applied = machine.judge(header).batch
    assert applied is not None
    assert (applied.index, applied.base_offset) == (0, 0)


def test_producers_expire_by_the_time_in_the_entries_alone() -> None:
    log, machine = Log(), PartitionMachine()
    apply(machine, log.records(1, producer_id=5))
    begin_ms = log.time_ms
    while log.time_ms < begin_ms + PRODUCER_TTL_MS:
        log.time_ms += TIME_STEP_MS_MAX
        apply(machine, log.noop())
    assert verdict(machine, 1, 5, 0, 1) is Verdict.APPEND, "remembered for the whole time"
    log.time_ms += TIME_STEP_MS_MAX
    apply(machine, log.noop())
    assert verdict(machine, 1, 5, 0, 1) is Verdict.UNKNOWN_PRODUCER


def test_a_leader_whose_clock_is_days_ahead_makes_nobody_forget_a_producer() -> None:
    log, machine = Log(), PartitionMachine()
    apply(machine, log.records(1, producer_id=5))
    log.time_ms += PRODUCER_TTL_MS + 24 * 3600 * 1000
    apply(machine, log.noop())
    assert verdict(machine, 1, 5, 0, 0) is Verdict.DUPLICATE, "a retry whose first answer was lost"
    for _ in range(1000):
        apply(machine, log.noop())  # the next leaders' clocks are right, and behind the log
    assert verdict(machine, 1, 5, 0, 0) is Verdict.DUPLICATE


def test_a_producer_that_comes_back_late_goes_on_where_it_stopped() -> None:
    log, machine = Log(), PartitionMachine()
    apply(machine, log.records(1, producer_id=5))
    for _ in range(PRODUCER_TTL_MS // TIME_STEP_MS_MAX):
        log.time_ms += TIME_STEP_MS_MAX
        apply(machine, log.noop())
    log.time_ms += TIME_STEP_MS_MAX
    apply(machine, log.records(1, producer_id=5, base_sequence=1))
    assert verdict(machine, 1, 5, 0, 0) is Verdict.DUPLICATE
    assert verdict(machine, 1, 5, 0, 2) is Verdict.APPEND


def test_dropping_records_forgets_no_producer() -> None:
    log = Log()
    log.records(1, producer_id=5)
    log.trim(1, upto_index=1)
    assert verdict(replayed(log.entries), 1, 5, 0, 0) is Verdict.DUPLICATE


@pytest.mark.parametrize(("wanted", "start"), [(0, 0), (2, 2), (5, 5), (99, 5)])
def test_a_trim_never_passes_the_end_of_the_log(wanted: int, start: int) -> None:
    log = Log()
    log.records(5)
    machine = replayed(log.entries)
    assert apply(machine, log.trim(wanted, upto_index=1)) == Trimmed(start, 1)
    assert machine.log_start_offset == start


def test_a_trim_never_goes_back() -> None:
    log = Log()
    log.records(5)
    log.trim(4)
    assert apply(replayed(log.entries), log.trim(2)) == Trimmed(4, 0)


def test_an_entry_that_does_not_follow_is_a_broken_invariant() -> None:
    log = Log()
    log.records(5)
    data = log.records(1)
    with pytest.raises(AssertionError, match="begins at offset 5"):
        PartitionMachine().apply(decode_header(data), data)


def test_headers_are_all_that_is_read_of_a_batch() -> None:
    log = Log()
    data = log.records(3, producer_id=5)
    header: EntryHeader = decode_header(data)
    shortened = data[: -header.payload_length + 45]
    machine = PartitionMachine()
    machine.apply(header, shortened)
    assert machine.next_offset == 3

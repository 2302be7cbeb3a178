"""What the demo samples, notes and judges."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from quorumlog.demo.files import Ack, Consumed, acks_path, consumed_path, read_acks, read_consumed
from quorumlog.demo.replicas import Log
from quorumlog.demo.samples import Identity, Sample, decode, encode, parse_stat, sample_processes
from quorumlog.demo.story import Kill, Outcome
from quorumlog.demo.verdict import compare
from quorumlog.demo.windows import WINDOW_SECONDS, Windows

NODES = (1, 2, 3)


def ack(sequence: int, offset: int, partition: int = 0, waited: float = 0.5) -> Ack:
    return Ack(partition, offset, Identity(1, sequence), 100.0, 100.0 + waited)


def consumed(sequence: int, offset: int, partition: int = 0) -> Consumed:
    return Consumed(partition, offset, Identity(1, sequence))


def everywhere(log: Log) -> dict[tuple[int, int], Log]:
    return {(0, node): dict(log) for node in NODES}


# -- samples


def test_this_process_is_among_the_samples() -> None:
    own = next(sample for sample in sample_processes() if sample.pid == os.getpid())
    assert own.resident_bytes > 1 << 20
    assert own.cpu_seconds > 0


def test_a_name_may_hold_spaces_and_brackets() -> None:
    fields = ["S", *["0"] * 10, "250", "50", *["0"] * 8, "3", "0"]
    sample = parse_stat(f"4711 (a) (b c) {' '.join(fields)}")
    ticks = os.sysconf("SC_CLK_TCK")
    assert sample == Sample(4711, "a) (b c", 300 / ticks, 3 * os.sysconf("SC_PAGE_SIZE"))


def test_a_process_that_ends_meanwhile_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "meminfo").touch()
    assert list(sample_processes(tmp_path)) == []


def test_a_record_carries_the_sample_and_which_record_it_is() -> None:
    sample = Sample(4711, "päth", 1.5, 4096)
    assert decode(sample.key, encode(Identity(2, 99), sample)) == (Identity(2, 99), sample)
    with pytest.raises(ValueError, match="a sample of version 9, expected 1"):
        decode(sample.key, b"\x09" + encode(Identity(2, 99), sample)[1:])


def test_a_window_is_shown_when_the_next_one_has_begun() -> None:
    windows = Windows()
    windows.add(0.1, Sample(7, "busy", 10.0, 100))
    windows.add(1.9, Sample(7, "busy", 11.0, 200))
    assert windows.closed() == {}
    windows.add(WINDOW_SECONDS + 0.1, Sample(7, "busy", 12.0, 300))
    usage = windows.closed()[7]
    assert (usage.cpu_percent(), usage.resident_bytes, usage.samples) == (100 * 1.0 / WINDOW_SECONDS, 200, 2)


# -- notes


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    acks = [ack(1, 5), ack(2, 6)]
    acks_path(tmp_path, 1).write_text("".join(entry.line() for entry in acks))
    consumed_path(tmp_path, 3).write_text(consumed(1, 5).line())
    assert list(read_acks(tmp_path)) == acks
    assert list(read_consumed(tmp_path)) == [consumed(1, 5)]


# -- the verdict


def test_what_is_everywhere_once_is_fine() -> None:
    log = {0: Identity(1, 0), 1: Identity(1, 1)}
    verdict = compare([ack(0, 0), ack(1, 1, waited=2.5)], everywhere(log), [consumed(0, 0), consumed(1, 1)])
    assert (verdict.records, verdict.lost, verdict.duplicated, verdict.longest_stall) == (2, 0, 0, 2.5)
    assert verdict.examples == []


def test_a_record_that_one_replica_lacks_is_lost() -> None:
    replicas = everywhere({0: Identity(1, 0)})
    del replicas[0, 3][0]
    verdict = compare([ack(0, 0)], replicas, [])
    assert verdict.lost == 1
    assert verdict.examples == [
        "record 0 of producer 1 was acknowledged at offset 0 of partition 0: not there on node 3"
    ]


def test_a_record_that_nobody_was_given_is_lost() -> None:
    verdict = compare([ack(0, 0)], everywhere({0: Identity(1, 0)}), [])
    assert verdict.lost == 1
    assert verdict.examples == ["record 0 of producer 1 was acknowledged, but no member was given it"]


def test_a_partition_that_was_not_read_proves_nothing_for_its_records() -> None:
    verdict = compare([ack(0, 0, partition=4)], everywhere({}), [consumed(0, 0, partition=4)])
    assert verdict.lost == 1
    assert "no replica was read" in verdict.examples[0]


def test_a_record_at_another_offset_than_acknowledged_is_lost() -> None:
    assert compare([ack(0, 0)], everywhere({1: Identity(1, 0)}), [consumed(0, 1)]).lost == 1


def test_an_acknowledgement_without_an_offset_is_looked_up() -> None:
    assert compare([ack(0, -1)], everywhere({4: Identity(1, 0)}), [consumed(0, 4)]).lost == 0
    assert compare([ack(0, -1)], everywhere({}), []).lost == 1


def test_a_record_given_where_the_log_holds_another_is_a_loss() -> None:
    verdict = compare([], everywhere({0: Identity(1, 0)}), [consumed(9, 0)])
    assert verdict.lost == 1
    assert "where a replica holds something else" in verdict.examples[0]


def test_replicas_that_differ_are_a_loss() -> None:
    replicas = everywhere({0: Identity(1, 0)})
    replicas[0, 2][0] = Identity(1, 8)
    verdict = compare([], replicas, [])
    assert verdict.lost == 1
    assert verdict.examples == ["node 2 holds something else at offset 0 of partition 0"]


def test_a_record_at_two_offsets_is_doubled() -> None:
    log = {0: Identity(1, 0), 1: Identity(1, 0)}
    verdict = compare([ack(0, 0)], everywhere(log), [consumed(0, 0), consumed(0, 1)])
    assert (verdict.lost, verdict.duplicated) == (0, 1)
    assert "is there twice: offsets [0, 1] of partition 0" in verdict.examples[0]


def test_a_record_given_twice_is_doubled() -> None:
    verdict = compare([ack(0, 0)], everywhere({0: Identity(1, 0)}), [consumed(0, 0), consumed(0, 0)])
    assert (verdict.lost, verdict.duplicated) == (0, 1)
    assert verdict.examples == ["record 0 of producer 1 was given to members 2 times"]


def test_records_that_were_never_acknowledged_may_be_there_or_not() -> None:
    assert compare([], everywhere({0: Identity(1, 0)}), [consumed(0, 0)]).lost == 0


# -- what a run proves

KILL = Kill(node_id=2, pid=1, partition=3, at=50.0, term_before=1, term_after=2)
CLEAN = {"records": 30_000, "lost": 0, "duplicated": 0, "longest_stall": 1.0, "examples": []}


def test_a_good_run_is_a_proof() -> None:
    assert Outcome(KILL, 10_000, 20_000, 500, 0, CLEAN).proves_nothing() == []


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(replace(KILL, term_after=1), 10_000, 20_000, 500, 0, CLEAN), "did not change"),
        (Outcome(KILL, 10_000, 9_999, 500, 0, CLEAN), "19999 records were acknowledged, fewer than 20000"),
        (Outcome(KILL, 10_000, 20_000, 0, 0, CLEAN), "after the kill was acknowledged within 5 s"),
    ],
)
def test_a_run_says_why_it_is_no_proof(outcome: Outcome, reason: str) -> None:
    (said,) = outcome.proves_nothing()
    assert reason in said


def test_what_was_given_up_is_not_clean() -> None:
    assert Outcome(KILL, 1, 1, 1, 0, CLEAN).is_clean()
    assert not Outcome(KILL, 1, 1, 1, 1, CLEAN).is_clean()
    assert not Outcome(KILL, 1, 1, 1, 0, {**CLEAN, "lost": 1}).is_clean()
    assert not Outcome(KILL, 1, 1, 1, 0, {**CLEAN, "duplicated": 1}).is_clean()

"""The watermark: what is published, when, and what a torn slot leaves."""

from random import Random

import pytest

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash
from quorumlog.node.storage.watermark import (
    NEVER_REPAIRED,
    SLOT_STRIDE_BYTES,
    WATERMARK_NAME,
    Mark,
    Watermark,
    WatermarkPacer,
    decode_slot,
    encode_slot,
)

DATABASE = b"d" * 16
MARK = Mark(DATABASE, 5)


def overwrite(files: MemoryFileSystem, offset: int, data: bytes) -> None:
    file = files.open(WATERMARK_NAME)
    file.write_at(offset, data)
    file.sync()


def test_a_new_watermark_is_durable_and_says_never_repaired() -> None:
    files = MemoryFileSystem()
    Watermark.create(files, MARK)
    files.crash()
    found = Watermark.open(files)
    assert found.mark == MARK
    assert found.mark.repair_id == NEVER_REPAIRED
    assert found.slots_valid == 2


def test_the_golden_bytes_of_a_slot() -> None:
    mark = Mark(bytes(range(16)), 0x0102, b"r" * 16, b"b" * 16, b"p" * 16)
    body = "010000000000000007000102030405060708090a0b0c0d0e0f0000000000000102"
    body += "72" * 16 + "62" * 16 + "70" * 16 + "0000"
    slot = encode_slot(7, mark)
    assert slot[:-4].hex() == body
    assert decode_slot(slot) == (7, mark)


def test_every_flipped_bit_of_a_slot_is_noticed() -> None:
    slot = encode_slot(7, MARK)
    for at in range(len(slot) * 8):
        flipped = bytearray(slot)
        flipped[at // 8] ^= 1 << at % 8
        assert decode_slot(bytes(flipped)) is None


def test_publishing_raises_the_mark_and_survives_a_crash() -> None:
    files = MemoryFileSystem()
    watermark = Watermark.create(files, MARK)
    for sequence in (6, 6, 9, 100):
        watermark.publish(sequence)
    files.crash()
    assert Watermark.open(files).mark == Mark(DATABASE, 100)


def test_the_mark_never_falls() -> None:
    watermark = Watermark.create(MemoryFileSystem(), MARK)
    with pytest.raises(AssertionError, match="cannot fall"):
        watermark.publish(4)


def test_a_damaged_newer_slot_leaves_the_older_one() -> None:
    files = MemoryFileSystem()
    watermark = Watermark.create(files, MARK)
    watermark.publish(10)
    watermark.publish(20)
    overwrite(files, SLOT_STRIDE_BYTES + 30, b"\xff")
    found = Watermark.open(files)
    assert (found.mark.sequence, found.slots_valid) == (10, 1)


def test_the_damaged_slot_is_the_one_written_next() -> None:
    files = MemoryFileSystem()
    Watermark.create(files, MARK).publish(10)
    overwrite(files, 30, b"\xff")
    found = Watermark.open(files)
    assert found.mark.sequence == 5
    found.publish(11)
    overwrite(files, SLOT_STRIDE_BYTES, b"\xff")
    assert Watermark.open(files).mark.sequence == 11


def test_two_damaged_slots_or_no_file_are_a_lost_watermark() -> None:
    files = MemoryFileSystem()
    with pytest.raises(StorageCorrupt, match=r"watermark .* is missing"):
        Watermark.open(files)
    Watermark.create(files, MARK)
    overwrite(files, 0, bytes(SLOT_STRIDE_BYTES * 2))
    with pytest.raises(StorageCorrupt, match="neither of its two slots"):
        Watermark.open(files)


def test_a_new_repair_id_is_in_both_slots() -> None:
    for damaged in (0, SLOT_STRIDE_BYTES):
        files = MemoryFileSystem()
        watermark = Watermark.create(files, Mark(DATABASE, 50))
        watermark.adopt(b"e" * 16, 3, b"r" * 16)
        overwrite(files, damaged, b"\xff" * 20)
        assert Watermark.open(files).mark == Mark(b"e" * 16, 3, b"r" * 16)


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_at_any_step_leaves_the_last_published_mark_or_the_one_under_way(seed: int) -> None:
    for stop in range(12):
        files = MemoryFileSystem()
        watermark = Watermark.create(files, Mark(DATABASE, 0))
        files.crash_after_steps = stop
        published = under_way = 0
        try:
            for under_way in range(1, 10):
                watermark.publish(under_way)
                published = under_way
        except SimulatedCrash:
            pass
        files.crash(Random(seed))
        assert published <= Watermark.open(files).mark.sequence <= under_way, f"seed {seed} stop {stop}"


# --- when to publish --------------------------------------------------------------------------------------------------


def test_nothing_is_due_before_a_sync_has_finished() -> None:
    pacer = WatermarkPacer(published=7)
    assert pacer.due_at() is None
    assert pacer.take(100.0) is None
    pacer.on_synced(7)
    assert pacer.take(100.0) is None


def test_the_first_finished_sync_is_published_at_once() -> None:
    pacer = WatermarkPacer(published=0)
    pacer.on_synced(10)
    assert pacer.take(100.0) == 10


def test_while_writing_goes_on_it_is_published_at_most_once_per_interval() -> None:
    pacer = WatermarkPacer(published=0, interval_seconds=0.25)
    taken = []
    for tick in range(64):  # 1/64 s apart, a sync each: one second
        pacer.on_synced(tick + 1)
        if pacer.take(tick / 64) is not None:
            taken.append(tick / 64)
            pacer.on_published()
    assert taken == [0.0, 0.25, 0.5, 0.75]


def test_when_writing_ends_the_last_number_is_published_once_more() -> None:
    pacer = WatermarkPacer(published=0, interval_seconds=0.25)
    pacer.on_synced(1)
    assert pacer.take(10.0) == 1
    pacer.on_synced(2)
    assert pacer.due_at() is None, "one is being published"
    pacer.on_published()
    assert pacer.due_at() == 10.25
    assert pacer.take(10.125) is None
    assert pacer.take(10.25) == 2
    pacer.on_published()
    assert pacer.due_at() is None
    assert pacer.take(99.0) is None


def test_syncs_that_finish_out_of_order_never_lower_the_number() -> None:
    pacer = WatermarkPacer(published=0)
    pacer.on_synced(9)
    pacer.on_synced(4)
    assert pacer.take(1.0) == 9

"""MemoryStorage loses in a crash exactly what no sync covered."""

import pytest

from quorumlog.node.errors import StorageBusy, StorageFailed
from quorumlog.node.storage.interface import Family, Pressure
from quorumlog.node.storage.memory import MemoryStorage


def put(storage: MemoryStorage, key: str, value: str) -> None:
    batch = storage.new_batch()
    batch.put(Family.LOG, key.encode(), value.encode())
    storage.write(batch)


def content(storage: MemoryStorage) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in storage.scan(Family.LOG, b"", b"~")}


def test_a_crash_drops_what_no_sync_covered() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    storage.sync()
    number = storage.sequence_number()
    put(storage, "a", "2")
    put(storage, "b", "2")
    storage.crash()
    assert content(storage) == {"a": "1"}
    assert storage.sequence_number() == number


@pytest.mark.parametrize(("keep", "expected"), [(0, "1"), (1, "2"), (2, "3"), (9, "3")])
def test_a_crash_may_keep_a_prefix_of_the_unsynced_batches(keep: int, expected: str) -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    storage.sync()
    put(storage, "a", "2")
    put(storage, "a", "3")
    assert storage.unsynced_batches() == 2
    storage.crash(keep)
    assert content(storage) == {"a": expected}
    storage.crash()
    assert content(storage) == {"a": expected}, "what a crash has left is durable"


def test_a_crash_takes_every_kind_of_change_back() -> None:
    storage = MemoryStorage()
    for key in "abcd":
        put(storage, key, "old")
    storage.sync()
    before = content(storage), storage.size_bytes()
    batch = storage.new_batch()
    batch.delete(Family.LOG, b"a")
    batch.put(Family.LOG, b"a", b"new")
    batch.delete_range(Family.LOG, b"a", b"c")
    batch.put(Family.LOG, b"b", b"newer")
    batch.put(Family.LOG, b"e", b"new")
    storage.write(batch)
    assert content(storage) == {"b": "newer", "c": "old", "d": "old", "e": "new"}
    storage.crash()
    assert (content(storage), storage.size_bytes()) == before


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    token = storage.begin_sync()
    put(storage, "b", "2")
    storage.finish_sync(token)
    storage.crash()
    assert content(storage) == {"a": "1"}


def test_a_sync_under_way_covers_nothing() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    token = storage.begin_sync()
    storage.crash()
    assert content(storage) == {}
    with pytest.raises(AssertionError, match="does not outlive"):
        storage.finish_sync(token)


def test_syncs_may_finish_in_any_order() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    first = storage.begin_sync()
    put(storage, "b", "2")
    second = storage.begin_sync()
    storage.finish_sync(second)
    storage.finish_sync(first)
    storage.crash()
    assert content(storage) == {"a": "1", "b": "2"}
    assert storage.syncs == 2


def test_a_busy_storage_has_written_nothing_and_takes_the_batch_later() -> None:
    storage = MemoryStorage()
    batch = storage.new_batch()
    batch.put(Family.LOG, b"a", b"1")
    storage.fail_next_write = StorageBusy("behind with compaction, try later")
    with pytest.raises(StorageBusy):
        storage.write(batch)
    assert content(storage) == {}
    storage.write(batch)
    assert content(storage) == {"a": "1"}


@pytest.mark.parametrize("keep", [0, 1])
def test_after_a_failed_write_nothing_works_and_a_crash_decides_whether_it_is_there(keep: int) -> None:
    storage = MemoryStorage()
    storage.fail_next_write = StorageFailed("disk full: free some space")
    with pytest.raises(StorageFailed, match="disk full"):
        put(storage, "a", "1")
    with pytest.raises(StorageFailed, match=r"failed before.*disk full"):
        put(storage, "b", "2")
    with pytest.raises(StorageFailed, match="failed before"):
        storage.sync()
    storage.crash(keep)
    assert content(storage) == ({"a": "1"} if keep else {})
    put(storage, "c", "3")


def test_after_a_failed_sync_nothing_is_durable() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    storage.fail_next_sync = StorageFailed("EIO")
    with pytest.raises(StorageFailed):
        storage.sync()
    with pytest.raises(StorageFailed, match="failed before"):
        storage.sync()
    storage.crash()
    assert content(storage) == {}
    assert storage.syncs == 0


def test_damage_changes_what_is_stored_behind_everybodys_back() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    put(storage, "b", "2")
    number = storage.sequence_number()
    storage.damage(Family.LOG, b"a", b"flipped")
    storage.damage(Family.LOG, b"b", None)
    assert content(storage) == {"a": "flipped"}
    assert storage.sequence_number() == number


def test_pressure_is_what_the_test_says() -> None:
    storage = MemoryStorage()
    storage.pressure_now = Pressure(0.9)
    assert storage.pressure().level == 0.9


def test_a_closed_storage_answers_nothing() -> None:
    storage = MemoryStorage()
    put(storage, "a", "1")
    storage.close()
    with pytest.raises(AssertionError, match="closed"):
        storage.get(Family.LOG, b"a")
    storage.reopen()
    assert content(storage) == {"a": "1"}


def test_what_is_stored_can_be_seen_by_whoever_damages_it_even_when_it_is_closed() -> None:
    storage = MemoryStorage()
    put(storage, "b", "2")
    put(storage, "a", "1")
    storage.close()
    assert list(storage.keys(Family.LOG)) == [b"a", b"b"]
    assert storage.peek(Family.LOG, b"a") == b"1"
    assert storage.peek(Family.LOG, b"c") is None

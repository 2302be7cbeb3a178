"""What every Storage does alike: in memory and in RocksDB."""

import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorumlog.node.storage.interface import Family, Storage, WriteBatch
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.rocks import RocksStorage


class Home(Protocol):
    """Where a storage lives, so that a test can close it and open it again."""

    def open(self) -> Storage: ...


class MemoryHome:
    def __init__(self) -> None:
        self.storage: MemoryStorage | None = None

    def open(self) -> Storage:
        if self.storage is None:
            self.storage = MemoryStorage()
        else:
            self.storage.reopen()
        return self.storage


class RocksHome:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Storage:
        return RocksStorage(self.path)


IMPLEMENTATIONS = ["memory", "rocks"]


def make_home(implementation: str, folder: Path) -> Home:
    return MemoryHome() if implementation == "memory" else RocksHome(folder / "database")


@pytest.fixture(params=IMPLEMENTATIONS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return make_home(request.param, tmp_path)


@pytest.fixture
def storage(home: Home) -> Iterator[Storage]:
    storage = home.open()
    yield storage
    storage.close()


def put(storage: Storage, family: Family, **pairs: str) -> None:
    batch = storage.new_batch()
    for key, value in pairs.items():
        batch.put(family, key.encode(), value.encode())
    storage.write(batch)


def everything(storage: Storage, family: Family) -> list[tuple[bytes, bytes]]:
    return storage.scan(family, b"a", b"~")


def test_a_write_is_visible_before_any_sync(storage: Storage) -> None:
    put(storage, Family.LOG, a="1")
    assert storage.get(Family.LOG, b"a") == b"1"
    assert everything(storage, Family.LOG) == [(b"a", b"1")]


def test_an_absent_key_is_none(storage: Storage) -> None:
    assert storage.get(Family.META, b"absent") is None


def test_an_empty_value_is_not_an_absent_one(storage: Storage) -> None:
    put(storage, Family.META, a="")
    assert storage.get(Family.META, b"a") == b""
    assert storage.get_many(Family.META, [b"a", b"b"]) == [b"", None]


def test_families_are_key_spaces_of_their_own(storage: Storage) -> None:
    for family in Family:
        put(storage, family, a=family.name)
    assert [storage.get(family, b"a") for family in Family] == [family.name.encode() for family in Family]
    batch = storage.new_batch()
    batch.delete_range(Family.LOG, b"a", b"b")
    storage.write(batch)
    assert [storage.get(family, b"a") for family in Family] == [None, b"INDEX", b"STATE", b"META"]


def test_get_many_answers_in_the_order_asked(storage: Storage) -> None:
    put(storage, Family.LOG, a="1", b="2", c="3")
    assert storage.get_many(Family.LOG, [b"c", b"x", b"a", b"c"]) == [b"3", None, b"1", b"3"]
    assert storage.get_many(Family.LOG, []) == []


def test_later_changes_of_a_batch_win(storage: Storage) -> None:
    put(storage, Family.LOG, a="old", b="old", c="old", d="old")
    batch = storage.new_batch()
    batch.put(Family.LOG, b"a", b"new")
    batch.delete(Family.LOG, b"a")
    batch.delete_range(Family.LOG, b"b", b"d")
    batch.put(Family.LOG, b"b", b"new")
    batch.delete(Family.LOG, b"d")
    batch.put(Family.LOG, b"d", b"newer")
    batch.put(Family.LOG, b"e", b"new")
    batch.delete_range(Family.LOG, b"e", b"f")
    storage.write(batch)
    assert everything(storage, Family.LOG) == [(b"b", b"new"), (b"d", b"newer")]


def test_deleting_what_is_absent_does_nothing(storage: Storage) -> None:
    put(storage, Family.LOG, b="2")
    batch = storage.new_batch()
    batch.delete(Family.LOG, b"a")
    batch.delete_range(Family.LOG, b"c", b"z")
    batch.delete_range(Family.LOG, b"b", b"b")
    storage.write(batch)
    assert everything(storage, Family.LOG) == [(b"b", b"2")]


@pytest.mark.parametrize(
    ("start", "end", "limit", "expected"),
    [
        (b"b", b"d", None, "bc"),
        (b"b", b"d\0", None, "bcd"),
        (b"a", b"z", None, "abcde"),
        (b"a", b"z", 2, "ab"),
        (b"a", b"z", 0, ""),
        (b"c", b"c", None, ""),
        (b"d", b"b", None, ""),
        (b"bb", b"cc", None, "c"),
        (b"f", b"z", None, ""),
        (b"A", b"a", None, ""),
        (b"c", b"z", 99, "cde"),
    ],
)
def test_a_scan_takes_its_start_and_leaves_its_end(
    storage: Storage, start: bytes, end: bytes, limit: int | None, expected: str
) -> None:
    put(storage, Family.INDEX, **{key: key.upper() for key in "ebdac"})
    pairs = [(key.encode(), key.upper().encode()) for key in expected]
    assert storage.scan(Family.INDEX, start, end, limit=limit) == pairs
    in_range = sorted(pairs if limit is None else storage.scan(Family.INDEX, start, end), reverse=True)
    assert storage.scan(Family.INDEX, start, end, reverse=True, limit=limit) == in_range[:limit]


def test_a_sync_is_counted(storage: Storage) -> None:
    before = storage.syncs
    put(storage, Family.LOG, a="1")
    storage.sync()
    storage.sync()
    assert storage.syncs == before + 2


def test_writes_go_on_while_a_sync_runs_in_a_thread(storage: Storage) -> None:
    done = threading.Event()

    def keep_syncing() -> None:
        while not done.is_set():
            storage.sync()

    thread = threading.Thread(target=keep_syncing)
    thread.start()
    try:
        for i in range(200):
            put(storage, Family.LOG, **{f"k{i:04}": "x" * 100})
    finally:
        done.set()
        thread.join()
    assert len(everything(storage, Family.LOG)) == 200


def test_the_sequence_number_grows_with_every_write(storage: Storage) -> None:
    numbers = [storage.sequence_number()]
    for i in range(3):
        put(storage, Family.LOG, **{f"a{i}": "1"})
        numbers.append(storage.sequence_number())
    assert numbers == sorted(set(numbers))


def test_a_batch_counts_its_changes_and_bytes() -> None:
    batch = WriteBatch()
    assert batch.is_empty()
    assert batch.size_bytes() == 0
    batch.put(Family.LOG, b"key", b"x" * 1000)
    batch.delete(Family.LOG, b"key")
    batch.delete_range(Family.LOG, b"a", b"b")
    assert not batch.is_empty()
    assert len(batch) == 3
    assert 1000 < batch.size_bytes() < 1100


def test_a_range_that_ends_before_it_starts_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="ends before it starts"):
        WriteBatch().delete_range(Family.LOG, b"b", b"a")


def test_everything_survives_closing(home: Home) -> None:
    storage = home.open()
    put(storage, Family.LOG, a="1", b="2")
    put(storage, Family.META, a="3")
    number, database_id = storage.sequence_number(), storage.database_id()
    storage.close()
    storage.close()

    storage = home.open()
    assert everything(storage, Family.LOG) == [(b"a", b"1"), (b"b", b"2")]
    assert storage.get(Family.META, b"a") == b"3"
    assert storage.sequence_number() == number
    assert storage.database_id() == database_id
    assert len(database_id) == 16
    storage.close()


def test_using_a_closed_storage_is_a_programming_error(home: Home) -> None:
    storage = home.open()
    storage.close()
    for use in (
        lambda: storage.write(storage.new_batch()),
        storage.sync,
        lambda: storage.get(Family.LOG, b"a"),
        lambda: storage.get_many(Family.LOG, [b"a"]),
        lambda: storage.scan(Family.LOG, b"a", b"b"),
        storage.flush,
        lambda: storage.reclaim(Family.LOG, b"a", b"b"),
    ):
        with pytest.raises(AssertionError, match="storage is closed"):
            use()


def test_a_flush_keeps_everything(storage: Storage) -> None:
    put(storage, Family.LOG, a="1")
    storage.flush()
    put(storage, Family.LOG, b="2")
    assert everything(storage, Family.LOG) == [(b"a", b"1"), (b"b", b"2")]


def test_reclaiming_gives_the_space_of_a_deleted_prefix_back(storage: Storage) -> None:
    for i in range(100):
        put(storage, Family.LOG, **{f"k{i:04}": f"{i:05}" * 4000})  # 20 kB: a value of its own in RocksDB
    storage.flush()
    full = storage.size_bytes()
    assert full > 100 * 20_000 * 0.9
    batch = storage.new_batch()
    batch.delete_range(Family.LOG, b"k0000", b"k0090")
    storage.write(batch)
    storage.reclaim(Family.LOG, b"k0000", b"k0090")
    assert storage.size_bytes() < full / 4
    assert [key for key, _ in everything(storage, Family.LOG)] == [f"k{i:04}".encode() for i in range(90, 100)]


def test_an_idle_storage_is_under_no_pressure(storage: Storage) -> None:
    put(storage, Family.LOG, a="1")
    assert storage.pressure().level == 0.0


KEYS = st.binary(min_size=1, max_size=3)
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(Family), KEYS, st.binary(max_size=4)),
    st.tuples(st.just("delete"), st.sampled_from(Family), KEYS, st.just(b"")),
    st.tuples(st.just("delete_range"), st.sampled_from(Family), KEYS, KEYS),
)
STEPS = st.lists(
    st.one_of(st.lists(CHANGES, max_size=6), st.sampled_from(["sync", "reopen", "flush", "reclaim"])), max_size=12
)


def apply_to_model(model: dict[Family, dict[bytes, bytes]], change: tuple[str, Family, bytes, bytes]) -> None:
    """The dumb second implementation: dictionaries, and every key looked at."""
    kind, family, key, value = change
    if kind == "put":
        model[family][key] = value
    elif kind == "delete":
        model[family].pop(key, None)
    else:
        model[family] = {k: v for k, v in model[family].items() if not min(key, value) <= k < max(key, value)}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(steps=STEPS, start=KEYS, end=KEYS, reverse=st.booleans(), limit=st.none() | st.integers(0, 5))
def test_it_agrees_with_dictionaries(
    implementation: str, steps: list[object], start: bytes, end: bytes, reverse: bool, limit: int | None
) -> None:
    model: dict[Family, dict[bytes, bytes]] = {family: {} for family in Family}
    with TemporaryDirectory() as folder:
        home = make_home(implementation, Path(folder))
        storage = home.open()
        own_rows = dict(storage.scan(Family.META, b"", b"\xff" * 16))
        model[Family.META].update(own_rows)
        for step in steps:
            if step == "reopen":
                storage.close()
                storage = home.open()
            elif step == "reclaim":
                storage.reclaim(Family.LOG, min(start, end), max(start, end))
            elif isinstance(step, str):
                getattr(storage, step)()
            else:
                assert isinstance(step, list)
                batch = storage.new_batch()
                for change in step:
                    kind, family, key, value = change
                    if kind == "put":
                        batch.put(family, key, value)
                    elif kind == "delete":
                        batch.delete(family, key)
                    else:
                        batch.delete_range(family, min(key, value), max(key, value))
                    apply_to_model(model, change)
                for key, value in own_rows.items():  # nobody takes the storage's own rows away
                    batch.put(Family.META, key, value)
                    model[Family.META][key] = value
                storage.write(batch)
        low, high = min(start, end), max(start, end)
        for family, pairs in model.items():
            assert storage.scan(family, b"", b"\xff" * 16) == sorted(pairs.items())
            assert storage.get_many(family, sorted(pairs)) == [pairs[key] for key in sorted(pairs)]
            assert storage.get(family, start) == pairs.get(start)
            expected = sorted(((k, v) for k, v in pairs.items() if low <= k < high), reverse=reverse)
            assert storage.scan(family, low, high, reverse=reverse, limit=limit) == expected[:limit]
        storage.close()

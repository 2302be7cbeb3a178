"""Votes outside the database: a synced vote is never forgotten, and damage is never taken for a torn tail."""

import threading
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.errors import StorageCorrupt, StorageFailed
from quorumlog.node.storage.files import DurableFile
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash
from quorumlog.node.storage.votes import (
    VOTES_NAME,
    VoteRecord,
    VotesFile,
    get_hard_state,
    hard_states_of,
    merge_hard_states,
    put_hard_state,
)
from quorumlog.raft.types import NO_NODE, HardState, NodeId, Term

HEADER_BYTES = 20
RECORD_BYTES = 36


def state(term: int, vote: int = NO_NODE) -> HardState:
    return HardState(Term(term), NodeId(vote))


def record(group_id: int, term: int, vote: int = NO_NODE) -> VoteRecord:
    return VoteRecord(group_id, Term(term), NodeId(vote))


def content(files: MemoryFileSystem) -> bytes:
    data = files.read(VOTES_NAME)
    assert data is not None
    return data


def with_content(data: bytes) -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.replace(VOTES_NAME, data)
    return files


def test_the_last_record_of_each_group_is_found_again() -> None:
    files = MemoryFileSystem()
    votes = VotesFile.create(files, {})
    votes.append([record(1, 1, vote=3), record(2, 5)])
    votes.append([record(1, 2)])
    votes.sync()
    files.crash()
    found = VotesFile.open(files)
    assert found.rows() == {1: state(2), 2: state(5)}
    assert found.get(1) == state(2)
    assert found.get(9) is None


def test_rows_of_removed_replicas_stay() -> None:
    files = MemoryFileSystem()
    VotesFile.create(files, {7: state(4, vote=2)})
    for _ in range(3):
        VotesFile.open(files).append([])
    assert VotesFile.open(files).get(7) == state(4, vote=2)


def test_the_golden_bytes_of_the_file() -> None:
    files = MemoryFileSystem()
    votes = VotesFile.create(files, {1: state(2, vote=3)})
    votes.append([record(256, 4)])
    data = content(files)
    assert data[:16] == b"QLVOTES\x01" + (1).to_bytes(8, "big")
    assert data[20:52].hex() == "0000000000000001000000000000000200000000000000030000000000000001"
    assert data[56:88].hex() == "0000000000000100000000000000000400000000000000000000000000000001"
    assert len(data) == HEADER_BYTES + 2 * RECORD_BYTES


def test_a_term_that_falls_or_a_second_vote_is_a_broken_promise() -> None:
    votes = VotesFile.create(MemoryFileSystem(), {1: state(5, vote=2)})
    with pytest.raises(AssertionError, match="the term falls from 5 to 4"):
        votes.append([record(1, 4)])
    with pytest.raises(AssertionError, match="a second vote"):
        votes.append([record(1, 5, vote=3)])


def test_a_failed_sync_is_not_repeated() -> None:
    files = MemoryFileSystem()
    votes = VotesFile.create(files, {})
    votes.append([record(1, 1)])
    files.fail_next_sync = True
    with pytest.raises(StorageFailed):
        votes.sync()
    with pytest.raises(StorageFailed, match="earlier sync failed"):
        votes.sync()


# --- torn tail or damage ----------------------------------------------------------------------------------------------


def written_file() -> bytes:
    """Two records from the making, two synced ones, and two that were appended after that sync was known."""
    files = MemoryFileSystem()
    votes = VotesFile.create(files, {1: state(1), 2: state(1)})
    votes.append([record(1, 2), record(2, 2)])
    votes.sync()
    votes.append([record(1, 3), record(2, 3)])
    return content(files)


def test_a_tail_cut_anywhere_is_cut_off_at_a_record_and_appending_goes_on() -> None:
    data = written_file()
    for size in range(HEADER_BYTES + 4 * RECORD_BYTES, len(data)):
        files = with_content(data[:size])
        votes = VotesFile.open(files)
        assert votes.torn_bytes == (size - HEADER_BYTES) % RECORD_BYTES
        votes.append([record(1, 9, vote=1)])
        votes.sync()
        files.crash()
        found = VotesFile.open(files)
        assert found.get(1) == state(9, vote=1)
        assert found.torn_bytes == 0


def test_zeros_in_the_unsynced_tail_are_cut_off_even_before_a_sound_record() -> None:
    data = bytearray(written_file())
    at = HEADER_BYTES + 4 * RECORD_BYTES
    data[at : at + RECORD_BYTES] = bytes(RECORD_BYTES)
    votes = VotesFile.open(with_content(bytes(data)))
    assert votes.rows() == {1: state(2), 2: state(2)}
    assert votes.torn_bytes == 2 * RECORD_BYTES


def test_every_flipped_bit_in_what_was_known_to_be_synced_is_refused() -> None:
    data = written_file()
    for at in range((HEADER_BYTES + 4 * RECORD_BYTES) * 8):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(StorageCorrupt, match=r"votes file memory:/votes is damaged"):
            VotesFile.open(with_content(bytes(flipped)))


def test_a_record_in_the_place_of_another_is_damage() -> None:
    data = written_file()
    first, second = (data[HEADER_BYTES + at * RECORD_BYTES :][:RECORD_BYTES] for at in (0, 1))
    swapped = data[:HEADER_BYTES] + second + first + data[HEADER_BYTES + 2 * RECORD_BYTES :]
    with pytest.raises(StorageCorrupt, match="record 0 of 4 that were synced does not check"):
        VotesFile.open(with_content(swapped))


def test_a_file_cut_below_what_it_was_made_with_is_damage() -> None:
    data = written_file()
    with pytest.raises(StorageCorrupt, match="record 1 of 2"):
        VotesFile.open(with_content(data[: HEADER_BYTES + RECORD_BYTES]))


def test_a_missing_file_is_told_apart_from_an_empty_one() -> None:
    with pytest.raises(StorageCorrupt, match="missing"):
        VotesFile.open(MemoryFileSystem())
    with pytest.raises(StorageCorrupt, match="header"):
        VotesFile.open(with_content(b""))


# --- crashes ----------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.just("sync"),
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=4),
    ),
    max_size=12,
)


@given(
    lives=st.lists(st.tuples(STEPS, st.integers(0, 30)), min_size=1, max_size=4),
    random=st.randoms(use_true_random=False),
    rewrite_records_min=st.sampled_from([4, 10_000]),
)
def test_a_vote_whose_sync_returned_survives_any_crash(
    lives: list[tuple[list[str | list[tuple[int, int, int]]], int]], random: Random, rewrite_records_min: int
) -> None:
    """Several lives, each ended by a crash at some step, with any part of the unsynced bytes and names kept."""
    files = MemoryFileSystem()
    VotesFile.create(files, {})
    synced: dict[int, HardState] = {}
    for steps, stop in lives:
        votes = VotesFile.open(files, rewrite_records_min=rewrite_records_min)
        appended = votes.rows()
        files.crash_after_steps = stop
        try:
            for step in steps:
                if isinstance(step, str):
                    promised = dict(appended)
                    votes.sync()
                    synced = promised
                    continue
                records = []
                for group_id, more, vote in step:
                    before = appended.get(group_id, state(0))
                    same_vote = before.vote if more == 0 and before.vote != NO_NODE else NodeId(vote)
                    appended[group_id] = HardState(Term(before.term + more), same_vote)
                    records.append(VoteRecord(group_id, appended[group_id].term, same_vote))
                votes.append(records)
        except SimulatedCrash:
            pass
        files.crash(random)
        found = VotesFile.open(files)
        for group_id, promise in synced.items():
            # What came later may have been kept as well; what was promised is never less.
            kept = found.get(group_id)
            assert kept is not None
            assert merge_hard_states(kept, promise) == kept
        synced = found.rows()  # opening has synced what it found: from now on others may act on it
        files.crash()


def test_opening_makes_durable_what_it_found() -> None:
    """Found once, it may be acted upon; a second power cut must not take it away again."""
    files = MemoryFileSystem()
    VotesFile.create(files, {}).append([record(1, 1, vote=2)])
    assert VotesFile.open(files).get(1) == state(1, vote=2)
    files.crash()
    assert VotesFile.open(files).get(1) == state(1, vote=2)


# --- rewriting --------------------------------------------------------------------------------------------------------


def test_a_long_file_is_rewritten_with_one_record_per_group() -> None:
    files = MemoryFileSystem()
    VotesFile.create(files, {})
    votes = VotesFile.open(files, rewrite_records_min=100)
    for term in range(1, 101):
        votes.append([record(1, term), record(2, term, vote=1)])
    votes.sync()
    assert len(content(files)) == HEADER_BYTES + 2 * RECORD_BYTES
    votes.append([record(1, 101)])
    votes.sync()
    files.crash()
    assert VotesFile.open(files).rows() == {1: state(101), 2: state(100, vote=1)}


class SlowSync(MemoryFileSystem):
    """Stops the thread that syncs the rewritten file until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.rewriting = threading.Event()
        self.go_on = threading.Event()

    def create(self, name: str) -> DurableFile:
        file = super().create(name)
        if threading.current_thread() is not threading.main_thread():
            self.rewriting.set()
            assert self.go_on.wait(30), "the test never released the sync"
        return file


def test_what_is_appended_during_a_rewrite_is_in_the_new_file() -> None:
    files = SlowSync()
    VotesFile.create(files, {})
    votes = VotesFile.open(files, rewrite_records_min=2)
    votes.append([record(1, 1), record(1, 2), record(1, 3), record(1, 4)])
    syncing = threading.Thread(target=votes.sync)
    syncing.start()
    assert files.rewriting.wait(30)
    votes.append([record(1, 5, vote=3)])
    files.go_on.set()
    syncing.join()
    votes.sync()
    files.crash()
    assert VotesFile.open(files).rows() == {1: state(5, vote=3)}


# --- the database's side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (None, None, None),
        (state(1), None, state(1)),
        (None, state(0), state(0)),
        (state(2), state(1, vote=3), state(2)),
        (state(1, vote=3), state(2), state(2)),
        (state(2), state(2, vote=3), state(2, vote=3)),
        (state(2, vote=3), state(2), state(2, vote=3)),
        (state(2, vote=3), state(2, vote=3), state(2, vote=3)),
    ],
)
def test_the_higher_term_wins_and_in_one_term_a_vote_beats_none(
    first: HardState | None, second: HardState | None, together: HardState | None
) -> None:
    assert merge_hard_states(first, second) == together


def test_two_votes_in_one_term_are_never_merged() -> None:
    with pytest.raises(AssertionError, match="two votes in a term"):
        merge_hard_states(state(2, vote=1), state(2, vote=3))


def test_the_row_in_the_database_is_read_back() -> None:
    storage = MemoryStorage()
    batch = storage.new_batch()
    put_hard_state(batch, 1, state(3, vote=2))
    put_hard_state(batch, (1 << 64) - 2, state(4))
    storage.write(batch)
    assert get_hard_state(storage, 1) == state(3, vote=2)
    assert get_hard_state(storage, 2) is None
    assert hard_states_of(storage) == {1: state(3, vote=2), (1 << 64) - 2: state(4)}

"""A log with damaged entries: it opens, serves what is sound, names what is not, and takes it back from a peer."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorumlog.node.errors import EntryDamaged, LogLost, StorageCorrupt, UnknownEntryKind
from quorumlog.node.storage.entry import decode_header, encode_entry
from quorumlog.node.storage.group_log import GroupLog, forget_log
from quorumlog.node.storage.group_read import find_damage, find_offset, read_records, walk
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import IndexRow, MetaRow, group_range, index_key, log_key, meta_key, state_key
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.votes import put_hard_state
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import header_for, pack_stored
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import Entry, EntryKind, HardState, LogIndex, NodeId, Term

GROUP = 7


def entry(index: int, *, term: int = 1, offset: int = 0, count: int = 1) -> Entry:
    kind = EntryKind.RECORDS if count else EntryKind.NOOP
    payload = pack_stored(header_for(count, first_timestamp_ms=index), b"") if count else b""
    data = encode_entry(kind, GROUP, index, term, offset, count, index, payload, crc32c(payload))
    return Entry(LogIndex(index), Term(term), kind, data)


def records(first: int, last: int, *, term: int = 1) -> list[Entry]:
    """One record each: the offset is the index - 1."""
    return [entry(index, term=term, offset=index - 1) for index in range(first, last + 1)]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def append(storage: MemoryStorage, log: GroupLog, entries: Sequence[Entry]) -> None:
    batch = storage.new_batch()
    log.append(batch, entries)
    storage.write(batch)


def mend(storage: MemoryStorage, log: GroupLog, entries: Sequence[Entry]) -> list[int]:
    batch = storage.new_batch()
    mended = log.mend(batch, entries)
    storage.write(batch)
    return list(mended)


@pytest.fixture
def storage() -> MemoryStorage:
    """A log of 300 entries, term 1 up to 200 and then term 3."""
    storage = MemoryStorage()
    append(storage, GroupLog(storage, GROUP), records(1, 200) + records(201, 300, term=3))
    return storage


@pytest.fixture
def log(storage: MemoryStorage) -> GroupLog:
    """The same with nothing in memory."""
    return GroupLog(storage, GROUP, tail_bytes_max=0)


def read_one(log: GroupLog, index: int) -> Entry:
    return log.entries(LogIndex(index), LogIndex(index), 1)[0]


# --- what is met while reading ---


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (None, "entry 150 of group 7 is damaged .*missing"),
        (b"x", "entry 150 of group 7 is damaged .*1 bytes"),
        (flipped(entry(150, offset=149).data), "payload checksum of entry 150 of group 7"),
        (entry(151, offset=150).data, "asked for entry 150 of group 7, found entry 151"),
        (entry(150, offset=7).data, "term 1 and offset 7 do not follow entry 149"),
        (entry(150, offset=149, term=0).data, "term 0 and offset 149 do not follow entry 149 of term 1"),
    ],
)
def test_a_damaged_entry_is_named_and_all_around_it_is_served(
    storage: MemoryStorage, log: GroupLog, damage: bytes | None, message: str
) -> None:
    storage.damage(Family.LOG, log_key(GROUP, 150), damage)
    assert [e.index for e in log.entries(LogIndex(148), LogIndex(160), 1 << 20)] == [148, 149]
    with pytest.raises(EntryDamaged, match=message) as caught:
        list(walk(storage, GROUP, 149, 151))
    assert (caught.value.group_id, caught.value.index) == (GROUP, 150)
    assert [e.index for e in read_records(storage, log.plan_read(147, 300, 1 << 20))] == [148, 149]
    assert [e.index for e in read_records(storage, log.plan_read(150, 152, 1 << 20))] == [151, 152]
    assert log.locate(148) == 149
    assert log.locate(150) == 151
    assert log.term(LogIndex(150)) == 1
    assert log.last_index() == 300


@pytest.mark.parametrize("damage", [None, b"x", flipped(entry(150, offset=149).data)])
def test_a_read_of_what_is_damaged_raises_and_notes_it(
    storage: MemoryStorage, log: GroupLog, damage: bytes | None
) -> None:
    storage.damage(Family.LOG, log_key(GROUP, 150), damage)
    assert not log.is_damaged(LogIndex(150))
    with pytest.raises(EntryDamaged, match="entry 150 of group 7"):
        read_one(log, 150)
    assert log.damaged == {150}
    with pytest.raises(EntryDamaged, match="entry 150"):
        read_records(storage, log.plan_read(149, 300, 1 << 20))
    with pytest.raises(EntryDamaged, match="entry 150"):
        log.locate(149)
    with pytest.raises(EntryDamaged, match="entry 150"):
        log.locate_time(150)


def test_a_damaged_entry_known_to_hold_no_records_hides_none() -> None:
    storage = MemoryStorage()
    log = GroupLog(storage, GROUP, tail_bytes_max=0)
    append(storage, log, [*records(1, 5), entry(6, offset=5, count=0), entry(7, offset=5), entry(8, offset=6)])
    append(storage, log, [entry(9, offset=7)])
    storage.damage(Family.LOG, log_key(GROUP, 6), None)
    plan = log.plan_read(5, 8, 1 << 20)
    assert [e.index for e in read_records(storage, plan)] == [7, 8, 9]
    assert find_offset(storage, GROUP, 1, 9, 5) == 7


def test_damage_above_the_limit_of_a_read_does_not_concern_it(storage: MemoryStorage, log: GroupLog) -> None:
    for index in range(151, 301):
        storage.damage(Family.LOG, log_key(GROUP, index), None)
    assert [e.index for e in read_records(storage, log.plan_read(148, 150, 1 << 20))] == [149, 150]
    assert read_records(storage, log.plan_read(150, 150, 1 << 20)) == []


def test_damage_is_looked_for_around_what_was_met(storage: MemoryStorage) -> None:
    for index in (100, 101, 102, 200):
        storage.damage(Family.LOG, log_key(GROUP, index), b"")
    assert find_damage(storage, GROUP, 1, 300) == [100, 101, 102, 200]


def test_an_unknown_kind_is_no_damage_and_stops_the_reader(storage: MemoryStorage, log: GroupLog) -> None:
    data = bytearray(entry(150, offset=149).data)
    data[1] = 77
    data[56:60] = crc32c(bytes(data[:56])).to_bytes(4, "big")
    storage.damage(Family.LOG, log_key(GROUP, 150), bytes(data))
    with pytest.raises(UnknownEntryKind, match="kind 77"):
        read_one(log, 150)
    assert log.damaged == frozenset()


# --- opening ---


@pytest.mark.parametrize("damage", [None, b"x", flipped(entry(298, offset=297, term=3).data)])
@pytest.mark.parametrize("indexes", [(300,), (298,), (1,), (299, 300), range(250, 301), range(1, 301)])
def test_a_log_opens_whatever_happened_to_its_entries(
    storage: MemoryStorage, indexes: Sequence[int], damage: bytes | None
) -> None:
    before = GroupLog(storage, GROUP)
    for index in indexes:
        storage.damage(Family.LOG, log_key(GROUP, index), damage)
    log = GroupLog(storage, GROUP)
    assert (log.first_index(), log.last_index()) == (1, 300)
    assert (log.log_end_offset, log.size_bytes) == (300, before.size_bytes)
    assert (log.max_timestamp_ms, log.last_append_time_ms) == (300, 300)
    assert [log.term(LogIndex(index)) for index in (1, 200, 201, 300)] == [1, 1, 3, 3]
    assert log.epoch_end_offset(2) == (1, 200)
    assert log.damaged, "those at the end are noticed at once"
    for index in range(1, 301):
        if index in indexes:
            with pytest.raises(EntryDamaged, match=f"entry {index} of group"):
                read_one(log, index)
        else:
            assert read_one(log, index).index == index
    assert log.damaged == set(indexes)


def test_entries_go_on_behind_a_damaged_end(storage: MemoryStorage) -> None:
    for index in range(280, 301):
        storage.damage(Family.LOG, log_key(GROUP, index), b"")
    log = GroupLog(storage, GROUP)
    append(storage, log, records(301, 500, term=4))
    for reopened in (log, GroupLog(storage, GROUP)):
        assert (reopened.last_index(), reopened.log_end_offset) == (500, 500)
        assert reopened.locate(300) == 301
        assert reopened.locate_time(400) == 400
        assert find_offset(storage, GROUP, 1, 500, 450) == 451


def test_an_entry_of_a_term_that_is_not_its_indexs_is_damaged(storage: MemoryStorage) -> None:
    """Such an entry is intact: it stood there before it was cut away."""
    storage.damage(Family.LOG, log_key(GROUP, 300), entry(300, term=2, offset=299).data)
    log = GroupLog(storage, GROUP)
    assert log.damaged == {300}
    assert log.term(LogIndex(300)) == 3


@pytest.mark.parametrize("family_rows", [IndexRow.EPOCH, IndexRow.SPARSE])
@pytest.mark.parametrize("value", [None, b"short", bytes(16), bytes(32)])
def test_index_rows_are_made_again_from_the_entries(
    storage: MemoryStorage, family_rows: IndexRow, value: bytes | None
) -> None:
    rows = storage.scan(Family.INDEX, index_key(GROUP, family_rows, 0), index_key(GROUP, family_rows, 1 << 60))
    assert len(rows) in (2, 4)
    for key, _ in rows[1:]:
        storage.damage(Family.INDEX, key, value)
    for _ in range(2):
        log = GroupLog(storage, GROUP, tail_bytes_max=0)
        assert log.damaged == frozenset()
        assert [log.term(LogIndex(index)) for index in (1, 200, 201, 300)] == [1, 1, 3, 3]
        assert log.epoch_end_offset(2) == (1, 200)
        assert [log.locate(offset) for offset in (0, 100, 199, 299)] == [1, 101, 200, 300]
        assert [log.locate_time(time) for time in (1, 150, 300)] == [1, 150, 300]
        append(storage, log, records(log.last_index() + 1, log.last_index() + 1, term=3))
    if family_rows is IndexRow.EPOCH:
        again = storage.scan(Family.INDEX, index_key(GROUP, family_rows, 0), index_key(GROUP, family_rows, 1 << 60))
        assert again == rows


def test_a_milestone_that_lies_is_passed_over_by_reads(storage: MemoryStorage, log: GroupLog) -> None:
    key = index_key(GROUP, IndexRow.SPARSE, 129)
    value = storage.get(Family.INDEX, key)
    assert value is not None
    storage.damage(Family.INDEX, key, (100).to_bytes(8, "big") + value[8:])
    for offset in range(300):
        assert log.locate(offset) == offset + 1
        found = read_records(storage, log.plan_read(offset, offset + 3, 1 << 20))
        assert [e.index for e in found] == list(range(offset + 1, min(offset + 4, 301)))


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        (MetaRow.PREFIX, None, "PREFIX row is gone"),
        (MetaRow.PREFIX, bytes(48), "begins at entry 0"),
        (MetaRow.PREFIX, b"short", "PREFIX row has 5 bytes"),
        (MetaRow.LAST, b"short", "LAST row has 5 bytes"),
        (MetaRow.LAST, "first append", "entry 11 stands behind its last one"),
    ],
)
def test_a_log_of_unknown_shape_is_lost_and_says_which_it_is(
    row: MetaRow, value: bytes | str | None, message: str
) -> None:
    storage = MemoryStorage()
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 10))
    key = meta_key(GROUP, row)
    if isinstance(value, str):
        value = storage.get(Family.META, key)
    append(storage, log, records(11, 300))
    storage.damage(Family.META, key, value)
    with pytest.raises(LogLost, match=message) as caught:
        GroupLog(storage, GROUP)
    assert caught.value.group_id == GROUP
    assert isinstance(caught.value, StorageCorrupt)


def test_a_log_is_lost_where_nobody_knows_in_which_entry_a_term_began(storage: MemoryStorage) -> None:
    storage.damage(Family.INDEX, index_key(GROUP, IndexRow.EPOCH, 201), None)
    storage.damage(Family.LOG, log_key(GROUP, 201), None)
    with pytest.raises(LogLost, match="term table is damaged"):
        GroupLog(storage, GROUP)


@pytest.mark.parametrize("upto", [0, 100, 250])
def test_a_log_that_an_earlier_release_wrote_opens_and_goes_on(upto: int) -> None:
    """It had no row for the end, and none for the beginning until it was first cut."""
    storage = MemoryStorage()
    log = GroupLog(storage, GROUP)
    append(storage, log, records(1, 200) + records(201, 300, term=3))
    batch = storage.new_batch()
    log.compact(batch, LogIndex(upto))
    storage.write(batch)
    storage.damage(Family.META, meta_key(GROUP, MetaRow.LAST), None)
    if not upto:
        storage.damage(Family.META, meta_key(GROUP, MetaRow.PREFIX), None)
    log = GroupLog(storage, GROUP)
    assert (log.first_index(), log.last_index(), log.log_end_offset) == (upto + 1, 300, 300)
    append(storage, log, records(301, 301, term=3))
    storage.damage(Family.LOG, log_key(GROUP, 300), None)
    assert GroupLog(storage, GROUP).damaged == {300}


def test_nothing_may_be_damaged_at_the_end_of_a_log_without_a_row_for_it(storage: MemoryStorage) -> None:
    storage.damage(Family.META, meta_key(GROUP, MetaRow.LAST), None)
    storage.damage(Family.LOG, log_key(GROUP, 299), None)
    with pytest.raises(LogLost, match="entry 299"):
        GroupLog(storage, GROUP)


def test_a_replica_whose_log_is_lost_begins_anew_with_its_vote() -> None:
    storage = MemoryStorage()
    for group_id in (GROUP, GROUP + 1):
        batch = storage.new_batch()
        for row in (MetaRow.REPLICA, MetaRow.WHOLE, MetaRow.COMMIT_HINT, MetaRow.CONFIGURATIONS):
            batch.put(Family.META, meta_key(group_id, row), b"row")
        put_hard_state(batch, group_id, HardState(Term(5), NodeId(2)))
        batch.put(Family.STATE, state_key(group_id, 100), b"state")
        storage.write(batch)
    append(storage, GroupLog(storage, GROUP), records(1, 300))
    storage.damage(Family.META, meta_key(GROUP, MetaRow.LAST), b"")
    batch = storage.new_batch()
    forget_log(batch, GROUP)
    storage.write(batch)
    log = GroupLog(storage, GROUP)
    assert (log.first_index(), log.last_index()) == (1, 0)
    append(storage, log, records(1, 5, term=9))
    assert GroupLog(storage, GROUP).last_index() == 5
    left = [row for row in MetaRow if storage.get(Family.META, meta_key(GROUP, row)) is not None]
    assert left == [MetaRow.HARD_STATE, MetaRow.PREFIX, MetaRow.REPLICA, MetaRow.LAST]
    assert storage.scan(Family.STATE, *group_range(GROUP)) == []
    assert storage.get(Family.STATE, state_key(GROUP + 1, 100)) == b"state"
    assert storage.get(Family.META, meta_key(GROUP + 1, MetaRow.WHOLE)) == b"row"


# --- mending ---


def test_entries_of_a_peer_take_the_place_of_damaged_ones(storage: MemoryStorage, log: GroupLog) -> None:
    original = {e.index: e for e in records(1, 200) + records(201, 300, term=3)}
    for index in (100, 101, 102, 300):
        storage.damage(Family.LOG, log_key(GROUP, index), b"")
        log.note_damage(LogIndex(index))
    batch = storage.new_batch()
    assert log.mend(batch, [original[LogIndex(index)] for index in (300, 101, 100, 102)]) == [100, 101, 102, 300]
    assert log.damaged == frozenset()
    assert [read_one(log, index) for index in (100, 102)] == [original[LogIndex(100)], original[LogIndex(102)]]
    assert [e.index for e in log.entries(LogIndex(98), LogIndex(110), 1 << 20)] == [98, 99], "up to the open batch"
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert reopened.damaged == frozenset()
        assert [found for _, found in walk(storage, GROUP, 1, 300)] == list(original.values())
        assert read_one(reopened, 101) == original[LogIndex(101)]


def test_what_does_not_fit_is_refused_and_stays_damaged(storage: MemoryStorage, log: GroupLog) -> None:
    storage.damage(Family.LOG, log_key(GROUP, 200), b"")
    log.note_damage(LogIndex(200))
    sound = entry(200, offset=199)
    others = [
        replace(sound, data=flipped(sound.data)),
        entry(200, offset=199, term=2),
        replace(entry(200, offset=199, term=2), term=Term(1)),
        entry(200, offset=198),
        entry(200, offset=199, count=2),
        replace(entry(201, offset=200), index=LogIndex(200)),
    ]
    for other in others:
        assert mend(storage, log, [other]) == []
        assert log.is_damaged(LogIndex(200))
    assert mend(storage, log, [entry(199, offset=198), sound, entry(400, offset=399)]) == [199, 200]


def test_a_neighbour_that_contradicts_is_damaged_itself(storage: MemoryStorage, log: GroupLog) -> None:
    """Both are intact; the one with the peer's agreement on index and term is right."""
    storage.damage(Family.LOG, log_key(GROUP, 149), entry(149, offset=148, count=2).data)
    log.note_damage(LogIndex(150))
    assert mend(storage, log, [entry(150, offset=149)]) == []
    assert log.damaged == {149, 150}
    assert mend(storage, log, [entry(149, offset=148), entry(150, offset=149)]) == [149, 150]


def test_damage_outside_the_log_is_no_concern_of_it(storage: MemoryStorage, log: GroupLog) -> None:
    for index in (0, 301):
        log.note_damage(LogIndex(index))
    assert log.damaged == frozenset()
    for index in (10, 100, 290):
        log.note_damage(LogIndex(index))
    batch = storage.new_batch()
    log.compact(batch, LogIndex(50))
    log.truncate(batch, LogIndex(250))
    storage.write(batch)
    assert log.damaged == {100}
    batch = storage.new_batch()
    log.install(batch, log.snapshot_at(LogIndex(200)))
    storage.write(batch)
    assert log.damaged == frozenset()
    assert GroupLog(storage, GROUP).damaged == frozenset()


def test_cuts_beside_damage_take_the_offset_from_a_neighbour(storage: MemoryStorage, log: GroupLog) -> None:
    for index in (99, 249):
        storage.damage(Family.LOG, log_key(GROUP, index), b"")
    batch = storage.new_batch()
    log.compact(batch, LogIndex(99))
    log.truncate(batch, LogIndex(250))
    storage.write(batch)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert (reopened.first_index(), reopened.first_offset) == (100, 99)
        assert (reopened.last_index(), reopened.log_end_offset) == (249, 249)
        assert reopened.is_damaged(LogIndex(249))
    append(storage, log, [entry(250, offset=249, term=9)])
    assert GroupLog(storage, GROUP).locate(249) == 250


def test_a_cut_amid_damage_waits_until_it_is_mended(storage: MemoryStorage, log: GroupLog) -> None:
    for index in (249, 250):
        storage.damage(Family.LOG, log_key(GROUP, index), b"")
    batch = storage.new_batch()
    with pytest.raises(EntryDamaged, match="entry 249"):
        log.truncate(batch, LogIndex(250))
    with pytest.raises(EntryDamaged, match="entry 249"):
        log.compact(batch, LogIndex(249))
    assert batch.is_empty()
    log.note_damage(LogIndex(250))
    assert mend(storage, log, [entry(249, offset=248, term=3)]) == [249]
    batch = storage.new_batch()
    log.truncate(batch, LogIndex(250))
    storage.write(batch)
    assert (GroupLog(storage, GROUP).last_index(), log.damaged) == (249, frozenset())


# --- all of it at random ---


@settings(max_examples=150, print_blob=True)
@given(seed=st.integers(0, 1 << 32))
def test_any_damage_to_entries_and_index_rows_is_named_and_mended_or_the_log_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    storage = MemoryStorage()
    log = GroupLog(storage, GROUP)
    term, offset, written = 1, 0, []
    for index in range(1, rng.randrange(2, 260)):
        term += rng.random() < 0.02
        written.append(entry(index, term=term, offset=offset, count=rng.choice([0, 1, 3])))
        offset = decode_header(written[-1].data).next_offset
    append(storage, log, written)
    cut = rng.randrange(len(written)) if rng.random() < 0.3 else 0
    batch = storage.new_batch()
    log.compact(batch, LogIndex(cut))
    storage.write(batch)
    sound = {e.index: e for e in written[cut:]}

    for family in (Family.LOG, Family.INDEX):
        keys = [key for key, _ in storage.scan(family, *group_range(GROUP))]
        for key in rng.sample(keys, min(len(keys), rng.choice([0, 0, 1, 3, 30]))):
            value = storage.get(family, key)
            assert value is not None
            storage.damage(family, key, rng.choice([None, b"", value[:-1], flipped(value)]))

    try:
        log = GroupLog(storage, GROUP, tail_bytes_max=rng.choice([0, 1000, 1 << 20]))
    except LogLost:
        return  # a term table and an entry at which a term began
    ends = (log.first_index(), log.last_index(), log.log_end_offset)
    assert ends == (cut + 1, len(written), offset)
    damaged = set(find_damage(storage, GROUP, cut + 1, len(written)))
    for index, expected in sound.items():
        if index in damaged:
            with pytest.raises(EntryDamaged):
                read_one(log, index)
        else:
            assert read_one(log, index) == expected
        assert log.term(index) == expected.term
    assert log.damaged == damaged
    found_for = {
        wanted: e.index
        for e in sound.values()
        for wanted in range(decode_header(e.data).base_offset, decode_header(e.data).next_offset)
    }
    for wanted, index in rng.sample(sorted(found_for.items()), min(len(found_for), 40)):
        for look_up in (log.locate, lambda wanted: find_offset(storage, GROUP, cut + 1, len(written), wanted)):
            with nullcontext() if index not in damaged else pytest.raises(EntryDamaged):
                assert look_up(wanted) == index
    peer = [sound[index] for index in rng.sample(sorted(damaged), len(damaged))]
    assert mend(storage, log, peer) == sorted(damaged)
    for reopened in (log, GroupLog(storage, GROUP)):
        assert [found for _, found in walk(storage, GROUP, cut + 1, len(written))] == list(sound.values())
        assert reopened.damaged == frozenset()
        assert (reopened.first_index(), reopened.last_index(), reopened.log_end_offset) == ends


@pytest.mark.parametrize("index", [5, 200, 299, 300])
def test_a_log_begins_behind_a_snapshot_of_it_without_reading_what_is_damaged(
    storage: MemoryStorage, index: int
) -> None:
    for broken in (1, 4, 5, 198, 199, 200, 298, 299, 300):
        key = log_key(GROUP, broken)
        storage.damage(Family.LOG, key, flipped(storage.get(Family.LOG, key) or b""))
    log = GroupLog(storage, GROUP, tail_bytes_max=0)
    for broken in (1, 4, 5, 198, 199, 200, 298, 299, 300):
        log.note_damage(LogIndex(broken))
    term = log.term(LogIndex(index))
    assert term is not None
    snapshot = internal_pb2.GroupSnapshot(
        group_id=GROUP, index=index, term=term, next_offset=index, append_time_ms=index, max_timestamp_ms=index
    )
    batch = storage.new_batch()
    log.begin_behind(batch, snapshot)
    storage.write(batch)
    for one in (log, GroupLog(storage, GROUP, tail_bytes_max=0)):
        assert (one.first_index(), one.last_index()) == (index + 1, 300)
        assert (one.first_offset, one.log_end_offset) == (index, 300)
        assert one.term(LogIndex(index)) == term
        assert not [damaged for damaged in one.damaged if damaged <= index]
        assert index < 300 or one.size_bytes == 0

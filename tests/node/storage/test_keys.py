"""The keys: fixed bytes, and an order that follows the numbers in them."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.storage.keys import (
    NODE_WIDE,
    IndexRow,
    MetaRow,
    group_range,
    index_key,
    index_of_index_key,
    index_of_log_key,
    log_key,
    meta_key,
    state_key,
)

U64 = st.integers(0, 2**64 - 1)
GROUPS = st.integers(0, 2**64 - 2)


def test_the_bytes_of_keys_are_fixed() -> None:
    assert log_key(7, 42).hex() == "010000000000000007000000000000002a"
    assert index_key(7, IndexRow.SPARSE, 42).hex() == "01000000000000000701000000000000002a"
    assert index_key(7, IndexRow.EPOCH, 42).hex() == "01000000000000000702000000000000002a"
    assert state_key(7, 42, 3).hex() == "010000000000000007000000000000002a00000003"
    assert meta_key(7, MetaRow.HARD_STATE).hex() == "01000000000000000701"
    assert meta_key(7, MetaRow.COMMIT_HINT).hex() == "01000000000000000702"
    assert meta_key(7, MetaRow.PREFIX).hex() == "01000000000000000703"
    assert meta_key(7, MetaRow.REPLICA).hex() == "01000000000000000704"
    assert meta_key(NODE_WIDE, MetaRow.DATABASE_ID).hex() == "01000000000000000080"


@given(st.lists(st.tuples(GROUPS, U64), min_size=2, max_size=5))
def test_keys_order_by_group_and_index(positions: list[tuple[int, int]]) -> None:
    by_numbers = sorted(positions)
    assert sorted(log_key(*position) for position in positions) == [log_key(*position) for position in by_numbers]
    assert [index_of_log_key(log_key(*position)) for position in by_numbers] == [index for _, index in by_numbers]


@given(GROUPS, U64)
def test_an_index_row_tells_its_index(group_id: int, index: int) -> None:
    assert index_of_index_key(index_key(group_id, IndexRow.EPOCH, index)) == index


@given(GROUPS, GROUPS, U64)
def test_a_groups_range_holds_its_keys_and_no_others(group_id: int, other: int, index: int) -> None:
    start, end_exclusive = group_range(group_id)
    makers: tuple[Callable[[int], bytes], ...] = (
        lambda group: log_key(group, index),
        lambda group: index_key(group, IndexRow.SPARSE, index),
        lambda group: state_key(group, index),
        lambda group: meta_key(group, MetaRow.REPLICA),
    )
    for maker in makers:
        assert start <= maker(group_id) < end_exclusive
        assert (start <= maker(other) < end_exclusive) == (other == group_id)

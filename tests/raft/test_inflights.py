import pytest

from quorumlog.raft import LogIndex
from quorumlog.raft.inflights import Inflights


def has_room(window: Inflights) -> bool:
    return not window.full


def test_the_window_is_full_by_messages() -> None:
    window = Inflights(messages_max=2, size_bytes_max=100)
    window.add(LogIndex(3), 1)
    assert has_room(window)
    window.add(LogIndex(5), 1)
    assert not has_room(window)
    window.free_through(LogIndex(3))
    assert has_room(window)


def test_the_window_is_full_by_bytes_and_one_message_may_pass_the_limit() -> None:
    window = Inflights(messages_max=10, size_bytes_max=100)
    window.add(LogIndex(1), 99)
    assert has_room(window)
    window.add(LogIndex(2), 500)
    assert not has_room(window)
    assert (len(window), window.size_bytes) == (2, 599)


def test_an_acknowledgement_frees_everything_through_it() -> None:
    window = Inflights(messages_max=10, size_bytes_max=100)
    for index in (2, 4, 6):
        window.add(LogIndex(index), index)
    window.free_through(LogIndex(5))
    assert (len(window), window.size_bytes) == (1, 6)
    window.free_through(LogIndex(1))
    assert len(window) == 1
    window.clear()
    assert (len(window), window.size_bytes) == (0, 0)


def test_sending_beyond_the_limit_or_out_of_order_is_a_fault_of_ours() -> None:
    window = Inflights(messages_max=1, size_bytes_max=100)
    window.add(LogIndex(4), 1)
    with pytest.raises(AssertionError, match="beyond the inflight limit"):
        window.add(LogIndex(5), 1)
    wide = Inflights(messages_max=5, size_bytes_max=100)
    wide.add(LogIndex(4), 1)
    with pytest.raises(AssertionError, match="out of order"):
        wide.add(LogIndex(4), 1)

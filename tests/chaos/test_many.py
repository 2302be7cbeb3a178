"""Groups that sleep cost nothing: what passes between two nodes does not grow with them."""

from quorumlog.chaos.sim.many import compare


def test_idle_messages_stay_the_same_with_ten_times_the_groups() -> None:
    few, many = compare(5, 60)
    assert (few.groups, many.groups) == (6, 60)
    assert few.packets == many.packets
    assert few.messages == many.messages == 0.0

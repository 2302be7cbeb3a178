"""Moving replicas that exist: apart first, even second, and no more moves than it takes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.metadata.layout import Layout
from quorumlog.node.metadata.placement import PlacementNode

Sets = list[list[int]]


@st.composite
def layouts(draw: st.DrawFn, *, hosts: bool) -> tuple[list[PlacementNode], Sets]:
    """Nodes, perhaps several on a host, and partitions placed on them anyhow."""
    count = draw(st.integers(1, 7))
    names = st.sampled_from(["", "a", "b", "c"]) if hosts else st.just("")
    nodes = [PlacementNode(number, draw(names)) for number in range(1, count + 1)]
    replicas = st.lists(st.integers(1, count), min_size=1, max_size=min(3, count), unique=True)
    return nodes, draw(st.lists(replicas, max_size=20))


def loads(nodes: list[PlacementNode], sets: Sets) -> list[int]:
    counts = Counter(node_id for chosen in sets for node_id in chosen)
    return [counts[node.node_id] for node in nodes]


def moves(before: Sets, after: Sets) -> int:
    return sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))


def crowded(nodes: list[PlacementNode], chosen: list[int]) -> int:
    hosts = Counter(next(node.host_key for node in nodes if node.node_id == one) for one in chosen)
    return sum(count * (count - 1) // 2 for count in hosts.values())


def evened(nodes: list[PlacementNode], sets: Sets) -> Sets:
    layout = Layout(nodes, sets)
    layout.even(range(len(sets)))
    return layout.sets


@given(layouts(hosts=False))
def test_equal_nodes_end_even_after_as_few_moves_as_there_can_be(drawn: tuple[list[PlacementNode], Sets]) -> None:
    nodes, before = drawn
    after = evened(nodes, before)
    assert max(loads(nodes, after)) - min(loads(nodes, after)) <= 1
    floor, rest = divmod(sum(loads(nodes, before)), len(nodes))
    too_much = sum(max(0, load - floor - (rest > 0)) for load in loads(nodes, before))
    too_little = sum(max(0, floor - load) for load in loads(nodes, before))
    assert moves(before, after) == max(too_much, too_little)


@given(layouts(hosts=True))
def test_evening_out_keeps_the_number_of_replicas_and_ends_apart(drawn: tuple[list[PlacementNode], Sets]) -> None:
    nodes, before = drawn
    after = evened(nodes, before)
    hosts = len({node.host_key for node in nodes})
    for old, new in zip(before, after, strict=True):
        assert len(set(new)) == len(new) == len(old)
        if len(new) <= hosts:
            assert crowded(nodes, new) == 0, "there was a host for each"


@given(layouts(hosts=True))
def test_what_is_even_is_left_alone(drawn: tuple[list[PlacementNode], Sets]) -> None:
    nodes, before = drawn
    once = evened(nodes, before)
    assert evened(nodes, once) == once


@given(layouts(hosts=False))
def test_preferred_leaders_end_as_even_as_the_replicas_allow(drawn: tuple[list[PlacementNode], Sets]) -> None:
    nodes, before = drawn
    after = evened(nodes, before)
    leaders = Counter(chosen[0] for chosen in after)
    for chosen in after:
        assert all(leaders[chosen[0]] <= leaders[one] + 1 for one in chosen), "one more exchange would even it out"


@given(layouts(hosts=True), st.data())
def test_an_emptied_node_ends_with_nothing_where_others_have_room(
    drawn: tuple[list[PlacementNode], Sets], data: st.DataObject
) -> None:
    nodes, before = drawn
    emptied = data.draw(st.sampled_from(nodes)).node_id
    layout = Layout([PlacementNode(one.node_id, one.host, fit=one.node_id != emptied) for one in nodes], before)
    for number, chosen in enumerate(before):
        if emptied in chosen:
            room = len(chosen) < len(nodes)
            assert layout.evict(number, emptied) == room
    for old, new in zip(before, layout.sets, strict=True):
        assert len(new) == len(old)
        assert emptied not in new or len(old) == len(nodes)
        assert len(set(new) - set(old)) == (emptied in old and emptied not in new), "only what was on it moves"
        if old[0] != emptied:
            assert new[0] == old[0], "a preferred leader that stays stays one"


def test_the_last_missing_replica_goes_where_least_is_and_never_beside_another_on_a_host() -> None:
    nodes = [PlacementNode(1, "a"), PlacementNode(2, "a"), PlacementNode(3, "b"), PlacementNode(4, "c", fit=False)]
    layout = Layout(nodes, [[1], [3], [3]])
    assert layout.add(0)
    assert layout.sets[0] == [1, 3], "node 2 has nothing, but is on the same host; node 4 takes nothing"
    assert layout.add(0, barred=[])
    assert layout.sets[0] == [1, 3, 2]
    assert not layout.add(0)


def test_a_barred_node_is_passed_over() -> None:
    layout = Layout([PlacementNode(1), PlacementNode(2), PlacementNode(3)], [[1]])
    assert layout.add(0, barred=[2])
    assert layout.sets == [[1, 3]]


def test_the_replica_that_leads_least_leads_when_the_preferred_leader_goes() -> None:
    layout = Layout([PlacementNode(1), PlacementNode(2), PlacementNode(3)], [[1, 2, 3], [2, 3]])
    layout.drop(0, 1)
    assert layout.sets[0] == [3, 2]

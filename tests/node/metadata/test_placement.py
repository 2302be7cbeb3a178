"""Placement: apart first, even second. Against rules that can be read, and against all placements of small clusters."""

import itertools
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.metadata.placement import PlacementNode, place


@st.composite
def clusters(draw: st.DrawFn) -> list[PlacementNode]:
    count = draw(st.integers(1, 8))
    hosts = draw(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=count, max_size=count))
    racks = {host: draw(st.sampled_from(["", "r1", "r2", "r3"])) for host in "abcd"}
    return [PlacementNode(number + 1, host, racks.get(host, "")) for number, host in enumerate(hosts)]


def spread(counts: Counter[int], nodes: list[PlacementNode]) -> int:
    values = [counts[node.node_id] for node in nodes]
    return max(values) - min(values)


@given(nodes=clusters(), partitions=st.integers(1, 20), data=st.data())
def test_never_two_replicas_on_a_host_while_another_has_room(
    nodes: list[PlacementNode], partitions: int, data: st.DataObject
) -> None:
    replicas = data.draw(st.integers(1, len(nodes)))
    by_id = {node.node_id: node for node in nodes}
    for placed in place(nodes, partitions, replicas, random.Random(1)):
        assert len(set(placed)) == replicas == len(placed)
        used = Counter(by_id[node_id].host_key for node_id in placed)
        for other in nodes:
            if other.node_id not in placed:
                assert used[other.host_key] >= max(used.values()) - 1, f"{placed} crowds a host while {other} is free"


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000), st.data())
def test_replicas_and_leaders_are_even_on_equal_nodes(
    count: int, partitions: int, seed: int, data: st.DataObject
) -> None:
    nodes = [PlacementNode(node_id) for node_id in range(1, count + 1)]
    replicas = data.draw(st.integers(1, count))
    placed = place(nodes, partitions, replicas, random.Random(seed))
    assert spread(Counter(node_id for replicas in placed for node_id in replicas), nodes) <= 1
    assert spread(Counter(replicas[0] for replicas in placed), nodes) <= 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=6), st.integers(0, 1000))
def test_what_nodes_have_already_counts(load: list[tuple[int, int]], seed: int) -> None:
    nodes = [PlacementNode(number + 1, "", "", *counts) for number, counts in enumerate(load)]
    replicas = Counter({node.node_id: node.replicas for node in nodes})
    leaders = Counter({node.node_id: node.leaders for node in nodes})
    for chosen in place(nodes, 100, 1, random.Random(seed)):
        replicas.update(chosen)
        leaders[chosen[0]] += 1
    assert spread(replicas, nodes) <= 1


def squares(placements: list[tuple[int, ...]]) -> int:
    return sum(count * count for count in Counter(itertools.chain.from_iterable(placements)).values())


@given(clusters().filter(lambda nodes: len(nodes) <= 4), st.integers(1, 3), st.data())
def test_no_placement_of_a_small_cluster_is_further_apart_and_no_leader_choice_more_even(
    nodes: list[PlacementNode], partitions: int, data: st.DataObject
) -> None:
    replicas = data.draw(st.integers(1, len(nodes)))
    by_id = {node.node_id: node for node in nodes}

    def crowded(chosen: tuple[int, ...]) -> int:
        return sum(by_id[one].host_key == by_id[two].host_key for one, two in itertools.combinations(chosen, 2))

    placed = place(nodes, partitions, replicas, random.Random(5))
    best = min(crowded(chosen) for chosen in itertools.combinations(by_id, replicas))
    assert all(crowded(chosen) == best for chosen in placed)
    leaders_best = min(squares([(leader,) for leader in choice]) for choice in itertools.product(*placed))
    assert squares([(chosen[0],) for chosen in placed]) == leaders_best


def test_racks_are_kept_apart_where_given() -> None:
    nodes = [PlacementNode(number, f"h{number}", rack) for number, rack in enumerate("aaabbc", start=1)]
    racks = {node.node_id: node.rack for node in nodes}
    for chosen in place(nodes, 12, 3, random.Random(2)):
        assert sorted(racks[node_id] for node_id in chosen) == ["a", "b", "c"]


def test_one_machine_takes_all_replicas_when_there_is_no_other() -> None:
    nodes = [PlacementNode(number, "laptop") for number in (1, 2, 3)]
    assert all(sorted(chosen) == [1, 2, 3] for chosen in place(nodes, 4, 3, random.Random(1)))


def test_ties_are_broken_by_the_generator_alone() -> None:
    nodes = [PlacementNode(number) for number in range(1, 7)]
    assert place(nodes, 9, 2, random.Random(4)) == place(list(reversed(nodes)), 9, 2, random.Random(4))
    assert any(place(nodes, 1, 1, random.Random(seed)) != place(nodes, 1, 1, random.Random(0)) for seed in range(20))


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
    st.integers(1, 20),
    st.data(),
)
def test_nodes_that_are_not_fit_get_only_what_others_have_no_room_for(
    drawn: list[tuple[bool, int, int]], partitions: int, data: st.DataObject
) -> None:
    nodes = [
        PlacementNode(number + 1, "", "", replicas, leaders, fit)
        for number, (fit, replicas, leaders) in enumerate(drawn)
    ]
    fit = {node.node_id for node in nodes if node.fit}
    replicas = data.draw(st.integers(1, len(nodes)))
    for chosen in place(nodes, partitions, replicas, random.Random(3)):
        assert len(fit.intersection(chosen)) == min(len(fit), replicas)
        assert chosen[0] in fit or not fit

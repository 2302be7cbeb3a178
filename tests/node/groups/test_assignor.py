"""The assignor against rules that can be read, and against all assignments of small groups."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.groups.assignor import assign
from quorumlog.node.groups.topics import TopicPartition

TOPICS = [bytes([letter]) * 16 for letter in b"xyz"]
Assignment = dict[str, tuple[TopicPartition, ...]]


@st.composite
def situations(
    draw: st.DrawFn, members_max: int = 6, partitions_max: int = 7, equal: bool = False
) -> tuple[dict[str, list[bytes]], dict[bytes, int], Assignment]:
    """Subscriptions, partitions, and an earlier assignment that need not fit them."""
    counts = {
        topic: draw(st.integers(1, partitions_max)) for topic in draw(st.sets(st.sampled_from(TOPICS), min_size=1))
    }
    members = [f"m{number}" for number in range(draw(st.integers(1, members_max)))]
    some = st.lists(st.sampled_from(TOPICS), min_size=1, unique=True)
    shared = draw(some)
    subscriptions = {member: shared if equal else draw(some) for member in members}
    current: dict[str, list[TopicPartition]] = {member: [] for member in [*members, "gone"]}
    for topic in TOPICS:
        for number in range(partitions_max):
            owner = draw(st.sampled_from([None, *current]))
            if owner is not None:
                current[owner].append(TopicPartition(topic, number))
    return subscriptions, counts, {member: tuple(partitions) for member, partitions in current.items()}


def loads(assignment: Assignment) -> list[int]:
    return [len(partitions) for partitions in assignment.values()]


def kept(before: Assignment, after: Assignment) -> int:
    return sum(len(set(before.get(member, ())) & set(partitions)) for member, partitions in after.items())


@given(situations())
def test_every_partition_goes_to_exactly_one_subscriber(
    situation: tuple[dict[str, list[bytes]], dict[bytes, int], Assignment],
) -> None:
    subscriptions, counts, current = situation
    after = assign(subscriptions, counts, current)
    assert after.keys() == subscriptions.keys()
    for member, partitions in after.items():
        assert {partition.topic_id for partition in partitions} <= set(subscriptions[member])
    subscribed = set(itertools.chain.from_iterable(subscriptions.values()))
    wanted = [
        TopicPartition(topic, number) for topic in counts if topic in subscribed for number in range(counts[topic])
    ]
    assert sorted(itertools.chain.from_iterable(after.values())) == sorted(wanted)


@given(situations(equal=True))
def test_equal_subscriptions_are_within_one_of_each_other_and_nothing_moves_without_need(
    situation: tuple[dict[str, list[bytes]], dict[bytes, int], Assignment],
) -> None:
    subscriptions, counts, current = situation
    after = assign(subscriptions, counts, current)
    assert max(loads(after)) - min(loads(after)) <= 1
    # The most that can stay: each keeps up to the lower quota, and those that have more share the remainder.
    shared = next(iter(subscriptions.values()))
    valid = [
        sum(
            partition.topic_id in shared and partition.partition < counts.get(partition.topic_id, 0)
            for partition in had
        )
        for had in (current[member] for member in subscriptions)
    ]
    quota, remainder = divmod(sum(loads(after)), len(after))
    most = sum(min(had, quota) for had in valid) + min(remainder, sum(had > quota for had in valid))
    assert kept(current, after) == most


@given(situations(members_max=3, partitions_max=2))
def test_no_assignment_of_a_small_group_is_more_even(
    situation: tuple[dict[str, list[bytes]], dict[bytes, int], Assignment],
) -> None:
    subscriptions, counts, current = situation
    after = assign(subscriptions, counts, current)
    choices = [
        [member for member, topics in subscriptions.items() if topic in topics]
        for topic, count in counts.items()
        for _ in range(count)
    ]
    possible = itertools.product(*(choice for choice in choices if choice))
    best = min(sum(load * load for load in Counter(choice).values()) for choice in possible)
    assert sum(load * load for load in loads(after)) == best


@given(situations())
def test_assigning_again_moves_nothing(situation: tuple[dict[str, list[bytes]], dict[bytes, int], Assignment]) -> None:
    subscriptions, counts, current = situation
    after = assign(subscriptions, counts, current)
    assert assign(subscriptions, counts, after) == after


@given(situations())
def test_the_order_in_which_things_are_told_does_not_matter(
    situation: tuple[dict[str, list[bytes]], dict[bytes, int], Assignment],
) -> None:
    subscriptions, counts, current = situation
    mirrored = assign(
        {member: list(reversed(topics)) for member, topics in reversed(subscriptions.items())},
        dict(reversed(counts.items())),
        {member: tuple(reversed(partitions)) for member, partitions in reversed(current.items())},
    )
    assert mirrored == assign(subscriptions, counts, current)


def test_a_chain_of_moves_is_found_across_subscriptions() -> None:
    x, y, z = TOPICS
    # `a` can give only x, to `b`; `b` can give only y, to `c`.
    after = assign({"a": [x], "b": [x, y], "c": [y, z]}, {x: 3, y: 3}, {"a": (), "b": (), "c": ()})
    assert sorted(loads(after)) == [2, 2, 2]
    grown = assign(
        {"a": [x], "b": [x, y], "c": [y]}, {x: 4, y: 2}, {"a": tuple(TopicPartition(x, n) for n in range(4))}
    )
    assert grown["a"] == tuple(TopicPartition(x, n) for n in (0, 1))
    assert grown["b"] == (TopicPartition(x, 2), TopicPartition(x, 3))
    assert len(grown["c"]) == 2


def test_a_hundred_members_share_a_thousand_partitions_after_one_had_them_all() -> None:
    x = TOPICS[0]
    everything = {"m0": tuple(TopicPartition(x, number) for number in range(1000))}
    after = assign({f"m{number}": [x] for number in range(100)}, {x: 1000}, everything)
    assert set(loads(after)) == {10}
    assert kept(everything, after) == 10

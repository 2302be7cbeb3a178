"""How the wish where a partition's replicas shall be may change. Pure: a partition in, a partition or a refusal out.

A wish names incarnations, because a node that lost its folder has promised nothing yet: it must never be taken for what
it was. So a node id that the group may still know under an earlier incarnation is placed again only after the group has
settled without that one, and a replica that stays keeps the entry that placed it, by which its node knows that it must
be there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from quorumlog.node.metadata.topics import Node, Partition, PlacedReplica


def changed(
    partition: Partition, replicas: Sequence[int], replicas_wanted: int, nodes: Mapping[int, Node], index: int
) -> Partition | str:
    """Return the partition with a new wish, or why that cannot be.

    Args:
        partition: as it is.
        replicas: node ids, the preferred leader first.
        replicas_wanted: 0: as many as before.
        nodes: the members.
        index: of the entry of `__cluster` that says so.
    """
    if (why := refusal(partition, replicas, nodes)) is not None:
        return why
    held = {one.node_id: one for one in (*partition.leaving, *partition.placed)}
    placed = tuple(
        held.get(node_id) or PlacedReplica(node_id, nodes[node_id].incarnation, index) for node_id in replicas
    )
    return replace(
        partition,
        placed=placed,
        leaving=tuple(one for one in (*partition.leaving, *partition.placed) if one not in placed),
        placement_version=partition.placement_version + 1,
        settled=False,
        replicas_wanted=replicas_wanted or partition.replicas_wanted,
    )


def refusal(partition: Partition, replicas: Sequence[int], nodes: Mapping[int, Node]) -> str | None:
    """Return why the wish cannot become `replicas` now; None when it can."""
    if not replicas or len(set(replicas)) != len(replicas):
        return f"{list(replicas)} is not one replica each on at least one node"
    if strangers := [node_id for node_id in replicas if node_id not in nodes]:
        return f"{list(replicas)} names unknown nodes {strangers}"
    if partition.placement_version == 0 and not partition.settled:
        return "its group has not yet committed for the first time, so it must stay where it was created"
    for one in (*partition.placed, *partition.leaving):
        if one.node_id in replicas and nodes[one.node_id].incarnation != one.incarnation:
            return (
                f"its group may still count on node {one.node_id} as it was before it lost its data folder "
                f"(incarnation {one.incarnation.hex()}), and has to settle without that one first"
            )
    return None


def without(partition: Partition, node_id: int, incarnation: bytes) -> Partition | None:
    """Return the partition without the replica of an incarnation that is no more; None when it stays as it is.

    That is so where it has none there, where it would be left with none at all (nobody could take its group over), and
    before the first commit: until then only the replicas that its creation named make up the group.
    """
    gone = [one for one in partition.placed if (one.node_id, one.incarnation) == (node_id, incarnation)]
    rest = tuple(one for one in partition.placed if one not in gone)
    if not gone or not rest or (partition.placement_version == 0 and not partition.settled):
        return None
    return replace(
        partition,
        placed=rest,
        leaving=(*partition.leaving, *gone),
        placement_version=partition.placement_version + 1,
        settled=False,
    )


def settled(partition: Partition) -> Partition:
    """Return the partition after its group has settled: whoever was leaving has left."""
    return replace(partition, settled=True, leaving=())

"""The commands of `__cluster` by which nodes come and go, and by which the wishes where replicas shall be change.

Each is applied as `Catalogue.apply` demands: from the state and the command alone, and without a trace when refused.
"""

from __future__ import annotations

from dataclasses import replace

from quorumlog.node.metadata import wishes
from quorumlog.node.metadata.changes import CatalogueChange, Result, inconsistent, moved_on
from quorumlog.node.metadata.state import CatalogueState
from quorumlog.node.metadata.topics import ID_BYTES, HostedGroup, Node, Partition, hosted_group
from quorumlog.proto import internal_pb2


def admit_node(catalogue: CatalogueState, index: int, command: internal_pb2.AdmitNode) -> Result:
    """A node joins, or comes back as another incarnation, which takes what the earlier one held off it."""
    node = replace(Node.of(command.node), admitted_at_index=index)
    known = catalogue.nodes.get(node.node_id)
    if known is not None and known.incarnation == node.incarnation:
        return CatalogueChange(node=known)
    if node.node_id == 0 or len(node.incarnation) != ID_BYTES:
        return inconsistent(f"node {node.node_id} with incarnation {node.incarnation.hex()!r} is no node")
    if (known.incarnation if known is not None else b"") != command.replaced_incarnation:
        present = f"as {known.incarnation.hex()}" if known is not None else "not at all"
        replaced = command.replaced_incarnation.hex() or "none"
        return inconsistent(
            f"incarnation {node.incarnation.hex()} of node {node.node_id} shall replace {replaced}, but the "
            f"cluster knows the node {present}"
        )
    catalogue.nodes[node.node_id] = node
    catalogue.catalogue_version += 1
    if known is None:
        return CatalogueChange(node=node)
    others = tuple(voter for voter in catalogue.voters if voter != node.node_id)
    voters_changed = others != catalogue.voters and bool(others)
    if voters_changed:
        catalogue.set_voters(others)
    moved = _without(catalogue, known)
    return CatalogueChange(moved=moved, node=node, voters_changed=voters_changed)


def _without(catalogue: CatalogueState, old: Node) -> tuple[HostedGroup, ...]:
    """Take the replicas of an incarnation that is no more off the wish, and return the groups that had one."""
    moved: list[HostedGroup] = []
    for name in sorted(catalogue.topics):
        topic = catalogue.topics[name]
        partitions = [
            wishes.without(partition, old.node_id, old.incarnation) or partition for partition in topic.partitions
        ]
        changed = [new for new, before in zip(partitions, topic.partitions, strict=True) if new is not before]
        if changed:
            topic = replace(topic, partitions=tuple(partitions))
            catalogue.set_topic(topic)
            moved.extend(hosted_group(topic, partition) for partition in changed)
    return tuple(moved)


def remove_node(catalogue: CatalogueState, command: internal_pb2.RemoveNode) -> Result:
    """A node leaves for good."""
    if (stranger := catalogue.refuse_stranger(command.node_id, command.incarnation)) is not None:
        return stranger
    if (held := catalogue.held_by(command.node_id)) or command.node_id in catalogue.voters:
        what = f"replicas on it: {len(held)}" if held else "it votes in the metadata group"
        return inconsistent(f"node {command.node_id} cannot be removed: {what}")
    node = catalogue.nodes.pop(command.node_id)
    catalogue.draining.discard(command.node_id)
    catalogue.catalogue_version += 1
    return CatalogueChange(node=node)


def drain_node(catalogue: CatalogueState, command: internal_pb2.DrainNode) -> Result:
    """Nothing is placed on a node any more, or again."""
    if (stranger := catalogue.refuse_stranger(command.node_id, command.incarnation)) is not None:
        return stranger
    if command.draining != (command.node_id in catalogue.draining):
        catalogue.draining ^= {command.node_id}
        catalogue.catalogue_version += 1
    return CatalogueChange(node=catalogue.nodes[command.node_id])


def change_placement(catalogue: CatalogueState, index: int, command: internal_pb2.ChangePlacement) -> Result:
    """New wishes, all or none: the leader has evened them out together."""
    new: dict[int, Partition] = {}
    for wanted in command.groups:
        found = catalogue.partition_of(wanted.group_id)
        if found is None:
            return moved_on(f"group {wanted.group_id} belongs to no partition any more")
        if wanted.group_id in new:
            return inconsistent(f"group {wanted.group_id} is named twice")
        topic, partition = found
        name = f"partition {partition.partition} of topic {topic.name!r}"
        if wanted.placement_version != partition.placement_version:
            return moved_on(
                f"the placement of {name} went from version {wanted.placement_version} to {partition.placement_version}"
            )
        changed = wishes.changed(partition, wanted.replicas, wanted.replicas_wanted, catalogue.nodes, index)
        if isinstance(changed, str):
            return inconsistent(f"{name} cannot be placed: {changed}")
        new[wanted.group_id] = changed
    if not new:
        return inconsistent("no group is named whose placement shall change")
    for group_id, partition in new.items():
        catalogue.set_partition(group_id, partition)
    catalogue.catalogue_version += 1
    moved = tuple(group for group in map(catalogue.group, new) if group is not None)
    born = tuple(group for group in moved if any(one.placed_at_index == index for one in group.placed))
    return CatalogueChange(born=born, moved=moved)


def report_placement(catalogue: CatalogueState, command: internal_pb2.ReportPlacement) -> Result:
    """Groups have committed under configurations that are the wish, or for the first time at all."""
    moved: list[HostedGroup] = []
    for reported in command.groups:
        found = catalogue.partition_of(reported.group_id)
        if found is None or found[1].placement_version != reported.placement_version or found[1].settled:
            continue
        moved.append(catalogue.set_partition(reported.group_id, wishes.settled(found[1])))
    return CatalogueChange(moved=tuple(moved))


def change_voters(catalogue: CatalogueState, command: internal_pb2.ChangeVoters) -> Result:
    """Others shall vote in `__cluster`."""
    if command.voters_version != catalogue.voters_version:
        return moved_on(
            f"who votes in the metadata group went from version {command.voters_version} to {catalogue.voters_version}"
        )
    voters = tuple(sorted(command.voters))
    if not voters or len(set(voters)) != len(voters) or not catalogue.nodes.keys() >= set(voters):
        return inconsistent(f"{list(voters)} cannot vote in the metadata group: each must be a member, once")
    catalogue.set_voters(voters)
    return CatalogueChange(voters_changed=True)

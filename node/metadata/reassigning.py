"""What the leader of `__cluster` decides about replicas that exist: on request, and by itself.

By itself it fills up what has fewer replicas than wanted and empties nodes that are drained. It does not replace
replicas on a node that is merely down, however long: the node may come back with all it has, and a copy of everything
it holds is the dearest thing a cluster can do. An operator who knows better drains it.

Each decision names the placement versions it was based on; see decisions.py for what happens when they have moved on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from quorumlog.node.metadata import wishes
from quorumlog.node.metadata.decisions import INTERNAL_REPLICAS_MAX, REPLICAS_MAX
from quorumlog.node.metadata.layout import Layout
from quorumlog.node.metadata.placement import PlacementNode
from quorumlog.node.metadata.state import CatalogueState
from quorumlog.node.metadata.topics import CLUSTER_TOPIC, Partition, Topic
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from quorumlog.proto.errors import make_error


@dataclass(frozen=True, slots=True)
class Plan:
    """New wishes, as the command that writes them down and as it is told. Both are empty when nothing shall change."""

    groups: list[internal_pb2.GroupPlacement] = field(default_factory=list)
    changes: list[pb.PlacementChange] = field(default_factory=list)

    def add(self, topic: Topic, partition: Partition, replicas: Sequence[int], replicas_wanted: int = 0) -> None:
        """Add a partition. `replicas_wanted` 0: as many as before."""
        self.groups.append(
            internal_pb2.GroupPlacement(
                group_id=partition.group_id,
                replicas=replicas,
                placement_version=partition.placement_version,
                replicas_wanted=replicas_wanted,
            )
        )
        self.changes.append(
            pb.PlacementChange(
                topic=topic.name, partition=partition.partition, before=partition.replicas, after=replicas
            )
        )

    def first(self, groups_max: int | None) -> Plan:
        """Return as much of the plan as these groups are; None: all of it."""
        return Plan(self.groups[:groups_max], self.changes[:groups_max])

    @property
    def command(self) -> internal_pb2.ClusterCommand:
        """The command for `__cluster`; there must be something to change."""
        assert self.groups, "an empty plan is not proposed"
        return internal_pb2.ClusterCommand(change_placement=internal_pb2.ChangePlacement(groups=self.groups))


# ---------------------------------------------------------------------------------------------------------- on request


def reassign(
    catalogue: CatalogueState, placements: Sequence[pb.PartitionPlacement], unfit: Collection[int] = ()
) -> Plan | pb.Error:
    """Decide on replicas that are named one by one. The number named is the number wanted from then on.

    Errors: UNKNOWN_TOPIC, UNKNOWN_PARTITION, INVALID_REPLICATION (too many), NOT_YET_AVAILABLE (the partition cannot
    move just now), INVALID_REQUEST for everything else that cannot be.
    """
    plan = Plan()
    named: set[tuple[str, int]] = set()
    for wanted in placements:
        name = f"partition {wanted.partition} of topic {wanted.topic!r}"
        if (wanted.topic, wanted.partition) in named:
            return make_error(pb.INVALID_REQUEST, f"{name} is named twice", hint="name each partition once")
        named.add((wanted.topic, wanted.partition))
        found = _find(catalogue, wanted)
        if isinstance(found, pb.Error):
            return found
        topic, partition = found
        if tuple(wanted.replicas) == partition.replicas and len(wanted.replicas) == partition.replicas_wanted:
            continue
        refused = _refuse_nodes(catalogue, name, wanted.replicas, partition, unfit)
        if refused is not None:
            return refused
        plan.add(topic, partition, wanted.replicas, len(wanted.replicas))
    return plan


def _find(catalogue: CatalogueState, wanted: pb.PartitionPlacement) -> tuple[Topic, Partition] | pb.Error:
    topic = catalogue.topic(wanted.topic)
    if wanted.topic == CLUSTER_TOPIC:
        return make_error(
            pb.INVALID_REQUEST,
            f"the metadata group {CLUSTER_TOPIC} has a replica on every node",
            hint="its voters are chosen among the nodes by themselves; drain a node so that it does not vote",
        )
    if topic is None:
        return make_error(pb.UNKNOWN_TOPIC, f"topic {wanted.topic!r} does not exist")
    if wanted.partition >= len(topic.partitions):
        return make_error(
            pb.UNKNOWN_PARTITION,
            f"topic {topic.name!r} has partitions 0 to {len(topic.partitions) - 1}, not {wanted.partition}",
        )
    return topic, topic.partitions[wanted.partition]


def _refuse_nodes(
    catalogue: CatalogueState, name: str, replicas: Sequence[int], partition: Partition, unfit: Collection[int]
) -> pb.Error | None:
    if not replicas or len(set(replicas)) < len(replicas):
        return make_error(
            pb.INVALID_REQUEST, f"{name} is placed on {list(replicas)}", hint="name one node or more, each once"
        )
    if len(replicas) > REPLICAS_MAX:
        return make_error(
            pb.INVALID_REPLICATION, f"{name} is given {len(replicas)} replicas, and {REPLICAS_MAX} are the most"
        )
    members = ", ".join(map(str, sorted(catalogue.nodes)))
    for node_id in replicas:
        if node_id not in catalogue.nodes:
            return make_error(
                pb.INVALID_REQUEST,
                f"{name} is placed on node {node_id}, which is not a member",
                hint=f"the members are {members}; add a node with quorumlog cluster add PEER_ADDRESS",
            )
        if node_id in partition.replicas:
            continue
        if node_id in catalogue.draining:
            return make_error(
                pb.INVALID_REQUEST,
                f"{name} is placed on node {node_id}, which is being drained",
                hint=f"choose another node, or end that: quorumlog cluster drain {node_id} --end",
            )
        if node_id in unfit:
            return make_error(
                pb.INVALID_REQUEST,
                f"{name} is placed on node {node_id}, which is down or in repair",
                hint="choose another node, or bring it back first",
            )
    if (why := wishes.refusal(partition, replicas, catalogue.nodes)) is not None:
        return make_error(pb.NOT_YET_AVAILABLE, f"{name} cannot be moved to {list(replicas)} now: {why}")
    return None


def balance(catalogue: CatalogueState, unfit: Collection[int] = ()) -> Plan:
    """Decide how to even everything out, with as few moves as possible. Partitions that move already are left alone."""
    partitions = list(_partitions(catalogue))
    layout = Layout(_nodes(catalogue, unfit, catalogue.draining), [one.replicas for _, one in partitions])
    layout.even(
        [
            number
            for number, (_, partition) in enumerate(partitions)
            if partition.settled and not _earlier(catalogue, partition)
        ]
    )
    plan = Plan()
    for (topic, partition), replicas in zip(partitions, layout.sets, strict=True):
        if tuple(replicas) != partition.replicas:
            plan.add(topic, partition, replicas)
    return plan


def drain(
    catalogue: CatalogueState, node_id: int, *, end: bool = False, unfit: Collection[int] = ()
) -> tuple[internal_pb2.DrainNode, Plan] | pb.Error:
    """Decide on emptying a node, or on ending that; also what will be moved. INVALID_REQUEST when there is no room."""
    node = catalogue.nodes.get(node_id)
    if node is None:
        return unknown_node(catalogue, node_id)
    command = internal_pb2.DrainNode(node_id=node_id, incarnation=node.incarnation, draining=not end)
    if end:
        return command, Plan()
    draining = catalogue.draining | {node_id}
    if not catalogue.nodes.keys() - draining:
        return make_error(
            pb.INVALID_REQUEST,
            f"node {node_id} cannot be drained: no node would be left that takes its replicas",
            hint="add a node first: quorumlog cluster add PEER_ADDRESS",
        )
    whole = heal(catalogue, unfit, draining=draining)
    plan = Plan()
    for group, change in zip(whole.groups, whole.changes, strict=True):
        if node_id in change.before:
            plan.groups.append(group)
            plan.changes.append(change)
    leaving = {group.group_id for group in plan.groups if node_id not in group.replicas}
    for topic, partition in _partitions(catalogue):
        stays = node_id in partition.replicas and partition.group_id not in leaving
        later = _earlier(catalogue, partition) or (partition.placement_version == 0 and not partition.settled)
        if stays and not later:
            return _no_room(catalogue, node_id, topic, partition, unfit)
    return command, plan


def _no_room(
    catalogue: CatalogueState, node_id: int, topic: Topic, partition: Partition, unfit: Collection[int]
) -> pb.Error:
    closed = sorted({*unfit, *catalogue.draining} - {node_id} - set(partition.replicas))
    down = f" (nodes {', '.join(map(str, closed))} are down, in repair or being drained)" if closed else ""
    others = ",".join(str(one) for one in partition.replicas if one != node_id)
    fewer = f", or give it fewer replicas: quorumlog cluster reassign {topic.name} {partition.partition} --to {others}"
    return make_error(
        pb.INVALID_REQUEST,
        f"node {node_id} cannot be drained: no other node has room for its replica of partition {partition.partition} "
        f"of topic {topic.name!r}, which is on nodes {', '.join(map(str, sorted(partition.replicas)))}{down}",
        hint=f"add a node first: quorumlog cluster add PEER_ADDRESS{fewer if others else ''}",
    )


def admit(
    catalogue: CatalogueState, found: internal_pb2.NodeDescriptor, *, alive: bool
) -> internal_pb2.AdmitNode | pb.Error | None:
    """Decide on a node that waits, as it describes itself; None when it is in already.

    `alive`: whether a member of this node id is heard of. Then two nodes have the same id, and INVALID_REQUEST says so.
    """
    known = catalogue.nodes.get(found.node_id)
    if known is None:
        return internal_pb2.AdmitNode(node=found)
    if known.incarnation == found.incarnation:
        return None
    if alive:
        return make_error(
            pb.INVALID_REQUEST,
            f"a node waits at {found.peer_address} as node {found.node_id}, and a member of that id is up at "
            f"{known.peer_address}",
            hint="give every node a node_id of its own",
        )
    return internal_pb2.AdmitNode(node=found, replaced_incarnation=known.incarnation)


def remove(catalogue: CatalogueState, node_id: int) -> internal_pb2.RemoveNode | pb.Error:
    """Decide on taking a node out for good. INVALID_REQUEST while anything depends on it."""
    node = catalogue.nodes.get(node_id)
    if node is None:
        return unknown_node(catalogue, node_id)
    held = catalogue.held_by(node_id)
    if held or node_id in catalogue.voters:
        examples = ", ".join(f"{topic.name} partition {partition.partition}" for topic, partition in held[:3])
        more = f" and {len(held) - 3} more" if len(held) > 3 else ""
        what = f"it holds replicas ({examples}{more})" if held else "it votes in the metadata group"
        under_way = " and wait until it is empty" if node_id in catalogue.draining else ""
        return make_error(
            pb.INVALID_REQUEST,
            f"node {node_id} cannot be removed: {what}",
            hint=f"drain it first: quorumlog cluster drain {node_id}{under_way}",
        )
    return internal_pb2.RemoveNode(node_id=node_id, incarnation=node.incarnation)


def unknown_node(catalogue: CatalogueState, node_id: int) -> pb.Error:
    """Return the error for a node id that is no member's."""
    members = ", ".join(map(str, sorted(catalogue.nodes)))
    return make_error(pb.INVALID_REQUEST, f"node {node_id} is not a member", hint=f"the members are {members}")


# ----------------------------------------------------------------------------------------------------------- by itself


def heal(
    catalogue: CatalogueState,
    unfit: Collection[int] = (),
    *,
    draining: Collection[int] | None = None,
    groups_max: int | None = None,
) -> Plan:
    """Decide on what is not as it should be: replicas missing, on nodes that are drained, or of an earlier incarnation.

    Args:
        catalogue: as it is.
        unfit: nodes that are given nothing: gone, or in repair.
        draining: the nodes to empty; None: as the catalogue says.
        groups_max: no more groups than this; None: all.
    """
    emptied = catalogue.draining if draining is None else draining
    partitions = list(_partitions(catalogue))
    layout = Layout(_nodes(catalogue, unfit, emptied), [one.replicas for _, one in partitions])
    members = len(catalogue.nodes.keys() - set(emptied))
    plan = Plan()
    for number, (topic, partition) in enumerate(partitions):
        if groups_max is not None and len(plan.groups) >= groups_max:
            break
        if partition.placement_version == 0 and not partition.settled:
            continue  # its group has not committed yet
        wanted = _wanted(topic, partition, members)
        if earlier := _earlier(catalogue, partition):
            # Nothing else in the same step: the node may be placed again only when the group has settled without it.
            for node_id in earlier[: len(partition.replicas) - 1]:
                layout.drop(number, node_id)
        else:
            _empty(layout, number, partition, catalogue, emptied, wanted)
            while partition.settled and len(layout.sets[number]) < wanted and layout.add(number):
                pass
        if tuple(layout.sets[number]) != partition.replicas:
            plan.add(topic, partition, layout.sets[number], wanted if topic.internal else 0)
    return plan


def _empty(
    layout: Layout,
    number: int,
    partition: Partition,
    catalogue: CatalogueState,
    emptied: Collection[int],
    wanted: int,
) -> None:
    barred = [one.node_id for one in partition.leaving if one.incarnation != catalogue.nodes[one.node_id].incarnation]
    for node_id in partition.replicas:
        if node_id not in emptied:
            continue
        if len(layout.sets[number]) > wanted:
            layout.drop(number, node_id)
        else:
            layout.evict(number, node_id, barred)


def voters(catalogue: CatalogueState, me: int, unfit: Collection[int] = ()) -> internal_pb2.ChangeVoters | None:
    """Decide who shall vote in `__cluster`: 1, 3 or 5, the most that the nodes allow. None when it is as it should be.

    Stable: who votes goes on while it is a member that is not drained, even when it is down, because it may come back.
    Others are added only when they are fit, and none leaves before as many are there as there shall be.

    To be asked only while who votes in the group is who shall: otherwise a node might be given a vote again before the
    group has settled without the one that its earlier incarnation had.

    Args:
        catalogue: as it is.
        me: the node that decides: it votes, and keeps its vote where there are too many.
        unfit: nodes that are given nothing.
    """
    members = catalogue.nodes.keys() - catalogue.draining
    if not members:
        return None
    size = max(count for count in (1, 3, 5) if count <= len(members) or count == 1)
    staying = [voter for voter in catalogue.voters if voter in members]
    layout = Layout(_nodes(catalogue, unfit, catalogue.draining), [])
    while len(staying) < size and (target := layout.best(staying)) is not None:
        staying.append(target)
    if len(staying) < size:
        return None  # not now: fewer would be worse than those who vote already
    staying.sort(key=lambda voter: (voter != me, voter in unfit, voter))
    chosen = sorted(staying[:size])
    if tuple(chosen) == catalogue.voters:
        return None
    return internal_pb2.ChangeVoters(voters=chosen, voters_version=catalogue.voters_version)


# ------------------------------------------------------------------------------------------------------------- helpers


def moving(catalogue: CatalogueState) -> Iterator[tuple[Topic, Partition, int]]:
    """The partitions that are not yet as they shall be, with the number of replicas wanted: on their way, short of
    replicas, or with one on a node that is drained.
    """
    members = len(catalogue.nodes.keys() - catalogue.draining)
    for topic, partition in _partitions(catalogue):
        wanted = _wanted(topic, partition, members)
        on_its_way = partition.placement_version > 0 and not partition.settled
        drained = catalogue.draining.intersection(partition.replicas)
        if on_its_way or drained or len(partition.placed) < wanted or _earlier(catalogue, partition):
            yield topic, partition, wanted


def _wanted(topic: Topic, partition: Partition, members: int) -> int:
    """How many replicas there shall be; internal topics have as many as they may while nodes come and go."""
    return max(1, min(INTERNAL_REPLICAS_MAX, members)) if topic.internal else partition.replicas_wanted


def _partitions(catalogue: CatalogueState) -> Iterator[tuple[Topic, Partition]]:
    for name in sorted(catalogue.topics):
        topic = catalogue.topics[name]
        for partition in topic.partitions:
            yield topic, partition


def _earlier(catalogue: CatalogueState, partition: Partition) -> list[int]:
    """Nodes whose replica was placed under an incarnation that is no more."""
    return [one.node_id for one in partition.placed if catalogue.nodes[one.node_id].incarnation != one.incarnation]


def _nodes(catalogue: CatalogueState, unfit: Collection[int], emptied: Collection[int]) -> list[PlacementNode]:
    return [
        PlacementNode(node.node_id, node.host, node.rack, fit=node.node_id not in unfit and node.node_id not in emptied)
        for node in catalogue.nodes.values()
    ]

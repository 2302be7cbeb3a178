"""What there is to know about partitions that are not yet where they shall be, and about nodes that are drained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from quorumlog.node.metadata import reassigning
from quorumlog.node.metadata.state import CatalogueState
from quorumlog.node.metadata.topics import Partition, Topic
from quorumlog.proto import client_pb2

EXAMPLES_MAX: Final = 3

Found = tuple[Topic, Partition, int]


def placement_findings(catalogue: CatalogueState, is_alive: Callable[[int], bool]) -> Iterator[client_pb2.Finding]:
    """What every node says alike, once it has applied the same.

    Args:
        catalogue: what shall be.
        is_alive: whether a node is heard of.
    """
    moving = list(reassigning.moving(catalogue))
    yield from _draining(catalogue, moving)
    yield from _lost(catalogue, moving)
    under_way = [one for one in moving if one[1].placement_version > 0 and not one[1].settled]
    for node_id in sorted({node_id for _, partition, _ in under_way for node_id in partition.replicas}):
        if not is_alive(node_id):
            waiting = [one for one in under_way if node_id in one[1].replicas]
            yield _finding(
                client_pb2.WARNING,
                f"node {node_id}",
                f"not heard of, and {_some(waiting)} cannot be settled without it",
                f"start node {node_id} again, or send them elsewhere: quorumlog cluster reassign",
            )
    going_on = [one for one in under_way if all(map(is_alive, one[1].replicas))]
    if going_on:
        yield _finding(
            client_pb2.INFO,
            "placement",
            f"on the way to other nodes: {_some(going_on)}",
            "nothing: quorumlog cluster status shows what is left",
        )
    missing = [one for one in moving if len(one[1].placed) < one[2] and one[1].settled and one not in going_on]
    if missing:
        yield _finding(
            client_pb2.WARNING,
            "placement",
            f"with fewer replicas than wanted: {_some(missing)}",
            "bring nodes back, or add one (quorumlog cluster add), and they are filled up by themselves; or want "
            "fewer: quorumlog cluster reassign",
        )


def _draining(catalogue: CatalogueState, moving: Sequence[Found]) -> Iterator[client_pb2.Finding]:
    for node_id in sorted(catalogue.draining):
        left = [
            one for one in moving if any(replica.node_id == node_id for replica in (*one[1].placed, *one[1].leaving))
        ]
        votes = node_id in catalogue.voters
        if left or votes:
            what = _some(left) if left else "its vote in the metadata group"
            message, fix = f"being drained; still on it: {what}", "nothing: quorumlog cluster status shows what is left"
        else:
            message = "drained, and empty"
            fix = f"take it out with quorumlog cluster remove {node_id}, or place on it again with "
            fix += f"quorumlog cluster drain {node_id} --end"
        yield _finding(client_pb2.INFO, f"node {node_id}", message, fix)


def _lost(catalogue: CatalogueState, moving: Sequence[Found]) -> Iterator[client_pb2.Finding]:
    """Partitions with no replica on any node as it is now."""
    for node_id, node in sorted(catalogue.nodes.items()):
        lost = [
            one
            for one in moving
            if all(catalogue.nodes[replica.node_id].incarnation != replica.incarnation for replica in one[1].placed)
            and one[1].placed[0].node_id == node_id
        ]
        if lost:
            yield _finding(
                client_pb2.PROBLEM,
                f"node {node_id}",
                f"the only replica of {_some(lost)} was on it before it lost its data folder and was admitted as "
                f"incarnation {node.incarnation.hex()}",
                "keep what is left of the former data folder; delete the topic if its records are not needed",
            )


def _some(found: Sequence[Found]) -> str:
    names = [f"{topic.name} partition {partition.partition}" for topic, partition, _ in found]
    names.sort(key=lambda name: name.startswith("__"))
    more = len(names) - EXAMPLES_MAX
    shown = ", ".join(names[:EXAMPLES_MAX])
    return f"{shown} and {more} more" if more > 0 else shown


def _finding(severity: client_pb2.Severity.ValueType, subject: str, message: str, fix: str) -> client_pb2.Finding:
    return client_pb2.Finding(severity=severity, subject=subject, message=message, fix=fix)

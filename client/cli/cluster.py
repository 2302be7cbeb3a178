"""`quorumlog cluster`."""

import argparse
import asyncio

from quorumlog.cli.arguments import CLIENT_ID, add_common, open_client, pair, positive_32, whole_32
from quorumlog.cli.errors import UsageError
from quorumlog.cli.output import print_json, print_table, size
from quorumlog.cli.waiting import Waiting
from quorumlog.descriptions import ClusterStatus, NodeStatus

LATER = {
    "drain": "stop the node: its leaderships are handed over first",
    "reassign": "replicas stay on the nodes they were placed on when their topic was created",
}
"""Verbs whose names are taken: they need membership change, which this release does not have."""


def cluster(parser: argparse.ArgumentParser) -> None:
    """Found a cluster, look at its nodes, move leaderships."""
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    init = verbs.add_parser("init", help="found a cluster, once, from nodes that wait; -b is the client address of one")
    init.add_argument(
        "--node",
        type=pair,
        action="append",
        required=True,
        metavar="ID=PEER_ADDRESS",
        help="one for each node: its node_id and peer_address",
    )
    init.set_defaults(run=run_init)

    status = verbs.add_parser("status", help="what every node says about itself")
    status.set_defaults(run=run_status)

    transfer = verbs.add_parser(
        "transfer",
        help="let another replica lead a partition, and wait until it does",
        description="Let another replica lead a partition, and wait until it does. It is not for good: the preferred "
        "leader (the first of the partition's replicas) is given the leadership back within seconds while it is up.",
    )
    transfer.add_argument("topic")
    transfer.add_argument("partition", type=whole_32)
    transfer.add_argument("--to", type=whole_32, required=True, metavar="NODE_ID")
    transfer.set_defaults(run=run_transfer)

    for verb in (init, status, transfer):
        add_common(verb)
    for name in LATER:
        later = verbs.add_parser(name, help="not in this release")
        later.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        later.set_defaults(run=run_later, verb=name)


def run_init(arguments: argparse.Namespace) -> int:
    """Found a cluster."""
    nodes: dict[int, str] = {}
    for number, address in arguments.node:
        try:
            node_id = positive_32(number)
        except argparse.ArgumentTypeError:
            message = f"--node {number}={address}: {number!r} is not a node_id"
            raise UsageError(message, "write --node 1=HOST:PORT") from None
        if node_id in nodes:
            raise UsageError(f"--node {number} is given twice", "each node has a node_id of its own")
        nodes[node_id] = address
    cluster_id = asyncio.run(_init(arguments, nodes))
    if arguments.output == "json":
        print_json({"cluster_id": cluster_id.hex(), "nodes": sorted(nodes)})
    else:
        print(f"cluster {cluster_id.hex()} founded from {len(nodes)} nodes; see quorumlog cluster status")
    return 0


async def _init(arguments: argparse.Namespace, nodes: dict[int, str]) -> bytes:
    # Not `connect`: a node that waits has no metadata to tell.
    from quorumlog.aio.client import Client

    client = Client(arguments.bootstrap, CLIENT_ID, Waiting())
    try:
        return await client.cluster.init(nodes, timeout=arguments.timeout)
    finally:
        await client.close()


def run_status(arguments: argparse.Namespace) -> int:
    """Print what every node says."""
    with open_client(arguments) as client:
        status = client.cluster.status(timeout=arguments.timeout)
    if arguments.output == "json":
        print_json(status_json(status))
        return 0
    leader = f"node {status.leader}" if status.leader is not None else "nobody just now"
    print(f"cluster {status.cluster_id.hex()}, led by {leader}\n")
    print_table(
        ("node", "address", "host", "state", "version", "replicas", "leads", "stored", "disk free", "syncs"),
        [_row(node) for node in status.nodes],
    )
    for node in status.nodes:
        if not node.reachable:
            print(f"\nnode {node.node_id}: {node.error}")
    for subject, message, fix in _problems(status):
        print(f"\nPROBLEM  {subject}: {message}\n{'':8} fix: {fix}")
    return 0


def _problems(status: ClusterStatus) -> list[tuple[str, str, str]]:
    """What the nodes call a problem; what several say in the same words comes once."""
    found = (finding for node in status.nodes for finding in node.findings if finding.severity == "PROBLEM")
    return list(dict.fromkeys((finding.subject, finding.message, finding.fix) for finding in found))


def _row(node: NodeStatus) -> tuple[str | int | None, ...]:
    storage = node.storage
    return (
        node.node_id,
        node.address,
        node.host,
        node.state,
        node.version,
        len(node.replicas) if node.reachable else None,
        _leads(node) if node.reachable else None,
        size(storage.size_bytes) if storage else None,
        size(storage.disk_free_bytes) if storage else None,
        storage.syncs if storage else None,
    )


def _leads(node: NodeStatus) -> int:
    return sum(replica.leader == node.node_id for replica in node.replicas)


def run_transfer(arguments: argparse.Namespace) -> int:
    """Move one leadership, and wait until the node leads."""
    with open_client(arguments) as client:
        client.cluster.transfer(arguments.topic, arguments.partition, arguments.to, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json({"topic": arguments.topic, "partition": arguments.partition, "leader": arguments.to})
    else:
        print(f"node {arguments.to} leads {arguments.topic}[{arguments.partition}]")
    return 0


def run_later(arguments: argparse.Namespace) -> int:
    """Refuse a verb of a later release."""
    raise UsageError(f"cluster {arguments.verb} is not in this release", LATER[arguments.verb])


def status_json(status: ClusterStatus) -> dict[str, object]:
    """Return the cluster with stable keys. `leader` and what an unreachable node did not say are null."""
    return {
        "cluster_id": status.cluster_id.hex(),
        "leader": status.leader,
        "nodes": [_node_json(node) for node in status.nodes],
    }


def _node_json(node: NodeStatus) -> dict[str, object]:
    storage = node.storage
    return {
        "node_id": node.node_id,
        "address": node.address,
        "host": node.host,
        "rack": node.rack,
        "state": node.state,
        "error": node.error or None,
        "version": node.version or None,
        "incarnation": node.incarnation.hex() or None,
        "leads": _leads(node),
        "storage": None
        if storage is None
        else {
            "size_bytes": storage.size_bytes,
            "disk_free_bytes": storage.disk_free_bytes,
            "syncs": storage.syncs,
            "synced_bytes": storage.synced_bytes,
            "uptime_seconds": storage.uptime_seconds,
        },
        "replicas": [
            {
                "group_id": replica.group_id,
                "topic": replica.topic,
                "partition": replica.partition,
                "role": replica.role,
                "leader_epoch": replica.leader_epoch,
                "leader": replica.leader,
                "commit_index": replica.commit_index,
                "last_index": replica.last_index,
                "log_start_offset": replica.log_start_offset,
                "high_watermark": replica.high_watermark,
                "log_end_offset": replica.log_end_offset,
                "size_bytes": replica.size_bytes,
                "counting": replica.counting,
            }
            for replica in node.replicas
        ],
    }

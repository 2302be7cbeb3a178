"""`quorumlog cluster`."""

import argparse
import asyncio

from quorumlog.cli.arguments import CLIENT_ID, add_common, open_client, pair, positive_32, whole_32
from quorumlog.cli.errors import UsageError
from quorumlog.cli.members import add_verbs
from quorumlog.cli.output import print_json, print_table, size
from quorumlog.cli.waiting import Waiting
from quorumlog.descriptions import ClusterStatus, MovingPartition, NodeStatus
from quorumlog.errors import InvalidRequest, UnknownPartition
from quorumlog.sync import Client


def cluster(parser: argparse.ArgumentParser) -> None:
    """Found a cluster, look at its nodes, add, drain and remove them, move partitions and leaderships."""
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
    transfer.add_argument("-d", "--dry-run", action="store_true", help="say what would be done, and do nothing")
    transfer.set_defaults(run=run_transfer)

    for verb in (init, status, transfer):
        add_common(verb)
    add_verbs(verbs)


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
    if status.moving:
        print("\nnot yet as they shall be:\n")
        print_table(
            ("topic", "partition", "shall be on", "leaving", "missing"), [_moving_row(one) for one in status.moving]
        )
    for subject, message, fix in _problems(status):
        print(f"\nPROBLEM  {subject}: {message}\n{'':8} fix: {fix}")
    return 0


def _moving_row(one: MovingPartition) -> tuple[str | int | None, ...]:
    return (
        one.topic,
        one.partition,
        ",".join(map(str, one.replicas)),
        ",".join(map(str, one.leaving)),
        max(0, one.replicas_wanted - len(one.replicas)),
    )


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
        f"{node.state}, draining" if node.draining else node.state,
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
        if arguments.dry_run:
            _check_transfer(client, arguments)
        else:
            client.cluster.transfer(arguments.topic, arguments.partition, arguments.to, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json(
            {
                "topic": arguments.topic,
                "partition": arguments.partition,
                "leader": arguments.to,
                "dry_run": arguments.dry_run,
            }
        )
    else:
        leads = "would lead" if arguments.dry_run else "leads"
        print(f"node {arguments.to} {leads} {arguments.topic}[{arguments.partition}]")
    return 0


def _check_transfer(client: Client, arguments: argparse.Namespace) -> None:
    """Refuse what the cluster would refuse, as far as it can be told beforehand."""
    described = client.topics.describe(arguments.topic, timeout=arguments.timeout)
    if arguments.partition >= len(described.partitions):
        last = len(described.partitions) - 1
        raise UnknownPartition(f"topic {arguments.topic!r} has partitions 0 to {last}, not {arguments.partition}")
    replicas = described.partitions[arguments.partition].replicas
    if arguments.to not in replicas:
        nodes = ", ".join(map(str, replicas))
        message = f"node {arguments.to} has no replica of {arguments.topic}[{arguments.partition}]"
        raise InvalidRequest(message, hint=f"its replicas are on nodes {nodes}", code="INVALID_REQUEST")


def status_json(status: ClusterStatus) -> dict[str, object]:
    """Return the cluster with stable keys. `leader` and what an unreachable node did not say are null."""
    return {
        "cluster_id": status.cluster_id.hex(),
        "leader": status.leader,
        "nodes": [_node_json(node) for node in status.nodes],
        "moving": [
            {
                "topic": one.topic,
                "partition": one.partition,
                "replicas": list(one.replicas),
                "leaving": list(one.leaving),
                "replicas_wanted": one.replicas_wanted,
                "settled": one.settled,
            }
            for one in status.moving
        ],
    }


def _node_json(node: NodeStatus) -> dict[str, object]:
    storage = node.storage
    return {
        "node_id": node.node_id,
        "address": node.address,
        "host": node.host,
        "rack": node.rack,
        "state": node.state,
        "draining": node.draining,
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
            "scrubbed_seconds_ago": storage.scrubbed_seconds_ago,
            "damage_found": storage.damage_found,
            "entries_mended": storage.entries_mended,
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
                "voters": list(replica.voters),
                "learners": list(replica.learners),
                "outgoing": list(replica.outgoing),
                "wanted": list(replica.wanted),
                "damaged_entries": replica.damaged_entries,
            }
            for replica in node.replicas
        ],
    }

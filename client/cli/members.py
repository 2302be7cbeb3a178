"""`quorumlog cluster add`, `remove`, `drain` and `reassign`: who is in the cluster, and where the data is.

Each says what it will do, has it written down, and waits until it is done, because what follows in a script relies on
it. What was begun goes on when the command is ended: the cluster carries it out, not the command.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeGuard

from quorumlog.cli.arguments import add_common, open_client, positive_32, whole_32
from quorumlog.cli.errors import UsageError
from quorumlog.cli.output import Progress, print_json, print_table
from quorumlog.clock import sleep
from quorumlog.descriptions import MovingPartition, PlacementChange
from quorumlog.errors import QuorumlogError
from quorumlog.records import TopicPartition
from quorumlog.sync import Client

POLL_SECONDS = 0.25
AT_ONCE = 8
"""Partitions that `reassign` moves at the same time: each copies all its data."""

Placements = dict[TopicPartition, tuple[int, ...]]


def add_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs to those of `cluster`."""
    add = verbs.add_parser("add", help="take a node in that waits, and wait until it serves")
    add.add_argument("address", metavar="PEER_ADDRESS", help="its peer_address, HOST:PORT")
    add.set_defaults(run=run_add)

    remove = verbs.add_parser("remove", help="take a node out for good, once it is drained")
    remove.add_argument("node", type=positive_32, metavar="NODE_ID")
    remove.set_defaults(run=run_remove)

    drain = verbs.add_parser(
        "drain",
        help="move everything off a node, and wait until it is empty",
        description="Move everything off a node, and wait until it is empty. Nothing is placed on it from then on, "
        "until the drain is ended with --end. It goes on when this command is interrupted.",
    )
    drain.add_argument("node", type=positive_32, metavar="NODE_ID")
    drain.add_argument("--end", action="store_true", help="end it: the node may be placed on again")
    drain.set_defaults(run=run_drain)

    reassign = verbs.add_parser(
        "reassign",
        help="move partitions to other nodes, and wait until they are there",
        description="Move partitions to other nodes, and wait until they are there: one that is named, those of a file "
        "(as --dry-run --output json prints them), or as few as it takes to even everything out.",
    )
    reassign.add_argument("topic", nargs="?")
    reassign.add_argument("partition", nargs="?", type=whole_32)
    reassign.add_argument("--to", type=_nodes, metavar="NODE_ID,...", help="the preferred leader first")
    reassign.add_argument("--file", type=Path, metavar="PLAN.json", help="moves several partitions")
    reassign.add_argument("--balance", action="store_true", help="even everything out")
    reassign.add_argument(
        "--at-once", type=positive_32, default=AT_ONCE, metavar="COUNT", help=f"partitions (default {AT_ONCE})"
    )
    reassign.set_defaults(run=run_reassign)

    recover = verbs.add_parser(
        "recover",
        help="let a partition that cannot heal go on from one replica, with what that has",
        description="Let a partition go on from what one replica has: for the day when a majority of its replicas is "
        "gone for good, or has forgotten what it promised. Without --accept-loss nothing is done; the answer says from "
        "which offset on records may be gone.",
    )
    recover.add_argument("topic", help="an internal one as well: __cluster, __groups")
    recover.add_argument("partition", type=whole_32)
    recover.add_argument("--from", dest="from_node", type=positive_32, metavar="NODE_ID", help="whose replica")
    recover.add_argument("--accept-loss", action="store_true", help="do it")
    recover.set_defaults(run=run_recover)
    add_common(recover)

    for verb in (add, remove, drain, reassign):
        verb.add_argument("-d", "--dry-run", action="store_true", help="say what would be done, and do nothing")
        if verb is not remove:
            verb.add_argument("--no-wait", action="store_true", help="return once it is written down")
        add_common(verb)


def run_add(arguments: argparse.Namespace) -> int:
    """Take a node in."""
    with open_client(arguments) as client:
        node = client.cluster.add(arguments.address, validate_only=arguments.dry_run, timeout=arguments.timeout)
        if not arguments.dry_run and not arguments.no_wait:
            _wait(lambda: _serves(client, node.node_id, arguments.timeout))
    if arguments.output == "json":
        print_json({"node_id": node.node_id, "address": node.address, "host": node.host, "rack": node.rack or None})
    else:
        done = "would be added" if arguments.dry_run else "added"
        print(f"node {node.node_id} at {node.address} {done}; quorumlog cluster reassign --balance gives it its share")
    return 0


def _serves(client: Client, node_id: int, timeout: float) -> str:
    """What there is still to wait for; empty when the node serves."""
    status = client.cluster.status(timeout=timeout)
    found = next((node for node in status.nodes if node.node_id == node_id), None)
    if found is None:
        return f"node {node_id} is not known to the node asked yet"
    return "" if found.state in ("member", "repair") else f"node {node_id}: {found.state}"


def run_remove(arguments: argparse.Namespace) -> int:
    """Take a node out."""
    with open_client(arguments) as client:
        client.cluster.remove(arguments.node, validate_only=arguments.dry_run, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json({"node_id": arguments.node, "removed": not arguments.dry_run})
    else:
        print(f"node {arguments.node} {'can be' if arguments.dry_run else 'was'} removed; stop it, it is not needed")
    return 0


def run_recover(arguments: argparse.Namespace) -> int:
    """Say what may be gone or, with --accept-loss, go on from one replica."""
    with open_client(arguments) as client:
        told = client.cluster.recover(
            arguments.topic,
            arguments.partition,
            from_node=arguments.from_node,
            accept_loss=arguments.accept_loss,
            timeout=arguments.timeout,
        )
    name = f"{told.topic}[{told.partition}]"
    if arguments.output == "json":
        print_json(
            {
                "topic": told.topic,
                "partition": told.partition,
                "from_node": told.from_node,
                "last_index": told.last_index,
                "first_offset_in_doubt": told.first_offset_in_doubt,
                "recovered": arguments.accept_loss,
            }
        )
        return 0
    goes_on = "goes on" if arguments.accept_loss else "would go on"
    print(f"{name} {goes_on} from node {told.from_node}, whose log ends at index {told.last_index}")
    print(
        f"records from offset {told.first_offset_in_doubt} on may be gone, or stand there although they were never "
        "acknowledged"
    )
    if not arguments.accept_loss:
        print("nothing was done; say --accept-loss to do it")
    return 0


def run_drain(arguments: argparse.Namespace) -> int:
    """Empty a node, or end that."""
    node_id = arguments.node
    with open_client(arguments) as client:
        changes = client.cluster.drain(
            node_id, end=arguments.end, validate_only=arguments.dry_run, timeout=arguments.timeout
        )
        waits = not (arguments.dry_run or arguments.no_wait or arguments.end)
        if waits:
            _wait(lambda: _left(_of_node(client.cluster.moving(timeout=arguments.timeout), node_id)))
    if arguments.output == "json":
        print_json({"node_id": node_id, "draining": not arguments.end, **_report(changes, arguments, waits)})
        return 0
    if arguments.end:
        print(f"node {node_id} {'would be' if arguments.dry_run else 'is'} placed on again")
        return 0
    _print_changes(changes)
    if waits:
        print(f"node {node_id} is empty; take it out for good with quorumlog cluster remove {node_id}")
    elif not arguments.dry_run:
        print(f"node {node_id} is being drained; see quorumlog cluster status")
    return 0


def run_reassign(arguments: argparse.Namespace) -> int:
    """Move partitions."""
    placements = _placements(arguments)
    changes: list[PlacementChange] = []
    with open_client(arguments) as client:
        if placements is None:
            begin = _balancing(client, arguments)
        else:
            begin = _slices(client, placements, arguments)
        while slice_ := begin():
            changes.extend(slice_)
            if arguments.dry_run or arguments.no_wait:
                break
            moved = {(change.topic, change.partition) for change in slice_}
            _wait(lambda moved=moved: _left(_of(client.cluster.moving(timeout=arguments.timeout), moved)))  # type: ignore[misc] # a default
    waited = not (arguments.dry_run or arguments.no_wait)
    if arguments.output == "json":
        print_json(_report(changes, arguments, waited))
        return 0
    _print_changes(changes)
    if not changes:
        print("nothing to move")
    elif waited:
        print(f"{len(changes)} partition{'s' * (len(changes) != 1)} moved")
    elif not arguments.dry_run:
        print("they are moving; see quorumlog cluster status")
    return 0


def _balancing(client: Client, arguments: argparse.Namespace) -> Callable[[], Sequence[PlacementChange]]:
    """Each call begins with the next few; the first one with all when nobody waits for them."""
    whole = arguments.dry_run or arguments.no_wait
    return lambda: client.cluster.balance(
        partitions_max=None if whole else arguments.at_once,
        validate_only=arguments.dry_run,
        timeout=arguments.timeout,
    )


def _slices(
    client: Client, placements: Placements, arguments: argparse.Namespace
) -> Callable[[], Sequence[PlacementChange]]:
    """Each call begins with the next few; the first one with all when nobody waits for them."""
    whole = client.cluster.reassign(placements, validate_only=True, timeout=arguments.timeout)
    rest = [TopicPartition(change.topic, change.partition) for change in whole]

    def begin() -> Sequence[PlacementChange]:
        if arguments.dry_run or not rest:
            return whole if arguments.dry_run else ()
        count = len(rest) if arguments.no_wait else arguments.at_once
        some = {one: placements[one] for one in rest[:count]}
        del rest[:count]
        begun = client.cluster.reassign(some, timeout=arguments.timeout)
        # An answer may have been lost, and the next one find it done: what was planned is what moves.
        return begun or [change for change in whole if TopicPartition(change.topic, change.partition) in some]

    return begin


def _placements(arguments: argparse.Namespace) -> Placements | None:
    """What is to move where; None: as it is even."""
    given = {
        "TOPIC PARTITION --to NODE_ID,...": bool(arguments.topic or arguments.to),
        "--file PLAN.json": arguments.file is not None,
        "--balance": arguments.balance,
    }
    if sum(given.values()) != 1:
        raise UsageError("what shall move?", f"give one of: {'; '.join(given)}")
    if arguments.balance:
        return None
    if arguments.file is not None:
        return read_plan(arguments.file)
    if arguments.topic is None or arguments.partition is None or not arguments.to:
        raise UsageError("one partition is named by all three", "write: reassign TOPIC PARTITION --to 1,2,3")
    return {TopicPartition(arguments.topic, arguments.partition): arguments.to}


def read_plan(path: Path) -> Placements:
    """Read a plan: a list, or an object with `changes` or `partitions`, of objects with `topic`, `partition` and
    `replicas` or `after`.

    Raises:
        UsageError: it cannot be read, or is no plan.
    """
    hint = 'write [{"topic": "orders", "partition": 0, "replicas": [1, 2, 3]}]'
    try:
        plan = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "give the path of a plan") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", hint) from None
    rows = plan.get("changes", plan.get("partitions")) if isinstance(plan, dict) else plan
    placements: Placements = {}
    for row in rows if isinstance(rows, list) else [rows]:
        read = _read_row(row)
        if read is None:
            raise UsageError(f"{path} is no plan: {json.dumps(row)} names no partition and its nodes", hint)
        one, replicas = read
        if one in placements:
            raise UsageError(f"{path} names {one.topic}[{one.partition}] twice", "name each partition once")
        placements[one] = replicas
    if not placements:
        raise UsageError(f"{path} names no partition", hint)
    return placements


def _read_row(row: object) -> tuple[TopicPartition, tuple[int, ...]] | None:
    """One partition of a plan; None where it is none."""
    if not isinstance(row, dict):
        return None
    topic, partition, replicas = row.get("topic"), row.get("partition"), row.get("replicas", row.get("after"))
    if not isinstance(topic, str) or not _is_whole(partition) or not isinstance(replicas, list):
        return None
    if not all(map(_is_whole, replicas)):
        return None
    return TopicPartition(topic, partition), tuple(replicas)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32


def _nodes(text: str) -> tuple[int, ...]:
    return tuple(positive_32(number) for number in text.split(","))


# ------------------------------------------------------------------------------------------------------------- waiting


def _wait(what_is_left: Callable[[], str]) -> None:
    """Ask again and again until nothing is left, and show what is. A call that fails for a while is tried again."""
    progress = Progress()
    try:
        while True:
            try:
                left = what_is_left()
            except QuorumlogError as error:
                if not error.retriable:
                    raise
                left = str(error)
            if not left:
                return
            progress.show(left)
            sleep(POLL_SECONDS)
    finally:
        progress.clear()


def _of(moving: Sequence[MovingPartition], named: set[tuple[str, int]]) -> list[MovingPartition]:
    return [one for one in moving if (one.topic, one.partition) in named and not one.settled]


def _of_node(moving: Sequence[MovingPartition], node_id: int) -> list[MovingPartition]:
    return [one for one in moving if node_id in (*one.replicas, *one.leaving)]


def _left(moving: Sequence[MovingPartition]) -> str:
    examples = ", ".join(f"{one.topic}[{one.partition}]" for one in moving[:3])
    more = f" and {len(moving) - 3} more" if len(moving) > 3 else ""
    return f"waiting for {examples}{more}" if moving else ""


# -------------------------------------------------------------------------------------------------------------- output


def _print_changes(changes: Sequence[PlacementChange]) -> None:
    if changes:
        print_table(
            ("topic", "partition", "from", "to"),
            [(one.topic, one.partition, _listed(one.before), _listed(one.after)) for one in changes],
        )


def _listed(nodes: Sequence[int]) -> str:
    return ",".join(map(str, nodes))


def _report(changes: Sequence[PlacementChange], arguments: argparse.Namespace, done: bool) -> dict[str, object]:
    """Stable keys. `done`: it was waited for; `changes` is a plan that `--file` takes."""
    return {
        "dry_run": arguments.dry_run,
        "done": done,
        "changes": [
            {
                "topic": one.topic,
                "partition": one.partition,
                "before": list(one.before),
                "after": list(one.after),
            }
            for one in changes
        ],
    }

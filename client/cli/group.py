"""`quorumlog group`."""

import argparse

from quorumlog.cli.arguments import Position, add_common, open_client, position, whole_32
from quorumlog.cli.output import print_json, print_table
from quorumlog.descriptions import GroupDescription
from quorumlog.errors import UnknownPartition
from quorumlog.records import TopicPartition
from quorumlog.sync import Client


def group(parser: argparse.ArgumentParser) -> None:
    """Look at consumer groups, set their offsets, delete them."""
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    listing = verbs.add_parser("list", help="every group")
    listing.set_defaults(run=run_list)

    describe = verbs.add_parser("describe", help="members, committed offsets and lag of a group")
    describe.add_argument("group")
    describe.set_defaults(run=run_describe)

    reset = verbs.add_parser("reset", help="set a group's offsets in a topic, while it has no members")
    reset.add_argument("group")
    reset.add_argument("-t", "--topic", required=True)
    reset.add_argument("--to", type=position, required=True, metavar="start|end|OFFSET|@TIME")
    reset.add_argument("-p", "--partition", type=whole_32, action="append", help="only this one; may be repeated")
    reset.add_argument("-d", "--dry-run", action="store_true", help="print the offsets, set nothing")
    reset.set_defaults(run=run_reset)

    delete = verbs.add_parser("delete", help="delete a group and its offsets, while it has no members")
    delete.add_argument("group")
    delete.set_defaults(run=run_delete)

    for verb in (listing, describe, reset, delete):
        add_common(verb)


def run_list(arguments: argparse.Namespace) -> int:
    """List groups."""
    with open_client(arguments) as client:
        groups = client.groups.list(timeout=arguments.timeout)
    if arguments.output == "json":
        print_json([{"group": one.group, "state": one.state, "members": one.members} for one in groups])
    else:
        print_table(("group", "state", "members"), [(one.group, one.state, one.members) for one in groups])
    return 0


def run_describe(arguments: argparse.Namespace) -> int:
    """Describe a group."""
    with open_client(arguments) as client:
        described = client.groups.describe(arguments.group, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json(group_json(described))
        return 0
    print(f"group {described.group}, {described.state}, epoch {described.group_epoch}, lag {described.lag}\n")
    print_table(
        ("member", "client", "epoch", "partitions", "giving back"),
        [
            (member.member_id, member.client_id, member.member_epoch, _places(member.owned), _places(member.releasing))
            for member in described.members
        ],
    )
    print()
    print_table(
        ("topic", "partition", "offset", "high watermark", "lag"),
        [(at.topic, at.partition, at.offset, at.high_watermark, at.lag) for at in described.offsets],
    )
    return 0


def run_reset(arguments: argparse.Namespace) -> int:
    """Set a group's offsets."""
    with open_client(arguments) as client:
        offsets = _offsets(client, arguments)
        if not arguments.dry_run:
            client.groups.reset(arguments.group, arguments.topic, to=offsets, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json(
            {
                "group": arguments.group,
                "topic": arguments.topic,
                "offsets": [{"partition": number, "offset": offset} for number, offset in offsets.items()],
                "dry_run": arguments.dry_run,
            }
        )
    else:
        print_table(("topic", "partition", "offset"), [(arguments.topic, *entry) for entry in offsets.items()])
    return 0


def _offsets(client: Client, arguments: argparse.Namespace) -> dict[int, int]:
    """Return the offset per partition that `--to` means."""
    to: Position = arguments.to
    where = to.word or (to.time if to.time is not None else "earliest")
    known = client.offsets(arguments.topic, at=where, timeout=arguments.timeout)
    unknown = [number for number in arguments.partition or () if number not in known]
    if unknown:
        raise UnknownPartition(
            f"topic {arguments.topic} has no partition {unknown[0]}, only 0 to {len(known) - 1}",
            hint=f"see quorumlog topic describe {arguments.topic}",
            code="UNKNOWN_PARTITION",
        )
    chosen = sorted(set(arguments.partition or known))
    return {number: known[number] if to.offset is None else to.offset for number in chosen}


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete a group."""
    with open_client(arguments) as client:
        client.groups.delete(arguments.group, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json({"group": arguments.group, "deleted": True})
    else:
        print(f"group {arguments.group} deleted")
    return 0


def _places(partitions: tuple[TopicPartition, ...]) -> str:
    return " ".join(str(place) for place in sorted(partitions))


def group_json(described: GroupDescription) -> dict[str, object]:
    """Return a group with stable keys; a null `offset` was never committed."""
    return {
        "group": described.group,
        "state": described.state,
        "group_epoch": described.group_epoch,
        "lag": described.lag,
        "members": [
            {
                "member_id": member.member_id,
                "client_id": member.client_id,
                "member_epoch": member.member_epoch,
                "topics": list(member.topics),
                "owned": [_place_json(place) for place in sorted(member.owned)],
                "releasing": [_place_json(place) for place in sorted(member.releasing)],
            }
            for member in described.members
        ],
        "offsets": [
            {
                "topic": at.topic,
                "partition": at.partition,
                "offset": at.offset,
                "high_watermark": at.high_watermark,
                "lag": at.lag,
            }
            for at in described.offsets
        ],
    }


def _place_json(place: TopicPartition) -> dict[str, object]:
    return {"topic": place.topic, "partition": place.partition}

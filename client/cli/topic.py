"""`quorumlog topic`."""

import argparse

from quorumlog.cli.arguments import add_common, open_client, pair, pairs, positive_32
from quorumlog.cli.errors import UsageError
from quorumlog.cli.output import plain, print_json, print_table
from quorumlog.descriptions import TopicDescription


def topic(parser: argparse.ArgumentParser) -> None:
    """Create, look at, change and delete topics."""
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    create = verbs.add_parser("create", help="create a topic, and wait until its partitions have leaders")
    create.add_argument("name")
    create.add_argument("-p", "--partitions", type=positive_32, help="how many (default: the cluster's)")
    create.add_argument("-r", "--replicas", type=positive_32, help="copies of each partition (default: the cluster's)")
    create.add_argument("-c", "--config", type=pair, action="append", metavar="KEY=VALUE", help="a configuration")
    create.add_argument("--if-not-exists", action="store_true", help="a topic of this name is fine as it is")
    create.add_argument("-d", "--dry-run", action="store_true", help="check everything, create nothing")
    create.set_defaults(run=run_create)

    listing = verbs.add_parser("list", help="every topic")
    listing.set_defaults(run=run_list)

    describe = verbs.add_parser("describe", help="partitions, leaders and configurations of a topic")
    describe.add_argument("name")
    describe.set_defaults(run=run_describe)

    alter = verbs.add_parser("alter", help="change configurations of a topic")
    alter.add_argument("name")
    alter.add_argument("-c", "--config", type=pair, action="append", metavar="KEY=VALUE", help="set it")
    alter.add_argument("--reset", action="append", default=[], metavar="KEY", help="back to the default")
    alter.add_argument("-d", "--dry-run", action="store_true", help="check everything, change nothing")
    alter.set_defaults(run=run_alter)

    delete = verbs.add_parser("delete", help="delete a topic and its records, for good")
    delete.add_argument("name")
    delete.add_argument("--if-exists", action="store_true", help="it is fine if there is none")
    delete.set_defaults(run=run_delete)

    for verb in (create, listing, describe, alter, delete):
        add_common(verb)


def run_create(arguments: argparse.Namespace) -> int:
    """Create a topic."""
    configs = pairs("-c", arguments.config)
    with open_client(arguments) as client:
        created = client.topics.create(
            arguments.name,
            partitions=arguments.partitions,
            replicas=arguments.replicas,
            configs=configs,
            if_not_exists=arguments.if_not_exists,
            validate_only=arguments.dry_run,
            timeout=arguments.timeout,
        )
    return _changed(arguments, created, "would be created" if arguments.dry_run else "created")


def run_list(arguments: argparse.Namespace) -> int:
    """List topics."""
    with open_client(arguments) as client:
        topics = client.topics.list(timeout=arguments.timeout)
    if arguments.output == "json":
        print_json([topic_json(one) for one in topics])
    else:
        print_table(
            ("topic", "partitions", "replicas", "without leader", "configs"),
            [
                (
                    one.name,
                    len(one.partitions),
                    _replicas(one),
                    sum(part.leader is None for part in one.partitions),
                    plain(one.configs),
                )
                for one in topics
            ],
        )
    return 0


def run_describe(arguments: argparse.Namespace) -> int:
    """Describe a topic."""
    with open_client(arguments) as client:
        described = client.topics.describe(arguments.name, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json(topic_json(described))
        return 0
    print(f"topic {described.name}, id {described.topic_id.hex()}\n")
    print_table(
        ("partition", "leader", "leader address", "leader epoch", "replicas"),
        [
            (part.partition, part.leader, part.leader_address, part.leader_epoch, ",".join(map(str, part.replicas)))
            for part in described.partitions
        ],
    )
    print()
    print_table(
        ("config", "value", "default", "meaning"),
        [
            (entry.name, entry.value, "yes" if entry.is_default else "no", entry.help)
            for entry in described.config_entries
        ],
    )
    return 0


def run_alter(arguments: argparse.Namespace) -> int:
    """Change configurations."""
    configs = pairs("-c", arguments.config)
    if not configs and not arguments.reset:
        raise UsageError("nothing to change", "give -c KEY=VALUE or --reset KEY")
    with open_client(arguments) as client:
        altered = client.topics.alter(
            arguments.name,
            set=configs,
            reset=arguments.reset,
            validate_only=arguments.dry_run,
            timeout=arguments.timeout,
        )
    return _changed(arguments, altered, "would be changed" if arguments.dry_run else "changed")


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete a topic."""
    with open_client(arguments) as client:
        client.topics.delete(arguments.name, if_exists=arguments.if_exists, timeout=arguments.timeout)
    if arguments.output == "json":
        print_json({"topic": arguments.name, "deleted": True})
    else:
        print(f"topic {arguments.name} deleted")
    return 0


def _changed(arguments: argparse.Namespace, changed: TopicDescription, what: str) -> int:
    if arguments.output == "json":
        print_json(topic_json(changed))
    else:
        configs = f", {plain(changed.configs)}" if changed.configs else ""
        print(
            f"topic {changed.name} {what}: {len(changed.partitions)} partitions, {_replicas(changed)} replicas{configs}"
        )
    return 0


def _replicas(one: TopicDescription) -> int:
    return min((len(part.replicas) for part in one.partitions), default=0)


def topic_json(one: TopicDescription) -> dict[str, object]:
    """Return a topic with stable keys; `config_entries` is filled by `describe` alone."""
    return {
        "topic": one.name,
        "topic_id": one.topic_id.hex(),
        "partitions": [
            {
                "partition": part.partition,
                "leader": part.leader,
                "leader_address": part.leader_address or None,
                "leader_epoch": part.leader_epoch,
                "replicas": list(part.replicas),
            }
            for part in one.partitions
        ],
        "configs": dict(one.configs),
        "config_entries": [
            {"name": entry.name, "value": entry.value, "is_default": entry.is_default, "help": entry.help}
            for entry in one.config_entries
        ],
    }

"""What operators and clients do in the middle of everything: moving leaders, making topics again, replacing members."""

from __future__ import annotations

import random
from functools import partial

from quorumlog.chaos.sim.field import Field
from quorumlog.node.broker.broker import Broker
from quorumlog.proto import client_pb2 as pb


def transfer(field: Field, rng: random.Random) -> bool:
    """A partition's leadership is moved."""
    topic = rng.choice(sorted(field.topics))
    request = pb.TransferLeadershipRequest(
        topic=topic,
        partition=rng.randrange(field.topics[topic]),
        to_node_id=rng.choice(sorted(field.world.nodes)),
    )
    field.tell(f"{topic}[{request.partition}] is to be led by node {request.to_node_id}")

    def ask(broker: Broker) -> None:
        broker.transfers.transfer(request, lambda _: None)

    for node in field.nodes():
        if node.broker is not None:
            node.enter(partial(ask, node.broker))
    return True


def recreate(field: Field, rng: random.Random) -> bool:
    """The brief topic is deleted, or made again under its name."""
    for node in field.nodes():
        broker = node.broker
        if broker is None or not broker.cluster.decides or node.paused:
            continue
        if broker.catalogue.topic(field.brief) is not None:
            field.tell("the brief topic is deleted")
            deletion = pb.DeleteTopicRequest(name=field.brief)
            node.enter(partial(broker.admin.delete_topic, deletion, lambda _: None))
        else:
            field.tell("the brief topic is made again")
            creation = pb.CreateTopicRequest(name=field.brief, partitions=1, replicas=field.replicas)
            node.enter(partial(broker.admin.create_topic, creation, lambda _: None))
        return True
    return False


def replace_member(field: Field, rng: random.Random) -> bool:
    """A member of a group dies or leaves, and another one joins."""
    field.tell("a member is replaced")
    field.replace_member(rng)
    return True

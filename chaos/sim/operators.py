"""What operators and clients do in the middle of everything: moving leaders, making topics again, replacing members."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Final

from quorumlog.chaos.sim.field import Field
from quorumlog.node.broker.broker import Broker
from quorumlog.proto import client_pb2 as pb

NODES_MAX: Final = 8
NODES_MIN: Final = 3

GOING_SECONDS: Final = 40.0
"""What has not become empty by then stays."""


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


def reassign(field: Field, rng: random.Random) -> bool:
    """A partition is to move to nodes of an operator's choice, or everything is to be evened out."""
    request = pb.ReassignRequest()
    if rng.random() < 0.8:
        topic = rng.choice(sorted(field.topics))
        nodes = sorted(node.node_id for node in field.nodes() if not node.dead)
        chosen = rng.sample(nodes, min(rng.choice([field.replicas, 3, 5]), len(nodes)))
        if not field.atlas.may_consist_of(chosen):
            return False
        partition = rng.randrange(field.topics[topic])
        request.placements.add(topic=topic, partition=partition, replicas=chosen)
        what = f"{topic}[{partition}] is to be on nodes {chosen}"
    else:
        what = "everything is to be evened out"
    return _ask(field, what, lambda broker, reply: broker.members.reassign(request, reply))


def drain(field: Field, rng: random.Random) -> bool:
    """A node is to be emptied; later it may be used again."""
    node = field.any_node(rng)
    who = f"node {node.node_id}"
    request = pb.DrainNodeRequest(node_id=node.node_id)
    again = pb.DrainNodeRequest(node_id=node.node_id, end=True)

    def end() -> None:
        if not _ask(field, f"{who} is used again", lambda broker, reply: broker.members.drain_node(again, reply)):
            field.world.after(1.0, end)

    if _ask(field, f"{who} is to be drained", lambda broker, reply: broker.members.drain_node(request, reply)):
        field.world.after(rng.uniform(5.0, 30.0), end)
        return True
    return False


def add_node(field: Field, rng: random.Random) -> bool:
    """A node more comes, and is taken in."""
    if sum(not node.dead for node in field.nodes()) >= NODES_MAX:
        return False
    node = field.world.add_node()
    field.tell(f"node {node.node_id} comes and waits")

    def ask() -> None:
        if node.running or node.dead:
            return
        if node.opened is not None:
            found = node.descriptor()
            who = f"node {node.node_id} is to be added"
            _ask(field, who, lambda broker, reply: broker.members.add_node(found, reply))
        field.world.after(2.0, ask)

    ask()
    return True


def remove_node(field: Field, rng: random.Random) -> bool:
    """A node is emptied, taken out for good, and switched off a while later: until then it may disturb the others."""
    staying = [node for node in field.nodes() if not node.dead and node.node_id not in field.leaving]
    if len(staying) <= NODES_MIN:
        return False
    node = rng.choice(staying)
    node_id, who, world = node.node_id, f"node {node.node_id}", field.world
    drained = pb.DrainNodeRequest(node_id=node_id)
    again = pb.DrainNodeRequest(node_id=node_id, end=True)
    removed = pb.RemoveNodeRequest(node_id=node_id)
    if not _ask(field, f"{who} is to go", lambda broker, reply: broker.members.drain_node(drained, reply)):
        return False
    field.leaving.add(node_id)
    until = world.clock.now() + GOING_SECONDS
    lingers = rng.uniform(0.0, 10.0)

    def switch_off() -> None:
        node.dead = True
        if node.opened is not None:
            node.crash()
        field.leaving.discard(node_id)

    def go_on() -> None:
        deciders = [other.broker for other in field.nodes() if other.broker is not None and not other.paused]
        decider = next((broker for broker in deciders if broker.cluster.takes_requests), None)
        if decider is not None and node_id not in decider.catalogue.nodes:
            world.tell(f"{who} is out")
            world.count("nodes_removed")
            world.after(lingers, switch_off)
        elif decider is not None and (field.over or world.clock.now() >= until):
            # Nobody asks for its removal any more; whatever was asked before is decided by the time this is.
            _ask(field, f"{who} stays", lambda broker, reply: broker.members.drain_node(again, reply))
            field.leaving.discard(node_id)
        else:
            if decider is not None:
                _ask(field, f"{who} is to be removed", lambda broker, reply: broker.members.remove_node(removed, reply))
            world.after(2.0, go_on)

    world.after(2.0, go_on)
    return True


def _ask(field: Field, what: str, ask: Callable[[Broker, Callable[[object], None]], None]) -> bool:
    """Ask the leader of `__cluster` something, if there is one now."""
    for node in field.nodes():
        broker = node.broker
        if broker is not None and broker.cluster.takes_requests and not node.paused:
            field.tell(what)
            node.enter(partial(ask, broker, _ignore))
            return True
    return False


def _ignore(answer: object) -> None:
    """Nobody waits for it."""


def replace_member(field: Field, rng: random.Random) -> bool:
    """A member of a group dies or leaves, and another one joins."""
    field.tell("a member is replaced")
    field.replace_member(rng)
    return True

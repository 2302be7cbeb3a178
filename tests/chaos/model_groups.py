"""The other half of the model: consumer groups that share partitions, topics that come and go, and a whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.chaos.model import (
    LONG,
    Partition,
    Play,
    Process,
    World,
    batches,
    elections,
    final_reads,
    lister,
    reader,
    singles,
    trims,
)


@dataclass
class Group:
    """What the coordinator of a group knows: a partition is given anew only after it was released, or its owner
    expelled; a commit counts from its owner, under any generation since it was given.
    """

    name: str
    tps: list[str]
    generation: int = 0
    members: list[str] = field(default_factory=list)
    target: dict[str, str] = field(default_factory=dict)
    owners: dict[str, tuple[str, int]] = field(default_factory=dict)
    offsets: dict[str, tuple[int, str]] = field(default_factory=dict)

    def change(self, members: list[str]) -> None:
        """Members join and leave."""
        self.members, self.generation = members, self.generation + 1
        self.owners = {tp: owner for tp, owner in self.owners.items() if owner[0] in members}
        self.target = {tp: members[(place + self.generation) % len(members)] for place, tp in enumerate(self.tps)}
        self.give()

    def give(self) -> None:
        """What is free goes where it shall be."""
        for tp, member in self.target.items():
            self.owners.setdefault(tp, (member, self.generation))

    def owned(self, member: str) -> dict[str, int]:
        """Partitions of a member, with the generation in which each was given to it."""
        return {tp: since for tp, (owner, since) in self.owners.items() if owner == member}

    def commit(self, member: str, generation: int, offsets: dict[str, tuple[int, str]]) -> bool:
        """Take offsets, or none of them."""
        owned = self.owned(member)
        if not all(tp in owned and owned[tp] <= generation for tp in offsets):
            return False
        self.offsets |= offsets
        return True


def member(world: World, group: Group, name: str) -> Play:
    """Polls what it owns, commits now and then, releases and takes over when it is told to."""
    rng, me = world.rng, Process(world, name)
    positions: dict[str, int] = {}
    mine: dict[str, int] = {}
    generation, tag = 0, 0
    while world.now < world.end:
        yield world.soon()
        if name not in group.members:
            if mine and rng.random() < 0.5:
                continue_unaware = True  # it was expelled and does not know it yet
            else:
                continue_unaware = False
                if mine:
                    me.tell("revoke", group=group.name, member=name, gen=generation, tps=sorted(mine))
                    mine = {}
                if rng.random() < 0.3:
                    group.change([*group.members, name])
            if not continue_unaware:
                continue
        else:
            owned = group.owned(name)
            lost = [tp for tp in mine if owned.get(tp) != mine[tp] or group.target.get(tp) != name]
            if lost:
                me.tell("revoke", group=group.name, member=name, gen=generation, tps=lost)
                yield world.soon()
                for tp in lost:
                    if group.owners.get(tp) == (name, mine[tp]) and group.target.get(tp) != name:
                        del group.owners[tp]
                    del mine[tp]
                group.give()
                continue
            fresh = {tp: since for tp, since in owned.items() if tp not in mine and group.target.get(tp) == name}
            if fresh:
                generation = group.generation
                mine |= fresh
                positions |= {tp: group.offsets.get(tp, (0, ""))[0] for tp in fresh}
                me.tell("assign", group=group.name, member=name, gen=generation, tps=sorted(fresh))
                continue
        if rng.random() < 0.6:
            yield from _poll(world, me, group, name, generation, mine, positions)
        elif mine:
            tag += 1
            offsets = {tp: (positions[tp], f"{name}-{tag}") for tp in mine}
            yield from _commit(world, me, group, name, generation, offsets)


def _poll(
    world: World, me: Process, group: Group, name: str, generation: int, mine: dict[str, int], positions: dict[str, int]
) -> Play:
    me.invoke("poll", group=group.name, member=name)
    yield world.soon()
    records = []
    for tp in sorted(mine):
        partition = world.partitions[tp]
        positions[tp] = max(positions[tp], partition.start)
        upto = min(len(partition.rows), positions[tp] + world.rng.choice([0, 1, 5]))
        records += [[tp, offset, partition.rows[offset].value] for offset in range(positions[tp], upto)]
        positions[tp] = max(positions[tp], upto)
    me.ok(gen=generation, tps=sorted(mine), recs=records)


def _commit(
    world: World, me: Process, group: Group, name: str, generation: int, offsets: dict[str, tuple[int, str]]
) -> Play:
    told = {tp: list(position) for tp, position in offsets.items()}
    me.invoke("commit", group=group.name, member=name, gen=generation, offsets=told)
    yield world.soon()
    if world.rng.random() < 0.1:

        def late() -> Play:
            group.commit(name, generation, offsets)
            yield from ()

        if world.rng.random() < 0.7:
            world.spawn(late(), world.rng.choice([0, world.soon(), 20 * world.soon()]))
        me.info()
        return
    done = group.commit(name, generation, offsets)
    yield world.soon()
    if done:
        me.ok()
    else:
        me.fail()


def expulsions(world: World, group: Group) -> Play:
    """A member is taken for dead."""
    while world.now < world.end:
        yield 30 * world.soon()
        if len(group.members) > 1:
            dead = world.rng.choice(group.members)
            group.change([one for one in group.members if one != dead])


def offset_reader(world: World, group: Group, name: str) -> Play:
    """Reads what the group has committed."""
    me = Process(world, name)
    while world.now < world.end:
        yield 2 * world.soon()
        me.invoke("committed", group=group.name)
        yield world.soon()
        told = {tp: list(position) for tp, position in group.offsets.items()}
        yield world.soon()
        me.ok(offsets=told)


@dataclass
class Topic:
    """Whether a topic is there."""

    there: bool = False

    def apply(self, command: str) -> str:
        """Make or delete it; returns what is told."""
        creates = command == "create_topic"
        if self.there is creates:
            return "exists" if creates else "missing"
        self.there = creates
        return "created" if creates else "deleted"


def contender(world: World, topic: Topic, name: str) -> Play:
    """One of several processes that make and delete the same topic, to which nobody writes."""
    me = Process(world, name)
    for number in range(8):
        yield 10 * world.soon()
        command = world.rng.choice(["create_topic", "delete_topic"])
        me.invoke("meta", cmd=command, id=f"{name}-{number}", args={"topic": "contested", "life": 1})
        yield 3 * world.soon()
        fate = world.rng.choices(["ok", "fail", "info"], [75, 10, 15])[0]
        if fate == "fail":
            me.fail()
        elif fate == "info":

            def late(command: str = command) -> Play:
                topic.apply(command)
                yield from ()

            if world.rng.random() < 0.7:
                world.spawn(late(), world.rng.choice([0, 20 * world.soon()]))
            me.info()
        else:
            result = topic.apply(command)
            yield 3 * world.soon()
            me.ok(result=result)


def lives(world: World, name: str) -> Play:
    """Makes a topic, leaves it to everybody, deletes it, makes it again."""
    me = Process(world, name)
    for life in (1, 2, 3):
        topic = "m" if life == 1 else f"m@{life}"
        args = {"topic": "m", "life": life}
        me.invoke("meta", cmd="create_topic", id=f"make-{life}", args=args)
        yield world.soon()
        partition = world.partitions[f"{topic}/0"] = Partition(f"{topic}/0")
        yield world.soon()
        me.ok(result="created")
        yield 20 * world.soon()
        if world.now > world.end or world.rng.random() < 0.2:
            return
        me.invoke("meta", cmd="delete_topic", id=f"drop-{life}", args=args)
        yield world.soon()
        partition.gone = True
        yield world.soon()
        me.ok(result="deleted")


def lawful(seed: int, length: int = LONG) -> World:
    """A whole legal run."""
    world = World(seed, length)
    shared: dict[str, Any] = {"pid": world.new_producer()}
    for number in (1, 2):
        world.spawn(batches(world, f"batches-{number}"))
        world.spawn(singles(world, f"client-{number}", shared))
    world.spawn(singles(world, "plain", {"plain": True}))
    world.spawn(reader(world, "leader-reader", follows=False))
    world.spawn(reader(world, "follower-reader", follows=True))
    world.spawn(lister(world, "lister"))
    world.spawn(elections(world))
    world.spawn(trims(world))
    group = Group("g", ["t/0", "t/1"])
    for name in ("one", "two", "three"):
        world.spawn(member(world, group, name))
    group.change(["one"])
    world.spawn(expulsions(world, group))
    world.spawn(offset_reader(world, group, "offsets"))
    topic = Topic()
    for name in ("makes", "drops"):
        world.spawn(contender(world, topic, name))
    world.spawn(lives(world, "lives"))
    world.play()
    final_reads(world)
    return world

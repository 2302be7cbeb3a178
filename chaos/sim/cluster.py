"""One run of a whole cluster under faults: what is drawn from a seed, what is done, and what must hold at the end."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from quorumlog.chaos.sim.invariants import Invariants, applied_entries
from quorumlog.chaos.sim.members import Delivery, SimMember
from quorumlog.chaos.sim.nemesis import CLEAN_STOP_SECONDS, NEVER, OFTEN, Nemesis
from quorumlog.chaos.sim.producers import Sent, SimProducer
from quorumlog.chaos.sim.world import Faults, Pace, World
from quorumlog.node.broker.limits import OPEN_LIMITS
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.entry import HEADER_BYTES, decode_header
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.batch import open_batch, to_wire
from quorumlog.raft import EntryKind

TOPIC, BRIEF = "events", "brief"
PARTITIONS = 3
GROUP = "workers"
HEALING_SECONDS = 40.0


class Swarm:
    """Which faults a seed has, and how hard; most seeds have only some (swarm testing, Groce et al. 2012)."""

    def __init__(self, rng: random.Random) -> None:
        self.seconds = rng.uniform(3.0, 6.0)
        self.tick_seconds = rng.choice([0.03, 0.05])
        self.loss = rng.choice([0.0, 0.0, 0.02, 0.1, 0.2])
        self.duplication = rng.choice([0.0, 0.05, 0.3])
        self.client_loss = rng.choice([0.0, 0.0, 0.01, 0.05])
        self.late = rng.choice([0.0, 0.0, 0.02])
        self.delay_max = rng.choice([0.001, 0.01, 0.05])
        self.sync_max = rng.choice([0.001, 0.01, 0.1])
        self.retention_bytes = rng.choice([-1, -1, 1500, 6000])
        self.handler_seconds = rng.choice([0.0, 0.0, 0.05])
        self.send_seconds = rng.choice([0.05, 0.1, 0.2])
        self.between = {name: rng.choice([NEVER, NEVER, seconds]) for name, seconds in OFTEN.items()}

    def faults(self) -> Faults:
        return Faults(
            loss=self.loss,
            duplication=self.duplication,
            client_loss=self.client_loss,
            late=self.late,
            delay_max=self.delay_max,
            sync_max=self.sync_max,
        )


class Stored(NamedTuple):
    """One record as it stands in a log."""

    offset: int
    epoch: int
    value: bytes


class Run:
    """A cluster of three, two producers, a group of two, and the faults of a seed."""

    def __init__(self, seed: int) -> None:
        drawn = random.Random(seed * 7919 + 1)
        self.swarm = swarm = Swarm(drawn)
        self.seed = seed
        self.world = world = World(
            seed,
            group_settings=GroupSettings(target_interval_seconds=0.2),
            pace=Pace(tick_seconds=swarm.tick_seconds, retention_check_seconds=0.3, produce_timeout_seconds=2.0),
        )
        self.rng = random.Random(drawn.getrandbits(64))
        self.invariants = Invariants(world)
        world.check_every = 150
        world.check = self.invariants.check  # type: ignore[method-assign]
        world.found()
        create_topic(
            world, TOPIC, PARTITIONS, {"retention.bytes": str(swarm.retention_bytes), "max.message.bytes": "1400"}
        )
        create_topic(world, BRIEF, 1)
        self.deliveries: list[Delivery] = []
        self.producers = [SimProducer(world) for _ in range(2)]
        self.all_members: list[SimMember] = []
        self.members = [self._new_member(), self._new_member()]
        self.struck: dict[str, int] = {}
        self._counts: dict[tuple[int, str, int], int] = defaultdict(int)
        self._sending = True

    def _new_member(self) -> SimMember:
        rng, seconds = self.rng, self.swarm.handler_seconds
        member = SimMember(
            self.world,
            len(self.all_members) + 1,
            GROUP,
            [TOPIC],
            self.deliveries,
            session_timeout=1.5,
            handler_seconds=lambda: rng.uniform(0.0, seconds),
        )
        self.all_members.append(member)
        return member

    def _replace_member(self) -> None:
        place = self.rng.randrange(len(self.members))
        if self.rng.random() < 0.5:
            self.members[place].die()
        else:
            self.members[place].leave()
        self.members[place] = self._new_member()

    def go(self) -> None:
        """Work under faults, heal, wait until everything has settled, and check."""
        world = self.world
        world.faults = self.swarm.faults()
        nemesis = Nemesis(
            world,
            self.rng,
            self.swarm.between,
            topic=TOPIC,
            partitions=PARTITIONS,
            brief=BRIEF,
            replace_member=self._replace_member,
        )
        for number in range(len(self.producers)):
            self._send(number)
        world.run(self.swarm.seconds)
        self._sending = False
        nemesis.end()
        self.struck = nemesis.struck
        world.heal()
        world.run(CLEAN_STOP_SECONDS + 0.1)  # what had begun to stop has stopped
        world.start_all()
        self._wait(self._settled, "producers and group do not settle after healing")
        world.run(0.5)
        self._wait(self._replicas_equal, "replicas do not become equal")
        self.invariants.check()
        self._check_end()

    @property
    def acked(self) -> int:
        """How many records were acknowledged."""
        return sum(one.acked for producer in self.producers for one in producer.sent)

    def _send(self, number: int) -> None:
        if not self._sending:
            return
        topic = BRIEF if self.rng.random() < 0.1 else TOPIC
        partition = self.rng.randrange(PARTITIONS) if topic == TOPIC else 0
        for _ in range(self.rng.choice([1, 1, 2, 6])):
            key = number, topic, partition
            self._counts[key] += 1
            value = f"{number} {topic} {partition} {self._counts[key]} ".encode()
            self.producers[number].send(topic, partition, value + b"x" * self.rng.choice([0, 30, 200]))
        self.world.after(self.rng.expovariate(1 / self.swarm.send_seconds), lambda: self._send(number))

    # Healing

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until = self.world.clock.now() + HEALING_SECONDS
        while not condition():
            assert self.world.clock.now() < until, f"seed {self.seed}: {what} within {HEALING_SECONDS} s"
            self.world.run(0.1)

    def _settled(self) -> bool:
        if not all(producer.settled for producer in self.producers):
            return False
        brokers = self.world.brokers()
        topic = brokers[1].catalogue.topic(TOPIC)
        assert topic is not None
        committed = committed_offsets(self.world, GROUP)
        for partition in topic.partitions:
            for broker in brokers.values():
                replica = broker.multi.replicas.get(partition.group_id)
                if replica is None or committed.get((topic.topic_id, partition.partition), 0) < replica.high_watermark:
                    return False
        return True

    def _replicas_equal(self) -> bool:
        logs: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for broker in self.world.brokers().values():
            for group_id, replica in broker.multi.replicas.items():
                logs[group_id].add((replica.raft.applied, replica.raft.last_index))
        return all(len(ends) == 1 and len(set(*ends)) == 1 for ends in logs.values())

    # What must hold

    def _check_end(self) -> None:
        self.invariants.check_healed()
        topic = self.world.brokers()[1].catalogue.topic(TOPIC)
        assert topic is not None
        logs: dict[int, dict[int, Stored]] = {}
        starts: dict[int, int] = {}
        for partition in topic.partitions:
            copies = []
            for broker in self.world.brokers().values():
                replica = broker.multi.replicas[partition.group_id]
                assert replica.partition is not None
                starts[partition.partition] = replica.partition.log_start_offset
                copies.append([one for one in records(replica) if one.offset >= replica.partition.log_start_offset])
            assert copies[0] == copies[1] == copies[2], f"seed {self.seed}: the replicas hold different records"
            offsets = [one.offset for one in copies[0]]
            end = replica.high_watermark
            assert offsets == list(range(starts[partition.partition], end)), f"seed {self.seed}: offsets have holes"
            logs[partition.partition] = {one.offset: one for one in copies[0]}
        for producer in self.producers:
            self._check_sent(producer.sent, topic.topic_id, logs, starts)
        self._check_order(logs)
        self._check_deliveries(topic.topic_id, logs, starts)
        for member in self.all_members:
            for place, offset in member.committed.items():
                stands = committed_offsets(self.world, GROUP).get(place, 0)
                assert stands >= offset, f"seed {self.seed}: offset {offset} of {place} was committed, {stands} stands"
            assert not member.errors, f"seed {self.seed}: member {member.number} met {member.errors}"
        self._check_calls()

    def _check_sent(
        self, sent: list[Sent], topic_id: bytes, logs: dict[int, dict[int, Stored]], starts: dict[int, int]
    ) -> None:
        places: dict[tuple[int, bytes], int] = {
            (partition, one.value): one.offset for partition, log in logs.items() for one in log.values()
        }
        assert len(places) == sum(map(len, logs.values())), f"seed {self.seed}: a record stands in a log twice"
        for one in sent:
            if one.topic_id != topic_id:
                # Deleted and perhaps made again: what was acknowledged went with it.
                assert one.batch.done
                continue
            assert one.acked, f"seed {self.seed}: {one.value!r} failed: {one.batch.error}"
            offset = one.offset
            if offset is None or offset < starts[one.partition]:
                continue
            assert places.get((one.partition, one.value)) == offset, (
                f"seed {self.seed}: {one.value!r} was acknowledged at {offset} of partition {one.partition}, and "
                f"stands at {places.get((one.partition, one.value))}"
            )

    def _check_order(self, logs: dict[int, dict[int, Stored]]) -> None:
        for partition, log in logs.items():
            last: dict[bytes, int] = {}
            epoch = 0
            for offset in sorted(log):
                producer, _, _, count = log[offset].value.split(b" ")[:4]
                if producer in last:
                    assert int(count) == last[producer] + 1, (
                        f"seed {self.seed}: partition {partition} has record {int(count)} of producer {producer!r} "
                        f"behind {last[producer]}"
                    )
                last[producer] = int(count)
                assert log[offset].epoch >= epoch, f"seed {self.seed}: leader epochs fall in partition {partition}"
                epoch = log[offset].epoch

    def _check_deliveries(self, topic_id: bytes, logs: dict[int, dict[int, Stored]], starts: dict[int, int]) -> None:
        seen: dict[tuple[int, int], bytes | None] = {}
        stints: dict[tuple[int, int], int] = {}
        for one in self.deliveries:
            assert one.topic_id == topic_id
            place = one.partition, one.offset
            known = seen.setdefault(place, one.value)
            assert known == one.value, f"seed {self.seed}: {place} was read as {known!r} and as {one.value!r}"
            if one.offset >= starts[one.partition]:
                stored = logs[one.partition].get(one.offset)
                assert stored is not None, f"seed {self.seed}: {place} was read and is gone"
                assert (stored.value, stored.epoch) == (one.value, one.epoch), f"seed {self.seed}: {place} changed"
            stint = one.member, one.stint
            previous = stints.get(stint)
            assert previous is None or one.offset > previous, f"seed {self.seed}: {place} came again within a stint"
            if previous is not None and one.offset > previous + 1:
                trimmed = max(starts[one.partition], 0)
                assert one.offset <= trimmed, (
                    f"seed {self.seed}: member {one.member} skipped from {previous} to {place}"
                )
            stints[stint] = one.offset
        for partition, log in logs.items():
            missing = [offset for offset in log if (partition, offset) not in seen]
            assert not missing, f"seed {self.seed}: offsets {missing[:5]} of partition {partition} reached no member"

    def _check_calls(self) -> None:
        now = self.world.clock.now()
        for node in self.world.nodes.values():
            old = [call for call in node.calls if now - call.sent_at > 5.0]
            assert not old, f"seed {self.seed}: node {node.node_id} never answers {len(old)} calls"


def committed_offsets(world: World, group: str) -> dict[tuple[bytes, int], int]:
    """What stands as committed by (topic id, partition), on the replica of `__groups` that has applied most."""
    best: tuple[int, dict[tuple[bytes, int], int]] = 0, {}
    for broker in world.brokers().values():
        for replica in broker.multi.replicas.values():
            machine = replica.machine
            if not isinstance(machine, CommandMachine) or not isinstance(machine.state_machine, GroupsState):
                continue
            state = machine.state_machine.groups.get(group)
            if state is not None and replica.raft.applied > best[0]:
                offsets = {(key.topic_id, key.partition): committed.offset for key, committed in state.offsets.items()}
                best = replica.raft.applied, offsets
    return best[1]


def create_topic(world: World, name: str, partitions: int, configs: dict[str, str] | None = None) -> bytes:
    """Create a topic of three replicas, wait until every running node knows it, and return its id."""
    request = pb.CreateTopicRequest(name=name, partitions=partitions, replicas=3, configs=configs or {})

    def there() -> bool:
        return all(broker.catalogue.topic(name) is not None for broker in world.brokers().values())

    answers: list[pb.CreateTopicResponse] = []

    def ask() -> None:
        if there():
            return
        for node in world.nodes.values():
            if node.broker is not None and node.broker.cluster.decides:
                node.broker.admin.create_topic(request, answers.append)
                node.pump()
        assert not answers or not answers[0].HasField("error") or answers[0].error.retriable, answers
        world.after(0.5, ask)

    ask()
    world.run_until(there, 20.0, f"topic {name} is not created")
    topic = next(iter(world.brokers().values())).catalogue.topic(name)
    assert topic is not None
    return topic.topic_id


def records(replica: Replica) -> Iterator[Stored]:
    """The applied records that a replica's log holds."""
    for entry in applied_entries(replica):
        if entry.kind is not EntryKind.RECORDS:
            continue
        header = decode_header(entry.data)
        batch = to_wire(
            memoryview(entry.data)[HEADER_BYTES:],
            base_offset=header.base_offset,
            leader_epoch=header.term,
            append_time_ms=header.append_time_ms,
            crc=header.batch_crc,
        )
        for place, value in enumerate(open_batch(batch, OPEN_LIMITS).values):
            yield Stored(header.base_offset + place, header.term, value or b"")

"""One seed: a cluster at work under faults, then a quorum that is healed and must converge while others stay dead."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Final

from quorumlog.chaos.sim import schedule
from quorumlog.chaos.sim.admission import Admission
from quorumlog.chaos.sim.ending import Ending
from quorumlog.chaos.sim.failures import NotConverged, Violation
from quorumlog.chaos.sim.field import Field
from quorumlog.chaos.sim.invariants import Invariants
from quorumlog.chaos.sim.load import GROUPS, Load
from quorumlog.chaos.sim.logs import committed_offsets
from quorumlog.chaos.sim.plane import LyingPlane
from quorumlog.chaos.sim.schedule import Stroke
from quorumlog.chaos.sim.swarm import BRIEF, PARTITIONS, Swarm
from quorumlog.chaos.sim.topics import create_topic
from quorumlog.chaos.sim.world import World
from quorumlog.node.coordination.view import CoordinationView
from quorumlog.node.groups.settings import GroupSettings
from quorumlog.node.metadata import reassigning
from quorumlog.node.storage.group_read import find_damage

GROUPS_PARTITIONS: Final = 4
"""Of `__groups`: fewer than usual, so that each has more to do."""

SETTLING_SECONDS: Final = 90.0
"""A healed quorum must have converged by then: what clients had open may take its timeout, and then be tried again."""

QUIET_SECONDS: Final = 1.0


class SwarmWorld(World):
    """The world of a seed: on some seeds every node asks a coordination plane that lies."""

    def __init__(self, swarm: Swarm) -> None:
        self._lying = swarm.lying_plane
        super().__init__(
            swarm.seed,
            swarm.nodes,
            group_settings=GroupSettings(target_interval_seconds=0.3),
            pace=swarm.pace,
            groups_partitions=GROUPS_PARTITIONS,
        )

    def coordination(self, node_id: int) -> CoordinationView:
        """See World."""
        if not self._lying:
            return super().coordination(node_id)
        self.count("fault lying_plane")
        return LyingPlane(random.Random(self.rng.getrandbits(64)), sorted(self.nodes))


class Run:
    """A seed from its beginning to its end.

    Args:
        strokes: the numbers of those faults of its schedule that shall happen; None for all.
    """

    def __init__(self, swarm: Swarm, strokes: Collection[int] | None = None) -> None:
        self.swarm = swarm
        self.seed = swarm.seed
        self.world = SwarmWorld(swarm)
        self.invariants = Invariants(self.world)
        Admission(self.world)
        drawn = schedule.draw(swarm.rng, swarm.seconds, swarm.kinds_share)
        self.schedule: list[Stroke] = [one for one in drawn if strokes is None or one.number in strokes]
        self._load: Load | None = None
        self._field: Field | None = None
        self.dead: list[int] = []
        self._healed_at: dict[int, float] = {}  # by each node's own clock
        self.began = self.world.clock.now()

    @property
    def acked(self) -> int:
        """How many records were acknowledged."""
        return self._load.acked if self._load is not None else 0

    @property
    def load(self) -> Load:
        """The clients, once the cluster is prepared."""
        assert self._load is not None, "nothing is prepared yet"
        return self._load

    @property
    def field(self) -> Field:
        """Where faults strike, once the cluster is prepared."""
        assert self._field is not None, "nothing is prepared yet"
        return self._field

    def go(self) -> None:
        """Everything, in its order. Raises SimulationFailed, or whatever the shipped code raises."""
        self.prepare()
        self.strike()
        self.heal()
        self.converge()

    def prepare(self) -> None:
        """Found the cluster, and make the topics."""
        world, swarm = self.world, self.swarm
        world.found()
        configs = {"retention.bytes": str(swarm.retention_bytes), "max.message.bytes": "1400"}
        for name, partitions in PARTITIONS.items():
            create_topic(world, name, partitions, configs, replicas=swarm.replicas)
        create_topic(world, BRIEF, 1, replicas=swarm.replicas)
        self._load = Load(world, swarm)
        self._field = Field(
            world,
            topics=dict(PARTITIONS),
            brief=BRIEF,
            replicas=swarm.replicas,
            replace_member=self.load.replace_member,
        )

    def strike(self) -> None:
        """The phase of safety: everybody works, and everything fails."""
        self.world.faults = self.swarm.faults
        self.load.begin()
        if self.swarm.fold_seconds:
            self._fold_later(random.Random(self.swarm.rng.getrandbits(64)))
        schedule.begin(self.field, self.schedule)
        self.world.run(self.swarm.seconds)

    def _fold_later(self, rng: random.Random) -> None:
        """Have nodes fold now and then, as they do once enough is written: what is folded may be dropped from logs, and
        who lacks it is sent a snapshot.
        """

        def fold() -> None:
            node = self.field.running(rng)
            if node is not None and node.broker is not None:
                node.enter(node.broker.fold_all)
            self._fold_later(rng)

        self.field.later(rng.expovariate(1.0 / self.swarm.fold_seconds), fold)

    def heal(self) -> None:
        """A quorum is healed, the network is perfect, and everybody else stays dead."""
        world = self.world
        self.load.end()
        self.field.over = True
        world.tell("the faults are over")
        self.field.atlas.look()
        self.dead = self._choose_dead()
        for node_id in self.dead:
            node = world.nodes[node_id]
            node.dead = True
            if node.opened is not None:
                node.crash()
        world.tell(f"nodes {self.dead} stay dead, the others are healed")
        for node in world.nodes.values():
            if node.database.storage is not None:
                node.storage.refusing = False
            node.clock.set_rate(1.0)
            node.clock.set_wall_offset(0.0)
        world.heal()
        for node in world.nodes.values():
            node.on_clock_changed()
        self._healed_at = {node.node_id: node.clock.now() for node in world.nodes.values()}

    def _choose_dead(self) -> list[int]:
        """Nodes without which every group still has a majority of replicas that have lost nothing."""
        world, rng = self.world, self.swarm.rng
        alive = sorted(node_id for node_id, node in world.nodes.items() if not node.dead)
        dead: list[int] = []
        wanted = rng.randint(0, (len(alive) - 1) // 2)
        for node_id in rng.sample(alive, len(alive)):
            rest = [other for other in alive if other != node_id]
            if len(dead) < wanted and self.field.atlas.is_quorum(rest):
                dead.append(node_id)
                alive = rest
        return sorted(dead)

    def converge(self) -> None:
        """The phase of liveness: wait until everything has settled, and look at the outcome."""
        self._wait(lambda: not self.field.leaving, "a node that was to go neither goes nor stays")
        self._wait(lambda: self.load.settled, "producers do not get their outcomes")
        self._wait(self._consumed, "the groups do not catch up")
        self._wait(self._all_members, "a node is not taken in")
        self._wait(lambda: self._scrubbed() and self._mended(), "what is damaged is not found and mended")
        self._check_disks()
        self._wait(self._placed, "groups do not come to where they are wanted")
        self._wait(self._replicas_settled, "replicas do not become equal")
        self.world.run(QUIET_SECONDS)
        self._wait(lambda: self._placed() and self._replicas_settled(), "replicas do not stay where and as they are")
        self.world.tell("everything has settled")
        Ending(self.world, self.load, self.invariants).check()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until = self.world.clock.now() + SETTLING_SECONDS
        while not condition():
            if self.world.clock.now() >= until:
                raise NotConverged(f"seed {self.seed}: {what} within {SETTLING_SECONDS:.0f} s", self._laggard())
            self.world.run(0.25)

    def _scrubbed(self) -> bool:
        """Whether every node has read all its logs through since the faults were over."""
        for node_id, node in self.world.nodes.items():
            last_pass = node.broker.scrubbing.last_pass if node.broker is not None else None
            if not node.dead and (last_pass is None or last_pass.began_at < self._healed_at[node_id]):
                return False
        return True

    def _mended(self) -> bool:
        """Whether no node knows of a damaged entry."""
        brokers = self.world.brokers().values()
        return not any(replica.log.has_damage for broker in brokers for replica in broker.multi.replicas.values())

    def _check_disks(self) -> None:
        """Read every log from its disk: nothing that is damaged has escaped."""
        for node_id, broker in self.world.brokers().items():
            for group_id, replica in broker.multi.replicas.items():
                first, last = replica.log.first_index(), replica.log.last_index()
                damaged = find_damage(self.world.nodes[node_id].storage, group_id, first, last)
                if damaged:
                    what = f"entries {damaged} of group {group_id} are damaged on node {node_id}, and nobody knows"
                    raise Violation(f"seed {self.seed}: {what}", group_id)

    def _consumed(self) -> bool:
        brokers = self.world.brokers()
        for group, topics in GROUPS.items():
            committed = committed_offsets(self.world, group)
            for name in topics:
                topics_known = [broker.catalogue.topic(name) for broker in brokers.values()]
                if None in topics_known:
                    return False
                topic = topics_known[0]
                assert topic is not None
                for partition in topic.partitions:
                    ends = [
                        broker.multi.replicas[partition.group_id].high_watermark
                        for broker in brokers.values()
                        if partition.group_id in broker.multi.replicas
                    ]
                    if not ends or committed.get((topic.topic_id, partition.partition), 0) < max(ends):
                        return False
        return True

    def _all_members(self) -> bool:
        return all(node.running for node in self.world.nodes.values() if not node.dead)

    def _placed(self) -> bool:
        """Whether every group is where it is wanted, as far as no dead node has a part in it, and stays there."""
        dead = set(self.dead)
        broker = next((one for one in self.world.brokers().values() if one.cluster.takes_requests), None)
        if broker is None:
            return False
        to_come = reassigning.heal(broker.catalogue, broker.admin.unfit_to_copy_to()).groups
        moved_next = {group.group_id for group in to_come}  # groups go a few at a time, with pauses in between
        return all(
            partition.settled and partition.group_id not in moved_next
            for topic in broker.catalogue.topics.values()
            for partition in topic.partitions
            if not dead & {one.node_id for one in (*partition.placed, *partition.leaving)}
        )

    def _replicas_settled(self) -> bool:
        return self._laggard() == 0

    def _laggard(self) -> int:
        """A group that has no leader or whose replicas are not equal, 0 when there is none."""
        brokers = self.world.brokers()
        group_ids = {group_id for broker in brokers.values() for group_id in broker.multi.replicas}
        for group_id in sorted(group_ids):
            held = {
                node_id: broker.multi.replicas[group_id]
                for node_id, broker in brokers.items()
                if group_id in broker.multi.replicas
            }
            leaders = [replica for replica in held.values() if replica.leads]
            if len(leaders) != 1:
                return group_id
            # One that a wish has placed, and a later one has taken back, may stay empty until the group has settled,
            # which it cannot while a member is dead.
            replicas = [replica for node_id, replica in held.items() if node_id in leaders[0].members]
            if len({(replica.raft.applied, replica.raft.last_index, replica.raft.term) for replica in replicas}) != 1:
                return group_id
            if any(replica.raft.applied != replica.raft.last_index or not replica.counting for replica in replicas):
                return group_id
        return 0

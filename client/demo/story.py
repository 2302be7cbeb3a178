"""What happens in the demo, in its order."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quorumlog import aio
from quorumlog.clock import monotonic
from quorumlog.demo.children import Child, ChildFailed
from quorumlog.demo.files import Ack, read_acks
from quorumlog.demo.screen import Screen
from quorumlog.dev_cluster import DevCluster
from quorumlog.errors import NoLeader, QuorumlogError

TOPIC = "processes"
GROUP = "usage"
PARTITIONS = 6
REPLICAS = 3
PRODUCERS = 2
MEMBERS = 3
RATE = 2000.0
"""Records per second of each producer."""

KILL_AT = 8.0
JOIN_AT = 13.0
RESTART_AT = 17.0
LEAVE_AT = 21.0
END_AT = 27.0
"""Seconds after the producers have begun."""

POLL_SECONDS = 0.1
ELECTION_SECONDS = 15.0
DRAIN_SECONDS = 30.0
REVIVAL_SECONDS = 5.0
RECORDS_MIN = 20_000


@dataclass(frozen=True, slots=True)
class Kill:
    """The death of a leader. `at` is monotonic seconds; `term_after` is that of the first leader known after it."""

    node_id: int
    pid: int
    partition: int
    at: float
    term_before: int
    term_after: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demo came to: the kill, the acknowledgements around it, and the comparer's verdict."""

    kill: Kill
    acks_before: int
    acks_after: int
    acks_of_partition_soon: int
    failed: int
    verdict: Mapping[str, Any]

    def proves_nothing(self) -> list[str]:
        """Return why this run is no proof; empty if it is one."""
        reasons = []
        if self.kill.term_after == self.kill.term_before:
            reasons.append(f"the term of partition {self.kill.partition} did not change: {self.kill.term_before}")
        if self.acks_before + self.acks_after < RECORDS_MIN:
            reasons.append(f"{self.acks_before + self.acks_after} records were acknowledged, fewer than {RECORDS_MIN}")
        if not self.acks_of_partition_soon:
            reasons.append(
                f"no record sent to partition {self.kill.partition} after the kill was acknowledged within "
                f"{REVIVAL_SECONDS:g} s"
            )
        return reasons

    def is_clean(self) -> bool:
        """Whether nothing was lost, doubled or given up."""
        return not (self.verdict["lost"] or self.verdict["duplicated"] or self.failed)


class Story:
    """One run.

    Args:
        cluster: three nodes that serve.
        screen: where it is shown.
    """

    def __init__(self, cluster: DevCluster, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen
        self._folder = cluster.folder / "notes"
        self._producers: list[Child] = []
        self._members: list[Child] = []
        self._left: list[Child] = []
        self._others: list[Child] = []
        self._begin = 0.0

    async def run(self) -> Outcome:
        """Tell it from beginning to end.

        Raises:
            QuorumlogError: the cluster does not do what it is asked, or a process of the demo ended with an error.
        """
        self._folder.mkdir()
        try:
            async with aio.connect(self._cluster.bootstrap, client_id="quorumlog-demo") as client:
                return await self._run(client)
        finally:
            # In case of an error; otherwise everybody has ended already.
            for child in [*self._producers, *self._members, *self._left, *self._others]:
                await child.end()

    async def _run(self, client: aio.Client) -> Outcome:
        await client.topics.create(TOPIC, partitions=PARTITIONS, replicas=REPLICAS)
        for _ in range(MEMBERS):
            await self._join()
        for number in range(1, PRODUCERS + 1):
            await self._start_producer(number)
        self._begin = monotonic()
        self._screen.event(
            f"{PRODUCERS} producers send samples of this machine's processes to {PARTITIONS} partitions; a group of "
            f"{MEMBERS} aggregates them"
        )
        await self._until(KILL_AT)
        kill = await self._kill_leader(client)
        await self._until(JOIN_AT)
        await self._join()
        self._screen.event(f"member {len(self._members)} joins the group")
        await self._until(RESTART_AT)
        restarted = await self._restart(kill.node_id)
        await self._until(LEAVE_AT)
        await self._leave()
        await self._until(END_AT)
        failed = await self._finish(client)
        verdict = await self._compare()
        await restarted.stop()
        return _outcome(kill, failed, self._folder, verdict)

    # -- processes

    async def _child(self, name: str, *command: str) -> Child:
        child = Child(name, self._folder)
        await child.start(*command)
        return child

    def _common(self) -> tuple[str, ...]:
        return "--bootstrap", self._cluster.bootstrap, "--topic", TOPIC, "--folder", str(self._folder)

    async def _start_producer(self, number: int) -> None:
        arguments = (*self._common(), "--producer", str(number), "--rate", str(RATE))
        self._producers.append(await self._child(f"producer {number}", "quorumlog.demo.producer", *arguments))

    async def _join(self) -> None:
        number = len(self._members) + len(self._left) + 1
        arguments = (*self._common(), "--group", GROUP, "--member", str(number))
        self._members.append(await self._child(f"member {number}", "quorumlog.demo.member", *arguments))

    async def _leave(self) -> None:
        leaving = self._members.pop(0)
        self._left.append(leaving)
        last = await leaving.stop()
        self._screen.event(f"{leaving.name} has left the group after {last['consumed']} records")

    # -- waiting

    async def _until(self, seconds: float) -> None:
        await self._while(lambda: monotonic() < self._begin + seconds)

    async def _while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self._watch()
            await asyncio.sleep(POLL_SECONDS)

    def _watch(self) -> None:
        for child in [*self._producers, *self._members]:
            child.check()
        self._update()

    def _update(self) -> None:
        members = sorted([*self._members, *self._left], key=lambda child: child.name)
        self._screen.update([child.last for child in self._producers], [child.last for child in members])

    # -- the turns of the story

    async def _kill_leader(self, client: aio.Client) -> Kill:
        ends = await client.offsets(TOPIC, at="latest")
        partition = max(ends, key=lambda number: ends[number])
        leader, term = await self._leader(client, partition, after_term=0)
        node = self._cluster.nodes[leader]
        at = monotonic()
        os.kill(node.pid, signal.SIGKILL)
        self._screen.event(
            f"killed node {leader} (pid {node.pid}, SIGKILL), the leader of partition {partition} in term {term}"
        )
        try:
            successor, term_after = await self._leader(client, partition, after_term=term)
        except NoLeader:
            return Kill(leader, node.pid, partition, at, term, term)
        self._screen.event(f"node {successor} leads partition {partition} in term {term_after}")
        return Kill(leader, node.pid, partition, at, term, term_after)

    async def _leader(self, client: aio.Client, partition: int, after_term: int) -> tuple[int, int]:
        """Return the node that says itself that it leads a partition in a term above `after_term`, and its term.

        Raises:
            NoLeader: none does within ELECTION_SECONDS.
        """
        deadline = monotonic() + ELECTION_SECONDS
        while monotonic() < deadline:
            self._watch()
            try:
                nodes = (await client.cluster.status(timeout=2.0)).nodes
            except QuorumlogError as error:
                if not error.retriable:
                    raise
                nodes = ()
            found = [
                (replica.leader_epoch, node.node_id)
                for node in nodes
                for replica in node.replicas
                if (replica.topic, replica.partition, replica.leader) == (TOPIC, partition, node.node_id)
                and replica.leader_epoch > after_term
            ]
            if found:
                term, leader = max(found)
                return leader, term
            await asyncio.sleep(POLL_SECONDS)
        raise NoLeader(f"nobody leads partition {partition} in a term above {after_term}")

    async def _restart(self, node_id: int) -> Child:
        config = self._cluster.nodes[node_id].config
        child = await self._child(f"node {node_id}", "quorumlog", "node", "--config", str(config))
        self._others.append(child)
        self._screen.event(f"node {node_id} is started again (pid {child.pid})")
        return child

    async def _finish(self, client: aio.Client) -> int:
        """Stop the producers, let the group read what is left, stop the members; returns the records given up."""
        for producer in self._producers:
            producer.tell_to_stop()
        last = [await producer.wait() for producer in self._producers]
        self._screen.event("the producers have stopped; the group reads what is left")
        await self._drain(client)
        for member in self._members:
            member.tell_to_stop()
        for member in self._members:
            await member.wait()
        return sum(int(said["failed"]) for said in last)

    async def _drain(self, client: aio.Client) -> None:
        deadline = monotonic() + DRAIN_SECONDS
        while (lag := (await client.groups.describe(GROUP)).lag) > 0:
            if monotonic() >= deadline:
                raise ChildFailed(f"the group still lags {lag} records behind after {DRAIN_SECONDS:g} s")
            for member in self._members:
                member.check()
            self._update()
            await asyncio.sleep(POLL_SECONDS)

    async def _compare(self) -> Mapping[str, Any]:
        self._screen.event("a process of its own compares acknowledgements, every replica, and what was consumed")
        comparer = await self._child("comparer", "quorumlog.demo.comparer", *self._common())
        self._others.append(comparer)
        return await comparer.wait()


def _outcome(kill: Kill, failed: int, folder: Path, verdict: Mapping[str, Any]) -> Outcome:
    acks = list(read_acks(folder))
    before = sum(ack.acked_at <= kill.at for ack in acks)
    soon = sum(_shows_revival(ack, kill) for ack in acks)
    return Outcome(kill, before, len(acks) - before, soon, failed, verdict)


def _shows_revival(ack: Ack, kill: Kill) -> bool:
    """Whether the record can only have been acknowledged by a new leader of the partition, and soon."""
    return ack.partition == kill.partition and ack.sent_at > kill.at and ack.acked_at <= kill.at + REVIVAL_SECONDS

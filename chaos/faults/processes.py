"""Faults of processes: killed, paused, restarted."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from typing import Any

from quorumlog.chaos.faults.fault import Fault, Layout, end_task
from quorumlog.chaos.nodes import Node

TERM_SECONDS = 5.0
"""How long it is looked for the successor of a leader."""
LOOK_SECONDS = 0.05
AIM_SECONDS = 20.0
"""How long a fault waits for a node to be aimed at while other faults keep all of them down."""
STOPPED_SECONDS = 2.0


class _OneNode(Fault):
    """Aimed at a node: by its number, or as the leader of a partition when the fault begins."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.node: Node | None = None
        self._term = 0
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Aim at a leader in two of three cases."""
        if rng.random() < 2 / 3:
            return {"leader_of": [layout.topic, rng.randrange(layout.partitions)]}
        return {"node": rng.randint(1, layout.nodes)}

    async def find(self) -> Node:
        """Take aim. Where nobody leads just now, or that node is down already, at one drawn now; where all are down,
        when one is up again.
        """
        number = self.parameters.get("node")
        if number is None:
            topic, partition = self.parameters["leader_of"]
            lead = await self.scene.sight.lead(topic, partition)
            number = lead.node if lead is not None else self.scene.rng.choice(self.scene.numbers)
            self._term = lead.term if lead is not None else 0
        running = await self._running()
        if running and number not in running:
            number, self._term = self.scene.rng.choice(running), 0
        self.node = self.scene.supervisor.node(number)
        self.targets = [f"node {number}"]
        return self.node

    async def _running(self) -> list[int]:
        for _ in range(int(AIM_SECONDS / LOOK_SECONDS)):
            running = [node.number for node in self.scene.supervisor.nodes if node.pid is not None]
            if running:
                return running
            await asyncio.sleep(LOOK_SECONDS)
        return []

    def watch(self) -> None:
        """Look for the next leader in the background, if a leader was hit."""
        if self._term:
            self._watching = asyncio.create_task(self._note_successor())

    async def watched(self) -> None:
        """Look for it no longer."""
        watching, self._watching = self._watching, None
        await end_task(watching)

    async def _note_successor(self) -> None:
        topic, partition = self.parameters["leader_of"]
        lead = await self.scene.sight.until_led(topic, partition, above=self._term, seconds=TERM_SECONDS)
        if lead is not None:
            self.bit |= {"term_before": self._term, "term_after": lead.term, "new_leader": lead.node}


class Kill(_OneNode):
    """SIGKILL; the node stays down as long as the fault lasts."""

    kind = "kill"
    _held = False

    async def start(self) -> None:
        """Kill it."""
        node = await self.find()
        node.hold()
        self._held = True
        pid = node.pid
        if node.signal(signal.SIGKILL):
            ended = await node.until_ended()
            self.bit |= {"pid": pid, "exit_code": ended.status}
        self.watch()

    async def stop(self) -> None:
        """Let it come back."""
        await self.watched()
        if self.node is not None and self._held:
            self._held = False
            self.node.release()


class KillAll(Fault):
    """SIGKILL for every node at once; they stay down as long as the fault lasts."""

    kind = "kill_all"

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._held: list[Node] = []

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """There is nothing to choose."""
        return {}

    async def start(self) -> None:
        """Kill them."""
        nodes = self.scene.supervisor.nodes
        self.targets = [f"node {node.number}" for node in nodes]
        for node in nodes:
            node.hold()
            self._held.append(node)
        killed = [node for node in nodes if node.signal(signal.SIGKILL)]
        ends = await asyncio.gather(*(node.until_ended() for node in killed))
        if ends:
            self.bit = {"pids": [end.pid for end in ends], "exit_codes": [end.status for end in ends]}

    async def stop(self) -> None:
        """Let them come back."""
        while self._held:
            self._held.pop().release()


class Pause(_OneNode):
    """SIGSTOP, and SIGCONT when it is over."""

    kind = "pause"
    _pid: int | None = None

    async def start(self) -> None:
        """Pause it, and see that it stands still."""
        node = await self.find()
        self._pid = node.pid
        if not node.signal(signal.SIGSTOP) or self._pid is None:
            return
        for _ in range(int(STOPPED_SECONDS / LOOK_SECONDS)):
            state = process_state(self._pid)
            if state == "T":
                self.bit |= {"pid": self._pid, "state": state}
                break
            await asyncio.sleep(LOOK_SECONDS)
        self.watch()

    async def stop(self) -> None:
        """Continue it, if it is the same process still."""
        await self.watched()
        if self.node is not None and self._pid is not None and self.node.pid == self._pid:
            self.node.signal(signal.SIGCONT)


class RestartStorm(Fault):
    """Nodes are killed again and again, one every `every_seconds`, and started at once."""

    kind = "restart_storm"
    patience_seconds = 20.0
    _task: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the pace and whom it hits in turn."""
        return {
            "every_seconds": round(rng.uniform(0.5, 2.5), 2),
            "nodes": [rng.randint(1, layout.nodes) for _ in range(8)],
        }

    async def start(self) -> None:
        """Begin with the first one."""
        self.targets = [f"node {number}" for number in sorted(set(self.parameters["nodes"]))]
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        for number in self.parameters["nodes"]:
            node = self.scene.supervisor.node(number)
            pid = node.pid
            if node.signal(signal.SIGKILL):
                ended = await node.until_ended()
                self.bit.setdefault("exits", []).append([number, pid, ended.status])
            await asyncio.sleep(self.parameters["every_seconds"])

    async def stop(self) -> None:
        """Kill no more."""
        await end_task(self._task)
        self._task = None


class Rolling(Fault):
    """Every node is stopped in order, one after the other, and the next one only when the last one serves again."""

    kind = "rolling"
    patience_seconds = 20.0
    _task: asyncio.Task[None] | None = None

    @classmethod
    def draw(cls, rng: random.Random, layout: Layout) -> dict[str, Any]:
        """Draw the order."""
        order = list(range(1, layout.nodes + 1))
        rng.shuffle(order)
        return {"order": order}

    async def start(self) -> None:
        """Begin with the first one."""
        self.targets = [f"node {number}" for number in self.parameters["order"]]
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        for number in self.parameters["order"]:
            node = self.scene.supervisor.node(number)
            pid = node.pid
            if node.held or not node.signal(signal.SIGTERM):
                continue
            ended = await node.until_ended()
            self.bit.setdefault("exits", []).append([number, pid, ended.status])
            while True:
                told = await self.scene.sight.status(number)
                if told is not None and told.state == "member":
                    break
                await asyncio.sleep(LOOK_SECONDS)

    async def stop(self) -> None:
        """Stop no further one."""
        await end_task(self._task)
        self._task = None


def process_state(pid: int) -> str:
    """The state of a process as /proc has it, such as R, S, T or Z; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""

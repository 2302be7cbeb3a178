"""One run: nodes, proxies and clients are started, faults come and go, everything heals, and every replica is read."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from quorumlog import aio
from quorumlog.chaos import schedule
from quorumlog.chaos.clients import ClientProgram
from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.faults.fault import Fault, Layout, Scene
from quorumlog.chaos.final_reads import read_replica
from quorumlog.chaos.history.writer import Recorder, Recording
from quorumlog.chaos.site import serving_cluster, until_whole
from quorumlog.chaos.workloads.catalogue import WORKLOADS, Workload
from quorumlog.chaos.workloads.program import Place, living
from quorumlog.chaos.workloads.wire import Wire
from quorumlog.clock import monotonic
from quorumlog.errors import InvalidRequest

AFTERWARDS_SECONDS = 6.0
"""For how long clients go on when everything is healed."""
DRAIN_SECONDS = 120.0
READ_SECONDS = 30.0
CREATE_SECONDS = 30.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run is to be. `replay` is a schedule to take instead of drawing one."""

    directory: Path
    nodes: int
    seconds: float
    seed: int
    faults: tuple[str, ...]
    workloads: tuple[str, ...]
    replay: Path | None = None


class Run:
    """One run, which leaves a folder to be judged.

    Args:
        orders: what it is to be.
        say: hears what happens, a line at a time.
    """

    def __init__(self, orders: Orders, say: Callable[[str], None]) -> None:
        self._orders = orders
        self._say = say
        self._rng = random.Random(orders.seed)
        self._workloads = [WORKLOADS[name] for name in orders.workloads]
        aimed = self._workloads[0]
        layout = Layout(orders.nodes, schedule.victims(self._rng, orders.nodes), aimed.topic, aimed.partitions)
        if orders.replay is not None:
            self.plan = schedule.load(orders.replay, orders.nodes)
        else:
            self.plan = schedule.draw(self._rng, layout, orders.faults, orders.seconds)

    async def run(self) -> None:
        """Do it from beginning to end; nothing is left running, however it ends.

        Raises:
            QuorumlogError: the cluster could not be brought up, or a program of the run failed.
        """
        directory = self._orders.directory
        if directory.exists() and any(directory.iterdir()):
            raise InvalidRequest(f"{directory} is not empty", hint="give a new folder with --directory")
        directory.mkdir(parents=True, exist_ok=True)
        schedule.save(self.plan, directory / "schedule.json")
        self._say(f"{self._orders.nodes} nodes are started; the seed is {self._orders.seed}")
        async with serving_cluster(directory, self._orders.nodes, self._rng) as scene:
            await self._create_topics(scene)
            began = monotonic()
            await self._trouble(scene, began)
            missing = await until_whole(scene, DRAIN_SECONDS)
            if missing:
                self._say(f"the cluster is not whole after {DRAIN_SECONDS:g} s: {'; '.join(missing[:5])}")
            else:
                self._say("the cluster is whole; every replica is read")
            await self._read_everything(scene)
            await scene.supervisor.stop()
            self._write_facts(scene, began, missing)

    async def _create_topics(self, scene: Scene) -> None:
        async with aio.connect(_addresses(scene), client_id="chaos") as client:
            for workload in self._workloads:
                replicas = min(3, self._orders.nodes)
                await client.topics.create(
                    workload.topic, partitions=workload.partitions, replicas=replicas, timeout=CREATE_SECONDS
                )

    # ----------------------------------------------------------------------------------------------------- the trouble

    async def _trouble(self, scene: Scene, began: float) -> None:
        """Let clients work while faults come and go, and stop them when everything is healed.

        Raises:
            ClientFailed: a client ended by itself.
        """
        clients = [self._program(workload, scene) for workload in self._workloads]
        try:
            for client in clients:
                client.start()
            self._say(f"the clients work; {len(self.plan)} faults are planned")
            await self._inflict_all(scene, clients, began)
            await asyncio.sleep(AFTERWARDS_SECONDS)
            self._say("everything is healed; the clients stop")
            for client in clients:
                await client.stop()
        finally:
            for client in clients:
                client.end()

    def _program(self, workload: Workload, scene: Scene) -> ClientProgram:
        told = {
            "directory": self._orders.directory,
            "bootstrap": ",".join(_addresses(scene)),
            "topic": workload.topic,
            "partitions": workload.partitions,
            "rate": workload.rate,
            "padding": workload.padding,
            "seed": self._rng.getrandbits(32),
        }
        arguments = [word for name, value in told.items() for word in (f"--{name}", str(value))]
        log = self._orders.directory / "clients" / f"{workload.name}.log"
        return ClientProgram(workload.name, log, workload.module, *arguments)

    async def _inflict_all(self, scene: Scene, clients: Sequence[ClientProgram], began: float) -> None:
        """Inflict every fault in its time.

        Raises:
            QuorumlogError: a client ended by itself, or a node did not do what a fault needs.
        """
        nemesis = Recorder(self._orders.directory, "nemesis")
        end = began + self._orders.seconds
        try:
            async with asyncio.TaskGroup() as group:
                for planned in self.plan:
                    group.create_task(self._inflict(scene, nemesis, planned, began))
                group.create_task(_watch(clients, end))
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            nemesis.close()

    async def _inflict(self, scene: Scene, nemesis: Recorder, planned: schedule.Planned, began: float) -> None:
        await asyncio.sleep(max(0.0, began + planned.at_seconds - monotonic()))
        fault = FAULTS[planned.fault](scene, planned.parameters)
        told = {"kind": fault.kind, "params": dict(fault.parameters), "seed": self._orders.seed}
        operation = nemesis.invoke("nemesis", phase="start", targets=[], **told)
        try:
            await fault.start()
            self._say(f"{planned.at_seconds:6.1f} s  {fault.kind} {' '.join(fault.targets)}")
            end = began + planned.end_seconds
            await asyncio.sleep(max(0.0, end - monotonic()))
            for _ in range(int(fault.patience_seconds / LOOK_SECONDS)):
                if not fault.bit:
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._end(fault, operation, told)

    async def _end(self, fault: Fault, operation: Recording, told: dict[str, object]) -> None:
        await fault.stop()
        operation.ok(phase="stop", targets=fault.targets, bit=fault.bit, **told)
        if not fault.bit:
            self._say(f"          {fault.kind} {' '.join(fault.targets)} did not bite")

    # -------------------------------------------------------------------------------------------------------- the end

    async def _read_everything(self, scene: Scene) -> None:
        wire = Wire(_addresses(scene), self._rng)
        recorder = Recorder(self._orders.directory, "final")
        try:
            statuses = await scene.sight.statuses()
            places = [Place(workload.topic, workload.partitions) for workload in self._workloads]
            for place in [*places, *living(self._orders.directory)]:
                for partition in range(place.partitions):
                    held = {
                        number
                        for number, told in statuses.items()
                        for replica in told.replicas
                        if (replica.topic, replica.partition) == (place.topic, partition)
                    }
                    for node in sorted(held):
                        await read_replica(wire, recorder, node, place, partition, seconds=READ_SECONDS)
        finally:
            recorder.close()
            await wire.close()

    def _write_facts(self, scene: Scene, began: float, missing: list[str]) -> None:
        exits = sorted((one for node in scene.supervisor.nodes for one in node.exits), key=lambda one: one.at_seconds)
        facts = {
            "seed": self._orders.seed,
            "nodes": self._orders.nodes,
            "seconds": self._orders.seconds,
            "faults": sorted({planned.fault for planned in self.plan}),
            "workloads": list(self._orders.workloads),
            "version": _version(),
            "began_ns": int(began * 1e9),
            "ended_ns": int(monotonic() * 1e9),
            "exits": [asdict(one) for one in exits],
            "starts": {str(node.number): node.starts for node in scene.supervisor.nodes},
            "lacking": missing,
            "bugs": [line for node in scene.supervisor.nodes for line in node.bugs()],
            "retention": None,
        }
        (self._orders.directory / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


async def _watch(clients: Sequence[ClientProgram], end: float) -> None:
    while monotonic() < end:
        for client in clients:
            client.check()
        await asyncio.sleep(LOOK_SECONDS)


def _addresses(scene: Scene) -> list[str]:
    return [node.client_address for node in scene.supervisor.nodes]


def _version() -> str:
    try:
        return version("quorumlog")
    except PackageNotFoundError:
        return "0+unknown"

"""Single faults: what they do, that they can be ended at any time, and what shows that they bit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quorumlog.chaos.faults.catalogue import FAULTS
from quorumlog.chaos.faults.fault import Fault, Layout, Scene
from quorumlog.chaos.faults.processes import process_state
from quorumlog.chaos.faults.proxy import Proxy
from quorumlog.chaos.nodes import Node, Supervisor
from quorumlog.chaos.sight import Sight

WAIT_SECONDS = 20.0
LAYOUT = Layout(nodes=3, victims=(2,), topic="orders", partitions=4)
PROCESSES = ("kill", "kill_all", "pause", "restart_storm", "rolling")
LINKS = ("halves", "isolate", "one_way", "ring", "bridge", "flapping", "delay", "rate", "stall", "reset")
DISKS = ("flip", "truncate", "delete", "wipe")
SERVES = "import signal; signal.pause()"
FILES = {"db/000007.sst": 5000, "db/000009.log": 300, "db/CURRENT": 16, "votes": 64, "quarantine/1/000001.sst": 100}


class Blind(Sight):
    """Sees nothing: its nodes answer nobody."""

    async def statuses(self, seconds: float = 1.0) -> dict[int, Any]:
        return {}


class Stage:
    """Three processes that do nothing, and a proxy that nobody dials."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __aenter__(self) -> Scene:
        nodes = [self._node(number) for number in (1, 2, 3)]
        self._supervisor = await Supervisor(nodes).__aenter__()
        proxy = Proxy(lambda own, remote: None, random.Random(1))
        return Scene(self._supervisor, proxy, Blind(nodes), random.Random(1))

    async def __aexit__(self, *error: object) -> None:
        await self._supervisor.__aexit__(*error)

    def _node(self, number: int) -> Node:
        node = Node(
            number,
            self.folder / str(number),
            self.folder / f"{number}.log",
            client_address="127.0.0.1:1",
            peer_address="127.0.0.1:2",
            advertised="127.0.0.1:3",
            settings={},
            program=("-c", SERVES),
        )
        for name, size in FILES.items():
            path = node.data / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"\0" * size)
        return node


def made(scene: Scene, kind: str, **parameters: Any) -> Fault:
    return FAULTS[kind](scene, FAULTS[kind].draw(random.Random(1), LAYOUT) | parameters)


def on_stage(folder: Path, play: Any) -> None:
    async def run() -> None:
        async with Stage(folder) as scene, asyncio.timeout(WAIT_SECONDS):
            await play(scene)

    asyncio.run(run())


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_a_fault_can_be_ended_before_it_began_and_twice(tmp_path: Path, kind: str) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, kind)
        await fault.stop()
        assert fault.bit == {}
        await fault.start()
        await fault.stop()
        await fault.stop()
        assert fault.targets
        assert not any(node.held for node in scene.supervisor.nodes)

    if kind != "transfer":  # it waits for answers of a cluster
        on_stage(tmp_path, play)


@pytest.mark.parametrize("kind", ["kill", "kill_all", "restart_storm"])
def test_what_is_killed_shows_its_exit_code(tmp_path: Path, kind: str) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, kind)
        await fault.start()
        while not fault.bit:  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.01)
        await fault.stop()
        assert -9 in flat(fault.bit.values())

    on_stage(tmp_path, play)


def test_a_paused_node_shows_its_state_and_goes_on(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, "pause", node=2)
        await fault.start()
        assert fault.targets
        assert fault.bit["state"] == "T"
        pid = fault.bit["pid"]
        await fault.stop()
        while process_state(pid) == "T":  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.01)

    on_stage(tmp_path, play)


def test_a_node_that_is_down_is_not_killed_again_but_another_one(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        first = FAULTS["kill"](scene, {"node": 1})
        second = FAULTS["kill"](scene, {"node": 1})
        await first.start()
        await second.start()
        assert first.targets == ["node 1"]
        assert second.targets in (["node 2"], ["node 3"])
        assert second.bit["exit_code"] == -9
        await first.stop()
        await second.stop()

    on_stage(tmp_path, play)


def test_a_kill_while_all_are_down_waits_for_one_that_is_up(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        everybody = made(scene, "kill_all")
        one = made(scene, "kill")
        await everybody.start()
        killing = asyncio.create_task(one.start())
        await asyncio.sleep(0)
        await everybody.stop()
        await killing
        await one.stop()
        assert one.bit["exit_code"] == -9

    on_stage(tmp_path, play)


@pytest.mark.parametrize("kind", LINKS)
def test_ways_are_as_before_when_a_fault_of_links_is_over(tmp_path: Path, kind: str) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, kind)
        await fault.start()
        await fault.stop()
        for a, b in fault.parameters["ways"]:
            way = scene.proxy.way(a, b)
            assert not way.held
            assert not way.stall_in_frame
            assert (way.delay_seconds, way.jitter_seconds, way.rates) == (0.0, 0.0, [])

    on_stage(tmp_path, play)


def test_what_another_partition_holds_already_is_held_by_the_second_as_well(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        one = made(scene, "isolate", ways=[[1, 2]], afterwards="resume")
        two = made(scene, "halves", ways=[[1, 2]], afterwards="resume")
        await one.start()
        chunk = asyncio.create_task(scene.proxy.way(1, 2).until_open())
        await asyncio.sleep(0)
        await two.start()
        await two.stop()
        assert not chunk.done()
        await one.stop()
        await chunk
        assert one.bit == two.bit == {"chunks_held": 1}

    on_stage(tmp_path, play)


def test_two_delays_of_one_way_add_up_and_end_by_themselves(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        way = scene.proxy.way(1, 2)
        one = made(scene, "delay", ways=[[1, 2]], delay_seconds=0.1, jitter_seconds=0.2)
        two = made(scene, "delay", ways=[[1, 2]], delay_seconds=0.3, jitter_seconds=0.0)
        await one.start()
        await two.start()
        assert way.delay_seconds == pytest.approx(0.4)
        await one.stop()
        assert (way.delay_seconds, way.jitter_seconds) == pytest.approx((0.3, 0.0))
        await two.stop()
        assert way.delay_seconds == 0.0

    on_stage(tmp_path, play)


@pytest.mark.parametrize("kind", DISKS)
def test_what_is_done_to_a_disk_is_told_exactly_and_is_drawn_from_its_seed(tmp_path: Path, kind: str) -> None:
    harms = []

    async def play(scene: Scene) -> None:
        fault = made(scene, kind)
        await fault.start()
        node = scene.supervisor.node(2)
        assert fault.targets == ["node 2"]
        assert node.pid is None
        left = {
            str(path.relative_to(node.data)): path.stat().st_size for path in node.data.rglob("*") if path.is_file()
        }
        harms.append((fault.bit["harm"], left))
        await fault.stop()

    on_stage(tmp_path / "1", play)
    on_stage(tmp_path / "2", play)
    assert harms[0] == harms[1]
    assert "quarantine/1/000001.sst" not in str(harms[0][0])


def test_flipped_bits_are_those_that_are_told(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, "flip", files="table")
        await fault.start()
        content = (scene.supervisor.node(2).data / "db/000007.sst").read_bytes()
        flipped = {(at, bit) for at, byte in enumerate(content) for bit in range(8) if byte >> bit & 1}
        assert flipped == {(one["at"], one["bit"]) for one in fault.bit["harm"]}
        await fault.stop()

    on_stage(tmp_path, play)


def test_a_class_of_files_that_is_not_there_gives_way_to_the_next(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        fault = made(scene, "delete", files="manifest")
        await fault.start()
        assert [one["file"] for one in fault.bit["harm"]] == ["db/000007.sst"]
        await fault.stop()

    on_stage(tmp_path, play)


def flat(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += flat(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return found

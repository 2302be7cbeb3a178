"""The nodes of a run and who starts them again, with a program that does as it is told instead of a server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from quorumlog.chaos.nodes import Node, NodeFailed, Supervisor

WAIT_SECONDS = 20.0
SERVES = "import signal; signal.pause()"
STOPS = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)
IS_STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
FAILS = "import sys; sys.exit(3)"


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing else tells it
            await asyncio.sleep(0.005)


def supervised(folder: Path, code: str, play: Callable[[Node, Supervisor], Awaitable[None]]) -> Node:
    node = Node(
        1,
        folder / "node",
        folder / "node.log",
        client_address="127.0.0.1:1",
        peer_address="127.0.0.1:2",
        advertised="127.0.0.1:3",
        settings={"coordination": True, "tick_seconds": 0.05},
        program=("-c", code),
    )

    async def run() -> None:
        async with Supervisor([node]) as supervisor:
            await play(node, supervisor)

    asyncio.run(run())
    assert node.pid is None, "nothing is left running"
    return node


def test_what_was_killed_is_started_again(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        first = node.pid
        node.signal(signal.SIGKILL)
        ended = await node.until_ended()
        assert (ended.pid, ended.status, ended.expected) == (first, -signal.SIGKILL, True)
        await eventually(lambda: node.pid not in (None, first))

    assert supervised(tmp_path, SERVES, play).starts == 2


def test_what_is_held_stays_down_until_everybody_has_let_go(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        node.hold()
        node.hold()
        node.signal(signal.SIGKILL)
        await node.until_ended()
        node.release()
        node.supervise()
        assert node.pid is None
        node.release()
        node.supervise()
        assert node.pid is not None

    supervised(tmp_path, SERVES, play)


def test_what_ends_by_itself_is_started_again_later_and_later(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        await eventually(lambda: len(node.exits) == 3)

    node = supervised(tmp_path, FAILS, play)
    assert [one.status for one in node.exits[:3]] == [3, 3, 3]
    assert not any(one.expected for one in node.exits[:3])
    first, second, third = (one.at_seconds for one in node.exits[:3])
    assert second - first >= 0.2
    assert third - second >= 0.5


def test_stopping_waits_for_the_end_and_starts_nothing_again(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        await eventually(lambda: node.last_words() == "up")
        await supervisor.stop()

    node = supervised(tmp_path, STOPS, play)
    assert node.exits[0].status == 0
    assert node.exits[0].expected


def test_a_paused_node_is_stopped_as_well(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        await eventually(lambda: node.last_words() == "up")
        node.signal(signal.SIGSTOP)
        await supervisor.stop()

    assert supervised(tmp_path, STOPS, play).exits[0].status == 0


def test_a_node_that_does_not_stop_is_named_and_ended(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        await eventually(lambda: node.last_words() == "up")
        node.signal(signal.SIGTERM)
        with pytest.raises(NodeFailed, match=r"node 1 \(pid \d+\) did not end in 0.01 s"):
            await node.until_ended(0.01)

    assert supervised(tmp_path, IS_STUBBORN, play).exits[0].status == -signal.SIGKILL


def test_it_is_ended_when_the_run_is_broken_off(tmp_path: Path) -> None:
    class BrokenOffError(Exception):
        pass

    async def play(node: Node, supervisor: Supervisor) -> None:
        raise BrokenOffError

    with pytest.raises(BrokenOffError):
        supervised(tmp_path, SERVES, play)


def test_its_configuration_has_what_it_needs(tmp_path: Path) -> None:
    async def play(node: Node, supervisor: Supervisor) -> None:
        return

    supervised(tmp_path, SERVES, play)
    assert (tmp_path / "node" / "node.toml").read_text().splitlines()[-3:] == [
        'host = "host-1"',
        "coordination = true",
        "tick_seconds = 0.05",
    ]

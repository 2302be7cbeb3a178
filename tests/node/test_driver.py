"""The driver: whatever goes wrong while it carries a broker ends the node, and nothing runs after that."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from quorumlog.node.clock import SystemClock
from quorumlog.node.driver import Driver
from quorumlog.node.errors import StorageFailed
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.raft import NodeId


class Panic(BaseException):
    """What a library of another language raises when it gives up; it is no Exception."""


class Pumped:
    """A broker as the driver sees one."""

    def __init__(self, work: Callable[[], None] = lambda: None) -> None:
        self._work = work
        self.pumps = 0

    def pump(self) -> bool:
        self.pumps += 1
        self._work()
        return False


def opened_folder() -> tuple[Opened, MemoryStorage]:
    files = MemoryFileSystem()
    database = MemoryDatabase(files, random.Random(1).randbytes)
    opened = open_node(files, database, NodeId(1), random.Random(2).randbytes)
    assert database.storage is not None
    return opened, database.storage


def run(test: Callable[[Driver, MemoryStorage, asyncio.Future[BaseException]], Any]) -> None:
    async def main() -> None:
        failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        opened, storage = opened_folder()
        driver = Driver(opened, SystemClock(), failure.set_result)
        try:
            await test(driver, storage, failure)
        finally:
            await driver.stop()

    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("a bug"), Panic("a bug elsewhere")])
def test_what_a_turn_raises_ends_the_node(error: BaseException) -> None:
    def work() -> None:
        raise error

    async def test(driver: Driver, storage: MemoryStorage, failure: asyncio.Future[BaseException]) -> None:
        broker = Pumped(work)
        driver.carry(broker)  # type: ignore[arg-type]  # all that the driver uses of one
        assert await failure is error
        driver.wake()
        await asyncio.sleep(0)
        assert broker.pumps == 1, "nothing runs after it"

    run(test)


@pytest.mark.parametrize("error", [ValueError("a bug"), Panic("a bug elsewhere")])
def test_what_happens_after_a_sync_ends_the_node_as_well(error: BaseException) -> None:
    def done() -> None:
        raise error

    async def test(driver: Driver, storage: MemoryStorage, failure: asyncio.Future[BaseException]) -> None:
        driver.submit_sync(votes=True, done=done)
        assert await failure is error

    run(test)


def test_a_sync_that_fails_ends_the_node_and_is_never_done() -> None:
    async def test(driver: Driver, storage: MemoryStorage, failure: asyncio.Future[BaseException]) -> None:
        storage.fail_next_sync = StorageFailed("the disk is gone")
        over = asyncio.Event()
        driver.submit_sync(votes=True, done=over.set)
        failure.add_done_callback(lambda _: over.set())
        await over.wait()
        assert failure.done(), "the sync is done, though it failed"
        assert "the disk is gone" in str(failure.result())

    run(test)


def test_after_a_failure_nobody_waits_for_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    async def test(driver: Driver, storage: MemoryStorage, failure: asyncio.Future[BaseException]) -> None:
        monkeypatch.setattr(storage, "sync", released.wait)
        driver.submit_sync(votes=False, done=lambda: None)
        driver.fail(StorageFailed("a read failed"))
        await driver.stop()
        assert not released.is_set()
        released.set()

    run(test)

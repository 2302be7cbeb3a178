"""Calls from a thread into the loop, and what an interrupt leaves behind."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from quorumlog.portal import Portal


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_an_interrupt_before_the_wait_begins_cancels_what_would_have_been_waited_for(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal handler does that raises between two lines of the standard library."""
    cancelled = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    begin = asyncio.run_coroutine_threadsafe

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        begin(work, loop)
        begin(asyncio.sleep(0), loop).result(10)  # so that the loop has begun with it
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.call(work())
    assert cancelled.wait(10)


def test_what_an_interrupt_finds_not_begun_never_begins(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        # The loop takes it up only after it was given up.
        loop.call_soon_threadsafe(lambda: loop.call_soon(lambda: loop.create_task(work)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        gate = threading.Event()
        portal.loop.call_soon_threadsafe(gate.wait)
        with pytest.raises(KeyboardInterrupt):
            portal.call(work())
        gate.set()
    portal.call(asyncio.sleep(0))
    portal.call(asyncio.sleep(0))
    assert begun == []


def test_a_result_and_an_error_come_back(portal: Portal) -> None:
    async def fails() -> None:
        raise ZeroDivisionError("in the loop")

    assert portal.call(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(ZeroDivisionError, match="in the loop"):
        portal.call(fails())

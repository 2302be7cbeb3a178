"""Calls from a thread into the loop, and what an interrupt leaves behind."""

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from quorumlog.errors import Closed, InvalidRequest
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


def in_a_thread(portal: Portal, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
    """Return what `portal.call(work)` returns or raises in a thread that waits for it."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(portal.call(work))
        except BaseException as error:  # noqa: BLE001 - raised where the future is asked
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of the callback that exits
@pytest.mark.parametrize("how", ["closed", "ended by a callback that exits"])
def test_a_call_under_way_is_told_that_the_portal_was_closed(portal: Portal, how: str) -> None:
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    call = in_a_thread(portal, work())
    assert begun.wait(10)
    if how == "closed":
        portal.close()
    else:
        portal.loop.call_soon_threadsafe(sys.exit)
    with pytest.raises(Closed, match="connect again"):
        call.result(10)
    with pytest.raises(Closed, match="connect again"):
        portal.call(work())


def test_a_call_that_comes_while_others_are_cut_off_is_told_so_at_once(portal: Portal) -> None:
    begun = threading.Event()
    late: list[BaseException | None] = []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            call = in_a_thread(portal, asyncio.Event().wait())
            late.append(await asyncio.to_thread(call.exception, 10))

    in_a_thread(portal, work())
    assert begun.wait(10)
    portal.close()
    assert [type(error) for error in late] == [Closed]


def test_what_is_handed_over_behind_the_last_look_is_told_so(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop takes up nothing any more, and is not closed yet."""
    begin, close = asyncio.run_coroutine_threadsafe, portal.loop.close
    closing, handed_over = threading.Event(), threading.Event()

    def check_passed(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        portal.loop.call_soon_threadsafe(loop.stop)
        assert closing.wait(10)
        future = begin(work, loop)
        handed_over.set()
        return future

    def close_late() -> None:
        closing.set()
        assert handed_over.wait(10)
        close()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", check_passed)
    monkeypatch.setattr(portal.loop, "close", close_late)
    call = in_a_thread(portal, asyncio.Event().wait())
    with pytest.raises(Closed, match="connect again"):
        call.result(20)


def test_what_a_signal_handler_closes_in_the_middle_of_a_call_is_closed(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = asyncio.run_coroutine_threadsafe

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        portal.close()
        return begin(work, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
    with pytest.raises(Closed, match="connect again"):
        portal.call(asyncio.Event().wait())


def test_a_call_in_the_loops_own_thread_is_refused_and_changes_nothing(portal: Portal) -> None:
    async def work() -> None:
        portal.call(asyncio.sleep(0))

    with pytest.raises(InvalidRequest, match="do it in another thread"):
        portal.call(work())
    assert portal.call(asyncio.sleep(0, "still open")) == "still open"


def test_a_second_close_does_not_end_what_the_first_has_begun(portal: Portal) -> None:
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            portal._stop()  # as a second thread's close does while the first one cuts this off

    call = in_a_thread(portal, work())
    assert begun.wait(10)
    portal.close()
    assert (type(call.exception(10)), portal.loop.is_closed()) == (Closed, True)

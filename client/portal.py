"""A bridge from threads to one event loop that runs in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

from quorumlog.errors import Closed, InvalidRequest
from quorumlog.process import PROCESS, check_process

_T = TypeVar("_T")


class Portal:
    """An event loop in a daemon thread, and a way to call into it.

    Waiting happens in the calling thread on a lock that signals interrupt, so Ctrl-C ends every wait; what was waited
    for is cancelled.
    """

    def __init__(self) -> None:
        self._process = PROCESS.generation
        self.loop = asyncio.new_event_loop()
        self._closed = False
        self._ended = False
        self._waited_for: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="quorumlog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self._closed = True
            self._cut_off()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
            # Whoever handed something over in the last moment is either seen here or sees this himself: no lock, which
            # a signal handler that closes could meet held by the very call it interrupted.
            self._ended = True
            for future in list(self._waited_for):
                future.cancel()

    def _cut_off(self) -> None:
        while True:
            self.loop.run_until_complete(asyncio.sleep(0))  # what was handed over before begins, to be cancelled
            pending = asyncio.all_tasks(self.loop)
            if not pending:
                return
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))

    def call(self, work: Coroutine[Any, Any, _T], *, patience_seconds: float | None = None) -> _T:
        """Run `work` in the loop and return its result; whatever it raises is raised here.

        Raises:
            TimeoutError: not within `patience_seconds`, whatever the loop is held by; None waits without limit.
            ForkedProcess: the loop belongs to the process that forked this one.
            Closed: the portal is, or was before the work ended.
            InvalidRequest: called from the loop's own thread, which would then wait for itself.
        """
        call = _Call(work)
        try:
            self.check_thread()
            if self._closed:
                raise _closed()
        except Exception:
            work.close()
            raise
        running = call.run()
        try:
            return self._wait(running, patience_seconds)
        except CancelledError:
            # Where the loop took it up it has ended; where it did not, nobody else will.
            running.close()
            work.close()
            raise _closed() from None
        except BaseException:
            # Ctrl-C may come when the loop has the work already and this thread not yet the future to cancel it by.
            with contextlib.suppress(RuntimeError):  # the portal was closed, and the work with it
                self.loop.call_soon_threadsafe(call.give_up)
            raise

    def _wait(self, running: Coroutine[Any, Any, _T], patience_seconds: float | None) -> _T:
        try:
            future = asyncio.run_coroutine_threadsafe(running, self.loop)
        except RuntimeError:
            raise CancelledError from None  # the loop is closed
        self._waited_for.add(future)
        try:
            if self._ended:
                future.cancel()
            return future.result(patience_seconds)
        finally:
            self._waited_for.discard(future)

    def check_thread(self) -> None:
        """Raise unless this thread may wait for the loop: ForkedProcess and InvalidRequest, as `call` does."""
        check_process(self._process, "client")
        if threading.current_thread() is self._thread:
            raise InvalidRequest(
                "a callback of the client's own thread cannot wait for the client",
                hint="do it in another thread, or use quorumlog.aio",
            )

    def close(self) -> None:
        """Stop the loop and end its thread; calls that are under way raise Closed."""
        if self._process != PROCESS.generation:
            return
        with contextlib.suppress(RuntimeError):  # another thread closes it as well, and was faster
            self.loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def _stop(self) -> None:
        if not self._closed:  # a second stop would end what the first has begun
            self.loop.stop()


def _closed() -> Closed:
    return Closed("the client is closed", hint="connect again")


class _Call(Generic[_T]):
    """Work on its way into the loop, which can be given up at any moment."""

    def __init__(self, work: Coroutine[Any, Any, _T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    async def run(self) -> _T:
        self._task = asyncio.current_task()
        if self._given_up:
            self._work.close()
            raise asyncio.CancelledError
        return await self._work

    def give_up(self) -> None:
        """Cancel the work, begun or not; nothing where it is done. In the loop."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

"""A bridge from threads to one event loop that runs in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
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
        self._thread = threading.Thread(target=self._run, name="quorumlog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            if pending:
                self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run `work` in the loop and return its result; whatever it raises is raised here.

        Raises:
            ForkedProcess: the loop belongs to the process that forked this one.
            Closed: the portal is.
            InvalidRequest: called from the loop's own thread, which would then wait for itself.
        """
        try:
            self._check()
        except Exception:
            work.close()
            raise
        call = _Call(work)
        try:
            return asyncio.run_coroutine_threadsafe(call.run(), self.loop).result()
        except BaseException:
            # Ctrl-C may come when the loop has the work already and this thread not yet the future to cancel it by.
            with contextlib.suppress(RuntimeError):  # the portal was closed, and the work with it
                self.loop.call_soon_threadsafe(call.give_up)
            raise

    def _check(self) -> None:
        check_process(self._process, "client")
        if not self._thread.is_alive() or self.loop.is_closed():
            raise Closed("the client is closed", hint="connect again")
        if threading.current_thread() is self._thread:
            raise InvalidRequest(
                "a callback of the client's own thread cannot wait for the client",
                hint="do it in another thread, or use quorumlog.aio",
            )

    def close(self) -> None:
        """Stop the loop and end its thread."""
        if self._process != PROCESS.generation or not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


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

"""Carries a broker on an event loop: one run per burst of inputs, its timers, its syncs and cold reads in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from quorumlog.node.broker.broker import Broker
from quorumlog.node.clock import Clock
from quorumlog.node.storage.interface import Family, Storage
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.watermark import WatermarkPacer
from quorumlog.node.timers import Timers

T = TypeVar("T")


class _Syncer:
    """The broker's view of `Driver.submit_sync`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def submit(self, *, votes: bool, done: Callable[[], None]) -> None:
        self._driver.submit_sync(votes=votes, done=done)


class _ColdReader:
    """The broker's view of `Driver.submit_read`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def submit(self, read: Callable[[Storage], T], done: Callable[[T], None]) -> None:
        self._driver.submit_read(read, done)


class Driver:
    """Runs one broker.

    Anything that goes wrong in the broker, or in a thread that works for it, ends the node: `on_failure` is called once
    with the exception, and nothing runs after it.
    """

    def __init__(self, opened: Opened, clock: Clock, on_failure: Callable[[BaseException], None]) -> None:
        self.timers = Timers()
        self.clock = clock
        self._opened = opened
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._broker: Broker | None = None
        self._scheduled = False
        self._failed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_due = 0.0
        self._watermark_awaited = False
        self.syncer = _Syncer(self)
        self.cold_reader = _ColdReader(self)
        self.pacer = WatermarkPacer(opened.watermark.mark.sequence)
        # One thread each: syncs of one file never overlap, and a vote need not wait for the database.
        self._sync_thread = ThreadPoolExecutor(1, "sync")
        self._votes_thread = ThreadPoolExecutor(1, "votes")
        self._read_threads = ThreadPoolExecutor(2, "read")
        self._slow_thread = ThreadPoolExecutor(1, "reclaim")

    def carry(self, broker: Broker) -> None:
        """Begin to run `broker`."""
        self._broker = broker
        self.wake()

    def wake(self) -> None:
        """Have the broker run once what is ready on the loop has been taken in."""
        if not self._scheduled and not self._failed:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        broker = self._broker
        if broker is None or self._failed:
            return
        try:
            self.timers.run(self.clock.now())
            if broker.pump():
                self.wake()
        except BaseException as error:  # noqa: BLE001 # see `fail`; a panic of the database is no Exception
            self.fail(error)
            return
        self._publish_watermark()
        self._arm()

    def _arm(self) -> None:
        """One alarm, for the next deadline."""
        due = self.timers.next_due()
        if due is None or (self._alarm is not None and self._alarm_due <= due):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_due = due
        self._alarm = self._loop.call_later(max(0.0, due - self.clock.now()), self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._run()

    def fail(self, error: BaseException) -> None:
        """Stop for good: whatever it is that went wrong in the middle of a turn, the node cannot go on from there."""
        if not self._failed:
            self._failed = True
            self._on_failure(error)

    # ------------------------------------------------------------------------------------------------------- threads

    def submit_sync(self, *, votes: bool, done: Callable[[], None]) -> None:
        """Sync the database and, if asked, the votes file, at the same time; then call `done` on the loop."""
        waiting = 2 if votes else 1

        def on_done() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0 and not self._failed:
                done()
                self._run()  # at once: somebody waits for what is durable now

        self._in_thread(self._sync_thread, self._opened.storage.sync, lambda _: on_done())
        if votes:
            self._in_thread(self._votes_thread, self._opened.votes.sync, lambda _: on_done())

    def submit_read(self, read: Callable[[Storage], T], done: Callable[[T], None]) -> None:
        """Read; then call `done` on the loop."""

        def on_read(result: T) -> None:
            done(result)
            self.wake()

        self._in_thread(self._read_threads, lambda: read(self._opened.storage), on_read)

    def reclaim(self, family: Family, start: bytes, end_exclusive: bytes) -> None:
        """Give the space of deleted keys back, by and by."""
        self._in_thread(
            self._slow_thread, lambda: self._opened.storage.reclaim(family, start, end_exclusive), lambda _: None
        )

    def _publish_watermark(self) -> None:
        sequence = self.pacer.take(self.clock.now())
        if sequence is None:
            due = self.pacer.due_at()
            if due is not None and not self._watermark_awaited:
                self._watermark_awaited = True
                self.timers.at(due, self._stop_awaiting_watermark)
            return
        self._in_thread(
            self._votes_thread, lambda: self._opened.watermark.publish(sequence), lambda _: self.pacer.on_published()
        )

    def _stop_awaiting_watermark(self) -> None:
        self._watermark_awaited = False

    def _in_thread(self, thread: ThreadPoolExecutor, work: Callable[[], T], done: Callable[[T], None]) -> None:
        def on_finished(future: Future[T]) -> None:
            self._loop.call_soon_threadsafe(on_loop, future)

        def on_loop(future: Future[T]) -> None:
            error = future.exception()
            if error is not None:
                self.fail(error)
            elif not self._failed:
                try:
                    done(future.result())
                except BaseException as failure:  # noqa: BLE001 # as in `_run`
                    self.fail(failure)

        thread.submit(work).add_done_callback(on_finished)

    async def stop(self) -> None:
        """Run nothing any more, and wait for the threads; after a failure not even that: a disk may never answer."""
        failed, self._failed = self._failed, True
        if self._alarm is not None:
            self._alarm.cancel()
        for thread in (self._sync_thread, self._votes_thread, self._read_threads, self._slow_thread):
            if failed:
                thread.shutdown(wait=False, cancel_futures=True)
            else:
                await asyncio.to_thread(thread.shutdown)

"""Completion of what was sent: one state per batch, and featherweight handles of it per record.

A record costs its future one small object without a lock: whether it is done, where it went and why it failed is
known of its batch as a whole, so that is where it is kept, and where threads and event loops wait.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from quorumlog.errors import InvalidRequest, QuorumlogError, TimedOut
from quorumlog.process import PROCESS, check_process
from quorumlog.records import AppendedRange, RecordMetadata

# Guards the hand-over between "not done yet, so I wait" and "done, so I wake": held for a few instructions only, and
# never by two batches' worth of work, so one lock for all is not contended.
_LOCK = threading.Lock()

_log = logging.getLogger("quorumlog")


def _forked() -> None:
    # Another thread of the parent may have held it; that thread is not there to let go of it.
    global _LOCK  # noqa: PLW0603 - whoever completes something looks it up anew
    _LOCK = threading.Lock()


os.register_at_fork(after_in_child=_forked)


class Completion:
    """Whether something is done, and who waits for it; safe from any thread.

    `error` is None unless it failed. The subclass keeps what came of it.
    """

    __slots__ = ("_callbacks", "_done", "_process", "error")

    def __init__(self) -> None:
        self._process = PROCESS.generation
        self._done = False
        self._callbacks: list[Callable[[], None]] | None = None
        self.error: QuorumlogError | None = None

    @property
    def done(self) -> bool:
        """Whether the outcome is there."""
        return self._done

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call `callback` once it is done: now if it is already, otherwise from the thread that finishes it. What it
        raises is logged.

        Raises:
            ForkedProcess: it is not done, and its outcome will be known in the process that forked this one.
        """
        with _LOCK:
            if not self._done:
                check_process(self._process, "future")
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        _call(callback)

    def finish(self, error: QuorumlogError | None = None) -> None:
        """Mark it done and wake everybody. Once only."""
        with _LOCK:
            assert not self._done, "finished twice"
            self.error = error
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            for callback in callbacks:
                _call(callback)

    def wait(self, timeout: float | None, what: str) -> None:
        """Block this thread until it is done. A signal handler that raises (Ctrl-C) ends the wait.

        Raises:
            TimedOut: `timeout` seconds were not enough; None waits without limit.
            InvalidRequest: called in the thread of a running event loop, which would then never finish it.
            ForkedProcess: as `on_done`.
        """
        if self._done:
            return
        if asyncio._get_running_loop() is not None:
            raise InvalidRequest(f"{what} would block a running event loop", hint="await the future instead")
        event = threading.Event()
        self.on_done(event.set)
        if not event.wait(timeout):
            raise TimedOut(
                f"{what} was not done within {timeout} s", hint="it may still happen: wait again, or flush()"
            )

    async def wait_async(self) -> None:
        """Wait until it is done. Cancelling the wait does not cancel what is waited for."""
        if self._done:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake_from_any_thread() -> None:
            if asyncio._get_running_loop() is loop:
                wake()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(wake)

        self.on_done(wake_from_any_thread)
        await waiter


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - logged, as concurrent.futures does it: whoever else waits is none of its business
        _log.exception("a done callback raised")


class BatchCompletion(Completion):
    """The outcome of a batch: `base_offset` (-1: appended, offset no longer known) and the records' timestamps in
    milliseconds. A batch that was too large travels on as two `halves`; it is done when both are, and what became of
    a record is then known of the half it is in."""

    __slots__ = ("base_offset", "halves", "partition", "timestamps_ms", "topic")

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__()
        self.topic = topic
        self.partition = partition
        self.timestamps_ms: list[int] = []
        self.base_offset = -1
        self.halves: tuple[BatchCompletion, BatchCompletion] | None = None

    def pieces(self, start: int, count: int) -> "list[tuple[BatchCompletion, int, int]]":
        """Return what records were sent in at last, in their order: (batch, first position, number of records)."""
        if self.halves is None:
            return [(self, start, count)]
        first, second = self.halves
        middle = len(first.timestamps_ms)
        found = []
        if start < middle:
            found += first.pieces(start, min(count, middle - start))
        if start + count > middle:
            begin = max(start, middle)
            found += second.pieces(begin - middle, start + count - begin)
        return found

    def metadata(self, index: int) -> RecordMetadata:
        """Return where the record at `index` of the batch went; the batch is done and has not failed."""
        offset = self.base_offset + index if self.base_offset >= 0 else -1
        return RecordMetadata(self.topic, self.partition, offset, self.timestamps_ms[index] / 1000)


class SendFuture:
    """What becomes of one record: `result(timeout)` in threads, `await` in asyncio."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: BatchCompletion, index: int) -> None:
        self._batch = batch
        self._index = index

    def done(self) -> bool:
        """Return whether the record is acknowledged or given up."""
        return self._batch._done

    def result(self, timeout: float | None = None) -> RecordMetadata:
        """Wait up to `timeout` seconds (None: no limit) and return where the record was appended.

        Raises:
            DeliveryFailed: it was given up; the error says whether it may have been appended.
            TimedOut: not known yet; ForkedProcess: it will be in the process that forked this one.
        """
        batch = self._batch
        if not batch._done:
            batch.wait(timeout, "the delivery of a record")
        index = self._index
        if batch.halves is not None:
            ((batch, index, _),) = batch.pieces(index, 1)
        if batch.error is not None:
            raise batch.error
        return batch.metadata(index)

    def exception(self, timeout: float | None = None) -> QuorumlogError | None:
        """Wait as `result` does and return the error, or None if the record was appended."""
        self._batch.wait(timeout, "the delivery of a record")
        ((batch, _, _),) = self._batch.pieces(self._index, 1)
        return batch.error

    def add_done_callback(self, callback: Callable[["SendFuture"], None]) -> None:
        """Call `callback(self)` when done, from the client's own thread; it must be quick. What it raises is logged."""
        self._batch.on_done(lambda: callback(self))

    def __await__(self) -> Generator[Any, None, RecordMetadata]:
        if not self._batch._done:
            yield from self._batch.wait_async().__await__()
        return self.result()

    def __repr__(self) -> str:
        state = "pending" if not self._batch._done else "failed" if self._batch.error else "appended"
        return f"SendFuture({self._batch.topic}[{self._batch.partition}], {state})"


class BulkFuture:
    """What becomes of the records of one `send_many`: the parts of it, batch by batch."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[tuple[BatchCompletion, int, int]]) -> None:
        self._parts = parts

    def done(self) -> bool:
        """Return whether every record is acknowledged or given up."""
        return all(batch._done for batch, _, _ in self._parts)

    def result(self, timeout: float | None = None) -> list[AppendedRange]:
        """Wait up to `timeout` seconds (None: no limit) per batch and return where the records were appended.

        Raises:
            DeliveryFailed: some were given up; the first failure is raised.
            TimedOut: not known yet; ForkedProcess: it will be in the process that forked this one.
        """
        for batch, _, _ in self._parts:
            batch.wait(timeout, "the delivery of records")
        return self._ranges()

    def exception(self, timeout: float | None = None) -> QuorumlogError | None:
        """Wait as `result` does and return the first error, or None if every record was appended."""
        for batch, _, _ in self._parts:
            batch.wait(timeout, "the delivery of records")
        return next((batch.error for batch, _, _ in self._pieces() if batch.error is not None), None)

    def _pieces(self) -> Iterator[tuple[BatchCompletion, int, int]]:
        return (piece for batch, start, count in self._parts for piece in batch.pieces(start, count))

    def _ranges(self) -> list[AppendedRange]:
        ranges = []
        for batch, start, count in self._pieces():
            if batch.error is not None:
                raise batch.error
            base = batch.base_offset + start if batch.base_offset >= 0 else -1
            ranges.append(AppendedRange(batch.topic, batch.partition, base, count))
        return ranges

    def __await__(self) -> Generator[Any, None, list[AppendedRange]]:
        for batch, _, _ in self._parts:
            if not batch._done:
                yield from batch.wait_async().__await__()
        return self._ranges()

    def __len__(self) -> int:
        return sum(count for _, _, count in self._parts)

    def __repr__(self) -> str:
        return f"BulkFuture({len(self)} records in {len(self._parts)} batches, {'done' if self.done() else 'pending'})"

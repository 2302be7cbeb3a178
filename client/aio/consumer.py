"""The consumer's face in asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from quorumlog.aio.cluster import Cluster, Deadline
from quorumlog.aio.fetcher import Fetcher
from quorumlog.aio.membership import Callback, Membership
from quorumlog.cursor import Chunk
from quorumlog.durations import Timeout, limit
from quorumlog.errors import Closed, InvalidRequest, QuorumlogError, TimedOut, UnknownPartition
from quorumlog.fetching import FetchCore, FetchSettings
from quorumlog.member import Member
from quorumlog.positions import Partitions, to_offset
from quorumlog.process import PROCESS, check_process, machine_name
from quorumlog.records import Offset, Record, TopicPartition

Commit = Literal["after", "manual"]


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """Options of a consumer, in seconds and bytes; see `aio.Client.consumer` for what they mean."""

    topics: tuple[str, ...]
    fetch: FetchSettings
    group: str | None = None
    partitions: Partitions | None = None
    commit: Commit = "after"
    session_timeout: float | None = None
    release_timeout: float | None = 30.0
    on_assign: Callback | None = None
    on_revoke: Callback | None = None
    on_lost: Callback | None = None


class Consumer:
    """Reads records; made by `Client.consumer`, used as a context manager and iterated over.

    Iterating hands out record by record. With a group, asking for the next record says that the one before is done;
    done offsets are committed in the background at most a second later, and before partitions are given back or the
    consumer is closed. The connection to the group lives in the background: a handler may take as long as it likes.
    """

    def __init__(self, cluster: Cluster, settings: ConsumerSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._process = PROCESS.generation
        self._core = FetchCore(settings.fetch, cluster.cache, cluster.rng, machine_name())
        self._fetcher: Fetcher | None = None
        self._membership: Membership | None = None
        self._member: Member | None = None
        self._opening: asyncio.Task[None] | None = None
        self._chunk: Chunk | None = None
        self._records: Iterator[Record] = iter(())
        self._closed = False

    # -- opening

    async def open(self, *, timeout: Timeout = None) -> None:
        """Look up topics and join the group. The first record asked for does this as well.

        Raises:
            UnknownTopic: there is none; also UnknownPartition.
            ConnectionFailed: no node has answered for half a minute.
            TimedOut: not within `timeout`; it goes on in the background.
        """
        self._check_usable()
        deadline = Deadline(limit("timeout", timeout))
        if not await self._opened(deadline):
            raise TimedOut(
                f"the topics were not looked up within {deadline.timeout:g} s",
                hint="give it more time: open() again, or see quorumlog doctor for what is slow",
            )

    async def _opened(self, deadline: Deadline) -> bool:
        """Wait until it is open; False if it is not at `deadline`, with nothing known to be wrong. Whoever asks next
        waits for the same attempt, so that many short waits are as good as a long one."""
        while self._fetcher is None:
            self._check_usable()
            opening = self._opening
            if opening is None:
                opening = self._opening = asyncio.ensure_future(self._open())
            await asyncio.wait([opening], timeout=deadline.left())
            if not opening.done():
                return False
            if self._opening is opening:
                self._opening = None
            if opening.cancelled():
                continue
            error = opening.exception()
            patient = isinstance(error, QuorumlogError) and error.retriable and deadline.at is None
            if error is not None and not patient:
                raise error
        return True

    async def _open(self) -> None:
        deadline = Deadline(_OPEN_SECONDS)
        settings = self._settings
        if settings.partitions is not None:
            await self._take(settings.partitions, deadline)
        else:
            topics = [await self._cluster.topic(name, deadline.left()) for name in settings.topics]
            if settings.group is None:
                await self._take({topic.name: range(len(topic.leaders)) for topic in topics}, deadline)
            else:
                self._join(settings.group)
        self._fetcher = Fetcher(self._cluster, self._core)
        self._fetcher.wake()

    async def _take(self, wanted: Partitions, deadline: Deadline) -> None:
        topics = [(await self._cluster.topic(name, deadline.left()), chosen) for name, chosen in wanted.items()]
        for topic, partitions in topics:
            name = topic.name
            for partition in partitions:
                if not 0 <= partition < len(topic.leaders):
                    raise UnknownPartition(
                        f"topic {name} has no partition {partition}, only 0 to {len(topic.leaders) - 1}",
                        hint="see quorumlog topic describe NAME",
                        code="UNKNOWN_PARTITION",
                    )
        for topic, partitions in topics:
            for partition in partitions:
                position = partitions[partition] if isinstance(partitions, Mapping) else None
                if isinstance(position, int):
                    position = Offset(position)
                self._core.add(TopicPartition(topic.name, partition), topic.topic_id, position)

    def _join(self, group: str) -> None:
        settings = self._settings
        self._member = Member(group, settings.topics, self._cluster.client_id, settings.session_timeout)
        self._membership = Membership(
            self._cluster,
            self._member,
            self._core,
            auto_commit=settings.commit == "after",
            release_timeout=settings.release_timeout,
            on_assign=settings.on_assign,
            on_revoke=settings.on_revoke,
            on_lost=settings.on_lost,
            on_change=self._changed,
        )

    def _changed(self) -> None:
        if self._fetcher is not None:
            self._fetcher.news.set()
            self._fetcher.wake()

    # -- handing out

    def hand_back(self) -> None:
        """The user asks for more: what was handed out before is done."""
        chunk = self._chunk
        if chunk is not None:
            cursor = chunk.cursor
            if chunk.valid or not cursor.active:
                cursor.done = cursor.handed
            cursor.in_hand = False

    async def next_chunk(self, deadline: Deadline) -> Chunk | None:
        """Return what is handed out next; None when every partition has reached its stop, or at `deadline`.

        The one before is finished: its records are done.
        """
        self._check_usable()
        self.hand_back()
        if self._chunk is not None and self._chunk.unfinished:
            # The wait for it was interrupted just when it came, or the way of reading has changed in the middle of it.
            self._chunk.cursor.in_hand = True
            return self._chunk
        self._chunk = None
        if self._membership is not None:
            self._membership.handed_back()
        if self._fetcher is None and not await self._opened(deadline):
            return None
        fetcher = self._fetcher
        assert fetcher is not None
        while True:
            if self._membership is not None and self._membership.error is not None:
                raise self._membership.error
            fetcher.news.clear()
            chunk = self._core.take()
            fetcher.wake()
            if chunk is not None:
                chunk.cursor.in_hand = True
                self._chunk = chunk
                return chunk
            if self._core.at_stop:
                return None
            if deadline.passed:
                return None
            try:
                # wait_for would swallow a cancellation that comes together with the news, in Python 3.11.
                async with asyncio.timeout(deadline.left()):
                    await fetcher.news.wait()
            except TimeoutError:
                return None
            self._check_usable()

    @property
    def at_stop(self) -> bool:
        """Whether every partition has reached its stop."""
        return self._core.at_stop

    def take_record(self) -> Record | None:
        """Return the next record of the present chunk; None if another chunk is needed."""
        return next(self._records, None)

    async def next_records(self, deadline: Deadline) -> bool:
        """Let `take_record` go on with another chunk; False at the end or at `deadline`."""
        chunk = await self.next_chunk(deadline)
        self._records = chunk.records() if chunk is not None else iter(())
        return chunk is not None

    def __aiter__(self) -> AsyncIterator[Record]:
        return self

    async def __anext__(self) -> Record:
        record = next(self._records, None)
        while record is None:
            if not await self.next_records(_NO_DEADLINE):
                raise StopAsyncIteration
            record = next(self._records, None)
        return record

    async def batches(self) -> AsyncIterator[list[Record]]:
        """Iterate over lists of records as they were fetched: asking for the next list marks the one before as done."""
        while True:
            records = await self.next_list(_NO_DEADLINE, None)
            if not records:
                return
            yield records

    async def values(self) -> AsyncIterator[list[bytes | None]]:
        """Iterate over lists of values: the fastest way to read. Asking for the next list marks the one before as
        done."""
        while True:
            values = await self.next_values(_NO_DEADLINE)
            if not values:
                return
            yield values

    async def poll(self, *, max_records: int = 500, timeout: Timeout = 1.0) -> list[Record]:
        """Return up to `max_records` records of one partition; an empty list if none came within `timeout`.

        Calling it again marks those returned before as done.
        """
        self.check_max_records(max_records)
        return await self.next_list(Deadline(limit("timeout", timeout)), max_records)

    @staticmethod
    def check_max_records(max_records: int) -> None:
        """Raise InvalidRequest unless that many records can be asked for."""
        if max_records < 1:
            raise InvalidRequest(f"max_records={max_records} is not possible", hint="give at least 1")

    def take_list(self, max_records: int | None) -> list[Record]:
        """Return the next list of the present chunk; empty if another chunk is needed. What was returned before is
        done."""
        self._records = iter(())
        chunk = self._chunk
        if chunk is None or not chunk.valid:
            return []
        self.hand_back()
        chunk.cursor.in_hand = True
        return chunk.next_list(max_records)

    def take_values(self) -> list[bytes | None]:
        """Return the next values of the present chunk; otherwise as `take_list`."""
        self._records = iter(())
        chunk = self._chunk
        if chunk is None or not chunk.valid:
            return []
        self.hand_back()
        chunk.cursor.in_hand = True
        return chunk.next_values()

    async def next_list(self, deadline: Deadline, max_records: int | None) -> list[Record]:
        """Return the next list of records; empty at the end or at `deadline`."""
        while not (records := self.take_list(max_records)):
            if await self.next_chunk(deadline) is None:
                return []
        return records

    async def next_values(self, deadline: Deadline) -> list[bytes | None]:
        """Return the next list of values; empty at the end or at `deadline`."""
        while not (values := self.take_values()):
            if await self.next_chunk(deadline) is None:
                return []
        return values

    # -- positions

    async def commit(self, *, timeout: Timeout = 30.0) -> None:
        """Commit everything handed out so far, the record in hand included, and wait until that is safe.

        Raises:
            InvalidRequest: there is no group.
            Fenced: a partition belongs to another member by now.
            TimedOut: no answer within `timeout`.
        """
        self._check_usable()
        if self._settings.group is None:
            raise InvalidRequest("a consumer without a group has nothing to commit to", hint="give group=...")
        await self.open(timeout=timeout)
        assert self._membership is not None
        await self._membership.commit(limit("timeout", timeout))

    def seek(self, topic: str, partition: int, offset: int, *, leader_epoch: int | None = None) -> None:
        """Go on from another offset of a partition this consumer has; also clears an error of that partition.

        Raises:
            UnknownPartition: it is not among its partitions.
            InvalidRequest: `offset` is none.
        """
        self._check_usable()
        cursor = self._core.cursors.get(TopicPartition(topic, partition))
        if cursor is None:
            raise UnknownPartition(
                f"{topic}[{partition}] is not assigned to this consumer", hint="see consumer.assignment()"
            )
        cursor.move(to_offset("offset", Offset(offset, leader_epoch)))
        self._changed()

    def assignment(self) -> set[TopicPartition]:
        """Return the partitions this consumer has now."""
        return set(self._core.cursors)

    def positions(self) -> dict[TopicPartition, int]:
        """Return, per partition, the offset of the next record to hand out; -1 where that is not known yet."""
        return {tp: cursor.next_offset() for tp, cursor in self._core.cursors.items()}

    def lag(self) -> dict[TopicPartition, int]:
        """Return, per partition, the records between position and high watermark as last heard."""
        return {
            tp: max(0, cursor.high_watermark - cursor.next_offset())
            for tp, cursor in self._core.cursors.items()
            if cursor.high_watermark >= 0 and cursor.resolved
        }

    # -- the end

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    async def close(self, *, timeout: Timeout = 10.0) -> None:
        """Commit what is done, leave the group and let go of everything. The record in hand is not done.

        Where this is cancelled everything ends at once; closing again makes sure of that.
        """
        self._closed = True
        self._records = iter(())
        try:
            if self._opening is not None:
                self._opening.cancel()
                await asyncio.wait([self._opening])
            if self._membership is not None:
                await self._membership.close(limit("timeout", timeout))
        finally:
            if self._fetcher is not None:
                await self._fetcher.stop()
                self._fetcher.news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_usable(self) -> None:
        check_process(self._process, "consumer")
        if self._closed:
            raise Closed("the consumer is closed", hint="open another one: client.consumer(...)")


_NO_DEADLINE = Deadline(None)
# With no answer for this long something is wrong, not slow.
_OPEN_SECONDS = 30.0

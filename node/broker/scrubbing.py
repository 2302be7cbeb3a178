"""Every log is read through now and then, so that damage is met before a second disk fails, and not by a reader.

What nobody reads stays damaged for as long as nobody looks: a bit that flips, a hole that salvage has left. So this
node reads all its entries, one small slice after the other, in the thread for cold reads and at a bounded rate. An
entry that does not check is noted with its replica, and `mending` fetches it from another.

A pass begins with each start of the process, after a clean stop too: nothing of a pass outlives its process, disks
fail while nobody runs, and a node that is restarted more often than the period would never come to the end of a pass
otherwise. What a pass costs, the rate bounds. The next pass begins a period after the beginning of the last one.

Raft does not hear of it, unless something is found: groups that sleep go on sleeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from quorumlog.node.broker.reading import ColdReader
from quorumlog.node.clock import Clock
from quorumlog.node.errors import EntryDamaged, UnknownEntryKind
from quorumlog.node.replica.multi_raft import MultiRaft
from quorumlog.node.replica.replica import Replica
from quorumlog.node.storage.group_read import survey
from quorumlog.node.storage.interface import Storage
from quorumlog.node.storage.log_view import LogPlan
from quorumlog.raft import LogIndex

SLICE_COST_BYTES: Final = 256 << 10
"""About what one read takes: a few milliseconds of a disk, one of the interpreter."""

ENTRY_COST_BYTES: Final = 1 << 10
"""An entry costs its bytes and this: checking a small one takes the processor longer than the disk."""

GROUP_COST_BYTES: Final = 16 << 10
"""A group costs as much at least, so that ten thousand small ones are not gone through in one go."""

BURST_SECONDS: Final = 0.1
"""So much of the rate may be caught up with when it was not used: ticks come that seldom."""


class Slice(NamedTuple):
    """What one read has come to."""

    next_index: int
    cost_bytes: int
    damaged: tuple[LogIndex, ...]


class Pass(NamedTuple):
    """A pass over all logs that has ended; times are the clock's."""

    began_at: float
    ended_at: float


class Scrubbing:
    """Reads all logs of this node, again and again.

    Args:
        bytes_per_second: what it may read, 0 for nothing.
        period_seconds: from the beginning of one pass to that of the next, unless a pass takes longer.
    """

    def __init__(
        self, *, multi: MultiRaft, cold: ColdReader, clock: Clock, bytes_per_second: float, period_seconds: float
    ) -> None:
        self._multi = multi
        self._cold = cold
        self._clock = clock
        self._bytes_per_second = bytes_per_second
        self._period_seconds = period_seconds
        self._began_at = 0.0
        self._next_pass = 0.0
        self._passing = False
        self._waiting: list[int] = []  # groups that this pass has still to come to
        self._group_id = 0  # where it is: this group, from this index up to what its log held when it came there
        self._next_index = 0
        self._last_index = 0
        self._reading = False
        self._free_at = 0.0  # when the rate lets the next slice be read
        self.last_pass: Pass | None = None
        """The last one that has come to its end; None before the first."""
        self.found = 0
        """Damaged entries met since the start that nobody had noted before."""

    def tick(self, now: float) -> None:
        """Begin a pass when it is time, and go on with the one that has begun."""
        if self._bytes_per_second == 0 or self._reading:
            return
        if not self._passing:
            if now < self._next_pass:
                return
            self._passing = True
            self._began_at = now
            self._next_pass = now + self._period_seconds
            # Groups that come later are written anew while it lasts, so they can wait for the next one.
            self._waiting = sorted(self._multi.replicas, reverse=True)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Look at what comes next until a read is under way or the rate is used up."""
        while not self._reading and self._free_at <= now:
            if self._multi.stalled:
                return  # what its logs say they have is not all written, and the disk has enough to do
            replica = self._multi.replicas.get(self._group_id)
            if replica is not None and replica.stopped is None and self._read(replica):
                return
            if not self._waiting:
                self._passing = False
                self._group_id = 0
                self.last_pass = Pass(self._began_at, now)
                return
            self._group_id = self._waiting.pop()
            self._next_index = 0
            replica = self._multi.replicas.get(self._group_id)
            self._last_index = 0 if replica is None else replica.log.last_index()
            self._charge(GROUP_COST_BYTES, now)

    def _read(self, replica: Replica) -> bool:
        """Have the next slice of a log read; False when the log has none."""
        plan = replica.log.plan_check(LogIndex(self._next_index), LogIndex(self._last_index))
        if plan.first_index > plan.last_index:
            return False
        self._reading = True
        self._cold.submit(partial(read_slice, plan=plan), partial(self._on_read, replica, plan))
        return True

    def _on_read(self, replica: Replica, plan: LogPlan, found: Slice) -> None:
        now = self._clock.now()
        self._reading = False
        self._charge(found.cost_bytes, now)
        # One that went or was replaced by another says nothing about what is there now. Where the log was cut meanwhile
        # what is gone looks damaged: the same is read again, as far as the log still has it.
        if self._multi.replicas.get(plan.group_id) is replica and replica.log.still_holds(plan):
            self._next_index = found.next_index
            self._note(replica, [index for index in found.damaged if index not in plan.unsound])
        self._go_on(now)

    def _note(self, replica: Replica, damaged: Sequence[LogIndex]) -> None:
        if not damaged:
            return
        known = len(replica.log.damaged)
        for index in damaged:
            replica.note_damage(index)
        self.found += len(replica.log.damaged) - known
        self._multi.touch(replica)  # a leader hands over now

    def _charge(self, cost_bytes: int, now: float) -> None:
        self._free_at = max(self._free_at, now - BURST_SECONDS) + cost_bytes / self._bytes_per_second


def read_slice(storage: Storage, plan: LogPlan) -> Slice:
    """Check entries from the first of the plan on until they have cost enough: for a thread. Raises StorageFailed.

    Of entries that this release cannot judge, and of what follows them, nothing is said: their replica takes no part.
    """
    cost_bytes = 0
    next_index: int = plan.first_index
    damaged: list[LogIndex] = []
    try:
        for item in survey(storage, plan.group_id, plan.first_index, plan.last_index, SLICE_COST_BYTES):
            cost_bytes += ENTRY_COST_BYTES
            if isinstance(item, EntryDamaged):
                damaged.append(LogIndex(item.index))
            else:
                cost_bytes += len(item[1].data)
            next_index += 1
            if cost_bytes >= SLICE_COST_BYTES:
                break
    except UnknownEntryKind:
        next_index = plan.last_index + 1
    return Slice(next_index, cost_bytes, tuple(damaged))

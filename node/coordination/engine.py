"""PySyncObj as the engine of the coordination plane, with the parts replaced that do not fit into a node.

- Time: PySyncObj reads a monotonic clock of its own. A private copy of its module gets `EngineTime` instead, so that
  the plane runs under the time it is given, and nobody else's PySyncObj in this process notices.
- Randomness: the election timeout is drawn from the injected `random.Random`.
- Commands and snapshots are our own bytes; nothing is pickled or unpickled.
- A follower drops entries only on a real conflict (Raft section 5.3, "if an existing entry conflicts with a new one"):
  PySyncObj drops everything after the previous index of each message, so a late one undoes acknowledged entries.
- A follower whose applied entries contradict the leader's, which restarts of several in-memory voters can bring about,
  raises `LogContradiction`; the plane then starts an empty engine. PySyncObj would go on with a hole in its state.

The names with a leading `_SyncObj__` are PySyncObj's private ones: they are how its methods are reached from outside
its class. The tests of this folder fail if a release of PySyncObj renames one.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec
from types import ModuleType

from pysyncobj.config import SyncObjConf

from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.snapshot import LogRow, SnapshotStore
from quorumlog.node.coordination.transport import PeerNode, PeerTransport
from quorumlog.node.coordination.wire import BATCH_BYTES, Message
from quorumlog.raft.types import NodeId

_REGULAR = b"\x00"


class EngineTime:
    """The present moment for all engines of this process; whoever calls into an engine sets it first."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        """Return the moment set last, in seconds."""
        return self.now


def _private_syncobj(time: EngineTime) -> ModuleType:
    spec = find_spec("pysyncobj.syncobj")
    assert spec is not None, "pysyncobj is installed with quorumlog[node]"
    assert spec.loader is not None, "pysyncobj is an ordinary package"
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__["monotonicTime"] = time.read
    # It speaks of journals and dumps, which there are none of; what goes wrong raises, and the plane says it.
    module.__dict__["logger"] = logging.getLogger(f"{__name__}.pysyncobj")
    module.__dict__["logger"].setLevel(logging.CRITICAL + 1)
    return module


ENGINE_TIME = EngineTime()
_syncobj = _private_syncobj(ENGINE_TIME)
_SyncObj = _syncobj.SyncObj


class LogContradiction(Exception):
    """The leader's log contradicts entries that were applied here: only a fresh start helps."""


@dataclass(frozen=True, slots=True)
class ReplicatedState:
    """The state machine behind the engine, as three functions that never raise on what the engine gives them."""

    apply: Callable[[bytes], None]
    take_locks: Callable[[], bytes]
    restore_locks: Callable[[bytes], None]


class CoordinationEngine(_SyncObj):  # type: ignore[misc,valid-type] # PySyncObj has no types
    """One life of the engine: log, term and votes in memory, empty at the start.

    Args:
        voter: this node if it is a voter, else None: a follower that takes what is agreed and proposes to the leader.
        transport: its peers; taken over from the engine before it, if there was one.
        state: what committed commands are applied to.
        rng: draws election timeouts.
        settings: its times and bounds.
    """

    def __init__(
        self,
        voter: NodeId | None,
        transport: PeerTransport,
        state: ReplicatedState,
        rng: random.Random,
        settings: PlaneSettings,
    ) -> None:
        self._rng = rng
        self._state = state
        self._settings = settings
        self._drops_nothing = False
        self._leader_heard_at = ENGINE_TIME.now
        conf = SyncObjConf(
            autoTick=False,
            commandsQueueSize=settings.queue_commands,
            raftMinTimeout=settings.election_timeout_min_seconds,
            raftMaxTimeout=settings.election_timeout_max_seconds,
            appendEntriesPeriod=settings.heartbeat_seconds,
            leaderFallbackTimeout=settings.leader_fallback_seconds,
            appendEntriesBatchSizeBytes=BATCH_BYTES,
            logCompactionMinEntries=settings.compact_entries,
            logCompactionMinTime=settings.compact_seconds,
            commandsWaitLeader=False,  # a command that finds no leader is dropped; the plane says everything again
            useFork=False,
            dynamicMembershipChange=False,
        )
        self_node = None if voter is None else PeerNode(voter)
        super().__init__(self_node, transport.voters, conf, nodeClass=PeerNode, transport=transport)
        self._SyncObj__serializer = SnapshotStore(state.take_locks, state.restore_locks)
        transport.setOnMessageReceivedCallback(self._receive)
        transport.current_term = self._getTerm
        transport.forget_progress = self._forget_progress
        transport.tell_connections()

    def propose(self, command: bytes) -> None:
        """Send `command` to the leader, or append it if this node leads; it may get lost, and nobody is told."""
        self._applyCommand(_REGULAR + command, None)

    @property
    def leader_and_term(self) -> tuple[NodeId, int] | None:
        """The leader of this plane that the engine follows or is, or None."""
        leader = self._getLeader()
        return None if leader is None else (NodeId(leader.id), self._getTerm())

    @property
    def is_forsaken(self) -> bool:
        """Whether this is a follower that has not heard for long of a leader in its term or a later one.

        It cannot campaign, so if all voters restarted with lower terms it would refuse their leader for ever.
        """
        patience = 2 * self._settings.election_timeout_max_seconds
        return self.selfNode is None and self.term > 0 and ENGINE_TIME.now > self._leader_heard_at + patience

    @property
    def term(self) -> int:
        """The Raft term of this plane."""
        return int(self._getTerm())

    @property
    def log_entries(self) -> int:
        """How many entries the log holds."""
        return len(self._log)

    @property
    def _log(self) -> list[LogRow]:
        log: list[LogRow] = self._SyncObj__raftLog
        return log

    def _receive(self, node: PeerNode, message: Message) -> None:
        if message["type"] == "append_entries" and message["term"] >= self.term:
            self._leader_heard_at = ENGINE_TIME.now
            if "prevLogIdx" in message:
                message = self._without_entries_held(message)
        self._SyncObj__onMessageReceived(node, message)
        self._drops_nothing = False

    def _without_entries_held(self, message: Message) -> Message:
        """Return `message` without the entries that this log already has: nothing may be dropped because of them."""
        previous_index, entries = message["prevLogIdx"], message["entries"]
        if previous_index is None:
            if self._log[-1][1] > 1:
                raise LogContradiction("the leader's log ends before the end of what this node told it")
            return message
        # Only what the message itself covers is known to be the same here as on the leader.
        covered = {"commit_index": min(message["commit_index"], previous_index + len(entries))}
        term_here = self._term_at(previous_index)
        if term_here != message["prevLogTerm"]:
            if term_here is not None and previous_index <= self.raftLastApplied:
                raise LogContradiction(f"the leader contradicts entry {previous_index}, which was applied")
            return message | covered
        held = 0
        while held < len(entries) and self._term_at(entries[held][1]) == entries[held][2]:
            held += 1
        self._drops_nothing = held == len(entries)
        if held == 0:
            return message | covered
        _, last_index, last_term = entries[held - 1]
        return message | covered | {"prevLogIdx": last_index, "prevLogTerm": last_term, "entries": entries[held:]}

    def _term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`, or None where this log has none."""
        position = index - self._log[0][1]
        return self._log[position][2] if 0 <= position < len(self._log) else None

    def _forget_progress(self, node: PeerNode) -> None:
        """Stop counting what an earlier process of `node` had: this one may have started empty."""
        matched: dict[PeerNode, int] = self._SyncObj__raftMatchIndex
        if node in matched:
            matched[node] = 0

    # What follows replaces private methods of PySyncObj, under the names by which it calls them.

    def _SyncObj__generateRaftTimeout(self) -> float:  # noqa: N802
        return self._rng.uniform(
            self._settings.election_timeout_min_seconds, self._settings.election_timeout_max_seconds
        )

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802
        if command[:1] == _REGULAR:  # the only other kind is a new leader's no-op
            self._state.apply(command[1:])

    def _SyncObj__deleteEntriesFrom(self, index: int) -> None:  # noqa: N802
        if self._drops_nothing:
            return
        if index <= self.raftLastApplied:
            raise LogContradiction(f"the leader contradicts entry {index}, applied up to {self.raftLastApplied}")
        _SyncObj._SyncObj__deleteEntriesFrom(self, index)

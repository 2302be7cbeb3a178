"""Small-model search: every interleaving of a few replicas of the shipped core, breadth first.

    python -m quorumlog.chaos.sim.search --nodes 3 --depth 14

An action delivers a message, lets a timeout pass, proposes, lets the writes of a disk finish, crashes a replica with
the loss of what was not synced, or delivers a message and leaves a copy under way. Any message may be overtaken for
ever, which is as good as losing it. Timeouts, requests and failures are counted, because bugs need few of them
(SandTable, EuroSys 2024); `--change` adds a change of the voters, `--compact` a dropped prefix with the snapshot that
it makes necessary. `--elected` begins with a leader, `--synced` takes disks for instant: both reach deeper.

In every state: one leader per term, logs that match, leaders that hold everything committed, one entry committed at
each index and durable on a quorum of the configuration that its leader goes by, nothing promised that a crash takes
back, and the core's own invariants. A violation is printed with the shortest way there, as a script for
tests/raft/testdata.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from quorumlog.chaos.sim import wall
from quorumlog.chaos.sim.small_model import ELECTION_TICKS, Broken, SmallReplica, copy_of, likeness
from quorumlog.raft import (
    Configuration,
    ConfigurationRefused,
    EntryKind,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    RaftError,
    Role,
    Term,
)
from quorumlog.raft.quorum import has_quorum


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may happen in one run.

    `failures` are crashes and doubled messages. `synced` takes disks for instant; `elected` begins when node 1 leads,
    and everybody knows that its first entry is committed.
    """

    nodes: int = 3
    depth: int = 12
    states: int = 1 << 60
    timeouts: int = 4
    requests: int = 2
    failures: int = 1
    changes: int = 0
    compactions: int = 0
    synced: bool = False
    elected: bool = False


class Left(NamedTuple):
    """What may still happen."""

    timeouts: int
    requests: int
    failures: int
    changes: int
    compactions: int


class State(NamedTuple):
    """Replicas and messages by their numbers; what is committed as (index, term); leaders as (term, node)."""

    replicas: tuple[int, ...]
    network: tuple[int, ...]
    left: Left
    committed: tuple[Term, ...]
    leaders: tuple[tuple[int, int], ...]


class Outcome(NamedTuple):
    """What an input does to one replica: its new state, what leaves it, and the commands that a script needs for it."""

    replica: int
    sent: tuple[int, ...]
    work: tuple[str, ...]


class Action(NamedTuple):
    """`name` is the command of the script; `message` is the number of the one that is delivered."""

    name: str
    node: int
    message: int = -1
    argument: str = ""


class Violation(Exception):
    """With the actions that lead there."""

    def __init__(self, what: str, script: str) -> None:
        super().__init__(what)
        self.script = script


class Search:
    """One run. What an input does to a replica is remembered, because most states share their replicas with others."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.replicas: list[SmallReplica] = []
        self.messages: list[Message] = []
        self._replica_numbers: dict[Hashable, int] = {}
        self._message_numbers: dict[Message, int] = {}
        self._outcomes: dict[tuple[int, Action], Outcome | None] = {}
        self._dead: dict[tuple[int, int], bool] = {}
        self._matching: set[tuple[int, int]] = set()
        self._came_from: dict[State, tuple[State, Action] | None] = {}
        self.transitions = 0
        self.depth = 0

    @property
    def states(self) -> int:
        """Distinct states seen."""
        return len(self._came_from)

    def run(self) -> None:
        """Search to the depth, or until there are as many states as allowed. Raises Violation."""
        bounds = self.bounds
        voters = Configuration(tuple(NodeId(one) for one in range(1, bounds.nodes + 1)))
        start = State(
            tuple(self._number(SmallReplica(one, voters)) for one in voters.voters),
            (),
            Left(bounds.timeouts, bounds.requests, bounds.failures, bounds.changes, bounds.compactions),
            (),
            (),
        )
        if bounds.elected:
            start = self._elect(start)
        self._came_from[start] = None
        frontier = deque([start])
        while frontier and self.depth < bounds.depth:
            self.depth += 1
            for _ in range(len(frontier)):
                state = frontier.popleft()
                for action in self._actions(state):
                    after = self._carry_out(state, action)
                    if after is not None and after not in self._came_from:
                        self._came_from[after] = (state, action)
                        frontier.append(after)
                if len(self._came_from) >= bounds.states:
                    return

    def _elect(self, state: State) -> State:
        """Node 1 campaigns, and whatever comes of that is delivered and synced until nothing is left."""
        todo: list[Action] = [Action("timeout", 1)]
        while todo:
            after = self._carry_out(state, todo[0])
            assert after is not None, "each of these does something"
            state = after._replace(left=state.left)
            todo = [one for one in self._actions(state) if one.name in ("deliver", "sync")]
        assert state.leaders, "somebody was elected"
        return state

    # ------------------------------------------------------------------------------------------------ what may happen

    def _actions(self, state: State) -> Iterator[Action]:
        left = state.left
        for place, message in enumerate(state.network):
            if place and state.network[place - 1] == message:
                continue
            to = self.messages[message].to
            yield Action("deliver", to, message)
            if left.failures:
                yield Action("duplicate", to, message)
        for place, number in enumerate(state.replicas):
            replica, node_id = self.replicas[number], place + 1
            if replica.in_flight:
                yield Action("sync", node_id)
            # All begin alike, so that it is always node 1 that campaigns first.
            if left.timeouts and (node_id == 1 or self.bounds.elected or left.timeouts < self.bounds.timeouts):
                yield Action("timeout", node_id)
            if left.failures:
                yield Action("crash", node_id)
            if replica.node.is_leader:
                yield from self._leader_actions(replica, left)
            if left.compactions and min(replica.node.applied, replica.node.stable_index) >= replica.node.first_index:
                yield Action("compact", node_id)

    def _leader_actions(self, replica: SmallReplica, left: Left) -> Iterator[Action]:
        node_id = replica.node_id
        if left.requests:
            yield Action("propose", node_id)
        for other in replica.node.configuration.voters:
            if left.changes and len(replica.node.configuration.voters) > 1:
                rest = [one for one in replica.node.configuration.voters if one != other]
                yield Action("configure", node_id, argument=f"voters={','.join(map(str, rest))}")
            progress = replica.node.progress(other)
            if progress is not None and progress.needs_snapshot:
                yield Action("snapshot", node_id, argument=str(other))

    def _carry_out(self, state: State, action: Action) -> State | None:
        """The state after the action; None if it does nothing."""
        place = action.node - 1
        before = state.replicas[place]
        if (before, action) not in self._outcomes:
            try:
                self._outcomes[before, action] = self._input(before, action)
            except (Broken, RaftError, AssertionError) as error:
                raise Violation(f"{type(error).__name__}: {error}", self._script(state, action)) from error
        outcome = self._outcomes[before, action]
        if outcome is None:
            return None
        self.transitions += 1
        network = list(state.network)
        if action.name == "deliver":
            network.remove(action.message)
        sent = outcome.sent
        if action.name == "snapshot" and sent[0] in network:
            return None
        replicas = (*state.replicas[:place], outcome.replica, *state.replicas[place + 1 :])
        try:
            committed, leaders = self._check(state, replicas, place, before)
        except Broken as error:
            raise Violation(str(error), self._script(state, action)) from error
        left = _after(state.left, action.name)
        network = [one for one in network + list(sent) if not self._is_dead(one, replicas)]
        return State(replicas, tuple(sorted(network)), left, committed, leaders)

    def _is_dead(self, number: int, replicas: tuple[int, ...]) -> bool:
        """Whether the message is an answer that its receiver can only ignore, now and ever after: its term is over."""
        message = self.messages[number]
        to = replicas[message.to - 1]
        dead = self._dead.get((number, to))
        if dead is None:
            dead = self._dead[number, to] = _is_over(message, self.replicas[to])
        return dead

    def _input(self, number: int, action: Action) -> Outcome | None:
        replica = copy_of(self.replicas[number])
        sent: list[Message] = []
        if action.message >= 0:
            replica.step(self.messages[action.message])
        elif action.name == "timeout":
            for _ in range(1 if replica.node.is_leader else _ticks_to_campaign(replica)):
                replica.node.tick()
        elif action.name == "sync":
            sent += replica.sync()
        elif action.name == "crash":
            replica.restart()
        elif action.name == "propose":
            replica.propose()
        elif action.name == "configure":
            voters = [NodeId(int(one)) for one in action.argument.removeprefix("voters=").split(",")]
            try:
                replica.node.propose_configuration(voters)
            except ConfigurationRefused:
                return None
        elif action.name == "compact":
            replica.compact()
        elif action.name == "snapshot":
            sent.append(_snapshot(replica, NodeId(int(action.argument))))
        leaves, readys = replica.drain()
        sent += leaves
        work = ["ready"] * readys
        while self.bounds.synced and replica.in_flight:
            sent += replica.sync()
            leaves, readys = replica.drain()
            sent += leaves
            work += ["sync"] + ["ready"] * readys
        return Outcome(self._number(replica), tuple(self._number_message(one) for one in sent), tuple(work))

    def _number(self, replica: SmallReplica) -> int:
        alike = likeness(replica)
        number = self._replica_numbers.setdefault(alike, len(self.replicas))
        if number == len(self.replicas):
            self.replicas.append(replica)
        return number

    def _number_message(self, message: Message) -> int:
        number = self._message_numbers.setdefault(message, len(self.messages))
        if number == len(self.messages):
            self.messages.append(message)
        return number

    # ------------------------------------------------------------------------------------------------- what must hold

    def _check(
        self, state: State, replicas: tuple[int, ...], place: int, before: int
    ) -> tuple[tuple[Term, ...], tuple[tuple[int, int], ...]]:
        replica, old = self.replicas[replicas[place]], self.replicas[before]
        node = replica.node
        committed, leaders = state.committed, state.leaders
        for other in replicas:
            pair = (min(other, replicas[place]), max(other, replicas[place]))
            if pair not in self._matching:
                _check_matching(replica, self.replicas[other])
                self._matching.add(pair)
        if node.commit_index > old.node.commit_index:
            known = len(committed)
            if node.commit_index > known:
                if not node.is_leader and not old.node.is_leader:
                    raise Broken(f"{node_id_of(replica)} commits {node.commit_index}, its leader only {known}")
                committed = self._commit(committed, replica, old, replicas)
            upto = node.commit_index
            if not replica.log.holds(upto, committed[upto - 1]):
                raise Broken(f"{node_id_of(replica)} commits another entry {upto} than its leader")
        if node.is_leader and (node.term, replica.node_id) not in leaders:
            if any(term == node.term for term, _ in leaders):
                raise Broken(f"two leaders in term {node.term}")
            leaders = tuple(sorted((*leaders, (node.term, replica.node_id))))
            for index, term in enumerate(committed, 1):
                if term < node.term and not replica.log.holds(index, term):
                    raise Broken(f"the leader of term {node.term} lacks the committed entry {index}")
        return committed, leaders

    def _commit(
        self, committed: tuple[Term, ...], replica: SmallReplica, old: SmallReplica, replicas: tuple[int, ...]
    ) -> tuple[Term, ...]:
        """The last entry that a leader commits, and each configuration among those before, is durable on a quorum of
        the configuration that it went by, or that it came to with it.
        """
        last = replica.node.commit_index
        for place in range(len(committed) + 1, last + 1):
            entry = replica.log.entries_held[place - replica.log.offset - 1]
            holders = [
                NodeId(self.replicas[one].node_id)
                for one in replicas
                if self.replicas[one].disk.holds(place, entry.term)
            ]
            by = (old.node.configuration, replica.node.configuration_at(LogIndex(place)))
            judged = place == last or entry.kind is EntryKind.CONFIGURATION
            if judged and not any(has_quorum(one, holders) for one in by):
                raise Broken(f"entry {place} is committed, but durable on {holders} alone of {by[0]}")
            committed = (*committed, entry.term)
        return committed

    # --------------------------------------------------------------------------------------------------- the way there

    def _script(self, state: State, last: Action) -> str:
        """The shortest way to what `last` does in `state`, as commands for the text scripts."""
        way = [last]
        came = self._came_from.get(state)
        states = [state]
        while came is not None:
            state, action = came
            states.append(state)
            way.append(action)
            came = self._came_from[state]
        lines = [f"cluster {self.bounds.nodes} election_ticks={ELECTION_TICKS} heartbeat_ticks=1"]
        if self.bounds.elected:
            lines += ["tick 1 3", "settle"]
        network: list[int] = []
        for one, action in zip(reversed(states), reversed(way), strict=True):
            replica = self.replicas[one.replicas[action.node - 1]]
            lines.append(self._command(action, replica, network))
            outcome = self._outcomes.get((one.replicas[action.node - 1], action))
            if outcome is not None:
                lines += [f"{one} {action.node}" for one in outcome.work]
                network += outcome.sent
        return "".join(f"{line}\n----\n\n" for line in lines)

    def _command(self, action: Action, replica: SmallReplica, network: list[int]) -> str:
        if action.message >= 0:
            message = self.messages[action.message]
            alike = [one for one in network if self.messages[one].to == message.to]
            at = alike.index(action.message)
            network.remove(action.message)
            if action.name == "duplicate":
                network.append(action.message)
            return f"{action.name} {message.to} at={at}"
        if action.name == "timeout":
            return f"tick {action.node} {1 if replica.node.is_leader else _ticks_to_campaign(replica)}"
        if action.name == "compact":
            return f"compact {action.node} {min(replica.node.applied, replica.node.stable_index)}"
        return " ".join(part for part in (action.name, str(action.node), action.argument) if part)


def node_id_of(replica: SmallReplica) -> int:
    """For messages to people."""
    return replica.node_id


def _after(left: Left, name: str) -> Left:
    match name:
        case "timeout":
            return left._replace(timeouts=left.timeouts - 1)
        case "propose":
            return left._replace(requests=left.requests - 1)
        case "crash" | "duplicate":
            return left._replace(failures=left.failures - 1)
        case "configure":
            return left._replace(changes=left.changes - 1)
        case "compact":
            return left._replace(compactions=left.compactions - 1)
    return left


def _is_over(message: Message, replica: SmallReplica) -> bool:
    """By what is on the receiver's disk, because what is not may be lost in a crash."""
    term = replica.disk_hard_state.term
    match message.type:
        case MessageType.APPEND_RESPONSE | MessageType.HEARTBEAT_RESPONSE:
            return message.term < term
        case MessageType.VOTE_RESPONSE:
            over = message.term == term == replica.node.term and replica.node.role is not Role.CANDIDATE
            return message.term < term or over
        case MessageType.PRE_VOTE_RESPONSE:
            return message.term < term or (message.term == term and not message.reject)
    return False


def _ticks_to_campaign(replica: SmallReplica) -> int:
    """More than any election timeout, so that it campaigns once, or ends a pre-election that nobody answers."""
    probe = copy_of(replica)
    for ticks in range(1, 2 * ELECTION_TICKS + 1):
        role = probe.node.role
        probe.node.tick()
        if probe.node.has_ready() and (probe.node.role is not role or role is Role.PRE_CANDIDATE):
            return ticks
    return 2 * ELECTION_TICKS


def _snapshot(replica: SmallReplica, peer: NodeId) -> Message:
    at = LogIndex(replica.log.offset)
    return Message(
        MessageType.SNAPSHOT,
        NodeId(replica.node_id),
        peer,
        replica.node.term,
        index=at,
        log_term=replica.log.offset_term,
        configuration=replica.node.configuration_at(at),
    )


def _check_matching(one: SmallReplica, other: SmallReplica) -> None:
    """Where two logs have an entry of one index and term, everything before is the same (log matching)."""
    last = min(one.log.last_index(), other.log.last_index())
    first = max(one.log.first_index(), other.log.first_index())
    same = False
    for index in range(last, first - 1, -1):
        mine = one.log.entries_held[index - one.log.offset - 1]
        theirs = other.log.entries_held[index - other.log.offset - 1]
        same = same or mine.term == theirs.term
        if same and mine != theirs:
            raise Broken(f"{one.node_id} and {other.node_id} hold different entries {index} below one that they share")


def main(arguments: list[str] | None = None, out: Callable[[str], object] = sys.stdout.write) -> int:
    """Search as the command line says. Returns 0, or 5 for a violation, which is printed with its script."""
    if not __debug__:
        sys.exit("python -O would take out the checks that this run is about")
    parser = argparse.ArgumentParser(prog="python -m quorumlog.chaos.sim.search", description=__doc__)
    for name, default in (("nodes", 3), ("depth", 12), ("states", 1 << 60), ("timeouts", 4), ("requests", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--failures", type=int, default=1)
    parser.add_argument("--change", action="store_const", const=1, default=0, dest="changes")
    parser.add_argument("--compact", action="store_const", const=1, default=0, dest="compactions")
    parser.add_argument("--synced", action="store_true")
    parser.add_argument("--elected", action="store_true")
    search = Search(Bounds(**vars(parser.parse_args(arguments))))
    began = wall.seconds()
    violation: Violation | None = None
    try:
        search.run()
    except Violation as error:
        violation = error
    seconds = wall.seconds() - began
    out(
        f"{search.states} states, depth {search.depth}, {search.transitions} transitions, "
        f"{len(search.replicas)} replica states, {seconds:.0f} s\n"
    )
    if violation is None:
        return 0
    out(f"# {violation}\n{violation.script}")
    return 5


if __name__ == "__main__":
    sys.exit(main())

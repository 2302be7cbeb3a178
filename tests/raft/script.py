"""Runs the text scripts of testdata/: a command, `----`, and what it printed, for as long as the file goes on.

A command acts on one replica and prints what that replica did; nothing moves by itself except in `stabilize`. Entries
are written index/term. Election timeouts are steady: node N campaigns after election_ticks + N ticks.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from quorumlog.raft import (
    Config,
    Configuration,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    RaftError,
    ReadState,
    Ready,
    Role,
    Term,
    Tracer,
)
from tests.raft.memory_shell import MemoryLog, Shell, SteadyRandom, configuration, entry

Options = dict[str, str]
SEPARATOR = "----"


def _nodes(words: str) -> tuple[NodeId, ...]:
    return tuple(NodeId(int(word)) for word in words.split(",") if word)


def run_script(text: str) -> str:
    """Runs every command of a script and returns the script with the outputs as they are now."""
    script = Script()
    out: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            out.append(line)
            continue
        out += [line, SEPARATOR]
        assert next(lines) == SEPARATOR, f"`{line}` must be followed by {SEPARATOR}"
        for expected in lines:
            if not expected.strip():
                break
        out += script.run(line)
        out.append("")
    while out and not out[-1]:
        out.pop()
    return "\n".join(out) + "\n"


def describe(message: Message) -> str:
    """One line per message: only the fields that its type gives a meaning and that are not at their default."""
    parts = [f"{message.sender}->{message.to} {message.type.name} term={message.term}"]
    if message.type in (MessageType.APPEND, MessageType.VOTE, MessageType.PRE_VOTE, MessageType.SNAPSHOT):
        parts.append(f"at={message.index}/{message.log_term}")
    elif message.type is MessageType.APPEND_RESPONSE:
        parts.append(f"index={message.index}")
    if message.entries:
        parts.append(f"entries={describe_entries(message.entries)}")
    if message.type in (MessageType.APPEND, MessageType.HEARTBEAT):
        parts.append(f"commit={message.commit_index}")
    if message.reject:
        parts.append("reject")
        if message.type is MessageType.APPEND_RESPONSE:
            parts.append(f"hint={message.hint_index}/{message.hint_term}")
    if message.context:
        parts.append(f"context={message.context}")
    parts += [name for name in ("force", "quiesce") if getattr(message, name)]
    if not message.counting:
        parts.append("not-counting")
    if message.nonce:
        parts.append(f"nonce={message.nonce}")
        if message.type is MessageType.HEARTBEAT:
            parts.append(f"target={message.index}")
    if message.configuration is not None:
        parts.append(describe_configuration(message.configuration))
    return " ".join(parts)


def describe_configuration(configuration: Configuration) -> str:
    parts = [f"voters={','.join(map(str, configuration.voters)) or 'none'}"]
    if configuration.outgoing:
        parts.append(f"outgoing={','.join(map(str, configuration.outgoing))}")
    if configuration.learners:
        parts.append(f"learners={','.join(map(str, configuration.learners))}")
    return " ".join(parts)


def describe_entries(entries: tuple[object, ...]) -> str:
    return "[" + " ".join(f"{one.index}/{one.term}" for one in entries) + "]"  # type: ignore[attr-defined]


class ScriptTracer(Tracer):
    def __init__(self, node_id: int, print_line: Callable[[str], None]) -> None:
        self.node_id = node_id
        self.print_line = print_line

    def on_role(self, role: Role, term: Term, leader_id: NodeId) -> None:
        leader = f", leader {leader_id}" if leader_id else ""
        self.print_line(f"{self.node_id} becomes {role.value} in term {term}{leader}")

    def on_truncate(self, since: LogIndex, last_index: LogIndex) -> None:
        self.print_line(f"{self.node_id} truncates {since} to {last_index}")

    def on_progress(self, peer: NodeId, state: str, next_index: LogIndex) -> None:
        self.print_line(f"{self.node_id} sees {peer} in {state.upper()} next={next_index}")

    def on_configuration(self, configuration: Configuration, index: LogIndex) -> None:
        self.print_line(f"{self.node_id} is in configuration {describe_configuration(configuration)} of entry {index}")

    def on_repaired(self, index: LogIndex) -> None:
        self.print_line(f"{self.node_id} has all through {index}, its repair ends")

    def on_quiesced(self, quiesced: bool) -> None:
        self.print_line(f"{self.node_id} {'falls asleep' if quiesced else 'wakes up'}")


class Script:
    """The replicas of one script, the messages between them, and the lines printed by the present command."""

    def __init__(self) -> None:
        self.shells: dict[int, Shell] = {}
        self.network: list[Message] = []
        self.lines: list[str] = []
        self.quiet = False

    def run(self, line: str) -> list[str]:
        name, *words = line.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        numbers = [int(word) for word in words if "=" not in word]
        self.lines = []
        try:
            getattr(self, "do_" + name.replace("-", "_"))(*numbers, **options)
        except RaftError as error:
            self.print(f"{type(error).__name__}: {error}")
        except ValueError as error:
            self.print(f"ValueError: {error}")
        return self.lines or ["ok"]

    def print(self, line: str) -> None:
        if not self.quiet:
            self.lines.append(line)

    # Making replicas

    def do_cluster(self, count: int, **options: str) -> None:
        for node_id in range(1, count + 1):
            self._add(node_id, configuration(*range(1, count + 1)), options)

    def do_add(self, node_id: int, **options: str) -> None:
        """`voters=` without a number: a replica born after its group, in repair and without a configuration."""
        voters, learners = _nodes(options.pop("voters")), _nodes(options.pop("learners", ""))
        self._add(node_id, Configuration(voters, learners), options)

    def _add(self, node_id: int, voters: Configuration, options: Options) -> None:
        limits: dict[str, Any] = {one.name: int(options[one.name]) for one in fields(Config) if one.name in options}
        terms = [int(term) for term in options.get("log", "").split(",") if term]
        compacted = int(options.get("compacted", 0))
        entries = [entry(index, term) for index, term in enumerate(terms, 1)]
        offset_term = terms[compacted - 1] if compacted else 0
        self.shells[node_id] = Shell(
            node_id,
            voters,
            Config(NodeId(node_id), **limits),
            SteadyRandom(node_id),
            disk=MemoryLog(entries[compacted:], compacted, offset_term),
            disk_hard_state=HardState(
                Term(int(options.get("term", max([*terms, 0])))), NodeId(int(options.get("vote", 0)))
            ),
            commit_index=int(options.get("commit", 0)),
            nonce=int(options.get("nonce", 0 if voters.voters else 100 + node_id)),
            tracer=ScriptTracer(node_id, self.print),
            send=self.network.append,
            on_read=lambda state: self._read(node_id, state),
            on_read_lost=lambda context: self.print(f"{node_id} lost read {context}"),
            on_snapshot_wanted=lambda peer: self.print(f"{node_id} wants to send {peer} a snapshot"),
        )

    def _read(self, node_id: int, state: ReadState) -> None:
        self.print(f"{node_id} may answer read {state.context} at {state.index}")

    # Inputs

    def do_campaign(self, node_id: int) -> None:
        self._node(node_id).campaign()

    def do_tick(self, node_id: int, count: int = 1) -> None:
        for _ in range(count):
            self._node(node_id).tick()

    def do_propose(self, node_id: int, count: int = 1, size: str = "1") -> None:
        self.shells[node_id].propose(*[b"x" * int(size)] * count)

    def do_read(self, node_id: int, context: int) -> None:
        self._node(node_id).read_index(context)

    def do_transfer(self, node_id: int, target: int) -> None:
        self._node(node_id).transfer_leadership(NodeId(target))

    def do_configure(self, node_id: int, **options: str) -> None:
        """Begins to change to `voters` and `learners`."""
        self._node(node_id).propose_configuration(_nodes(options["voters"]), _nodes(options.get("learners", "")))

    def do_snapshot(self, node_id: int, peer: int, **options: str) -> None:
        """The shells carry a snapshot at `at` (by default what the log of `node_id` begins behind) to a peer."""
        shell = self.shells[node_id]
        index = LogIndex(int(options.get("at", shell.log.offset)))
        term = shell.log.term(index)
        assert term is not None
        configuration = shell.node.configuration_at(index)
        self.network.append(
            Message(
                MessageType.SNAPSHOT,
                NodeId(node_id),
                NodeId(peer),
                shell.node.term,
                index=index,
                log_term=term,
                configuration=configuration,
            )
        )

    def do_unreachable(self, node_id: int, peer: int) -> None:
        self._node(node_id).report_unreachable(NodeId(peer))

    def do_reset(self, node_id: int, peer: int) -> None:
        self._node(node_id).reset_peer(NodeId(peer))

    def do_wake(self, node_id: int) -> None:
        self._node(node_id).wake()

    def do_compact(self, node_id: int, upto: int) -> None:
        self.shells[node_id].compact(upto)

    def do_unload(self, node_id: int) -> None:
        self.shells[node_id].log.in_memory = False

    def do_load(self, node_id: int) -> None:
        self.shells[node_id].log.in_memory = True
        self._node(node_id).on_entries_loaded()

    def do_crash(self, node_id: int, **options: str) -> None:
        """Loses what was not synced, and starts again; with another `nonce` in repair."""
        if "nonce" in options:
            self.shells[node_id].nonce = int(options["nonce"])
        self.shells[node_id].start()

    def do_forget(self, node_id: int, through: int, **options: str) -> None:
        """The disk loses all entries behind `through` though they were synced; starts again in repair, with `nonce`.

        What it remembers of the commit index, if anything, is `commit`.
        """
        shell = self.shells[node_id]
        shell.nonce = int(options["nonce"])
        shell.commit_index = int(options.get("commit", 0))
        del shell.disk.stored[max(through - shell.disk.offset, 0) :]
        shell.start()

    def do_step(self, sender: int, to: int, **options: str) -> None:
        """Hands a made-up message to `to`; `entries=5/2,6/2`, `voters=1,2,3` for the configuration of a snapshot."""
        pairs = [one.split("/") for one in options.pop("entries", "").split(",") if one]
        entries = tuple(entry(int(index), int(term)) for index, term in pairs)
        kind = MessageType[options.pop("type")]
        flags = {
            name: options.pop(name) == "yes" for name in ("reject", "counting", "force", "quiesce") if name in options
        }
        made_of = Configuration(_nodes(options.pop("voters"))) if "voters" in options else None
        values = {name: int(value) for name, value in options.items()}
        self._step(
            Message(
                kind,
                NodeId(sender),
                NodeId(to),
                entries=entries,
                configuration=made_of,
                **flags,  # type: ignore[arg-type]
                **values,  # type: ignore[arg-type]
            )
        )

    # Work

    def do_ready(self, node_id: int) -> None:
        """Carries one Ready out up to its write; its sync is left open."""
        assert self._node(node_id).has_ready(), "nothing to do"
        self._show(node_id, self.shells[node_id].take())

    def do_sync(self, node_id: int, count: int | None = None) -> None:
        shell = self.shells[node_id]
        before = len(self.network)
        shell.sync(count)
        for message in self.network[before:]:
            self.print(f"  leaves {describe(message)}")
        self.print(f"{node_id} stable={shell.node.stable_index} commit={shell.node.commit_index}")

    def do_process(self, node_id: int) -> None:
        """Carries out and syncs everything a replica has to do."""
        shell = self.shells[node_id]
        while shell.node.has_ready() or shell.in_flight:
            if shell.node.has_ready():
                self._show(node_id, shell.take())
            shell.sync()

    def do_deliver(self, to: int | None = None, **options: str) -> None:
        """Delivers what is under way at this moment, all or what fits `to`, `type` and `sender`; of that the `first`
        few, or the one `at` a place.
        """
        for message in self._pick(to, options):
            self.print(describe(message))
            self._step(message)

    def do_duplicate(self, to: int | None = None, **options: str) -> None:
        """Delivers, and keeps a copy under way."""
        copies = self._pick(to, options)
        self.network.extend(copies)
        for message in copies:
            self.print(describe(message))
            self._step(message)

    def do_drop(self, to: int | None = None, **options: str) -> None:
        for message in self._pick(to, options):
            self.print(f"dropped {describe(message)}")

    def do_stabilize(self, *node_ids: int) -> None:
        """Processes and delivers between the replicas named (or all) until nothing is left to do."""
        among = node_ids or tuple(self.shells)
        for _ in range(200):
            busy = [one for one in among if self._node(one).has_ready() or self.shells[one].in_flight]
            under_way = [one for one in self.network if one.to in among and one.sender in among]
            if not busy and not under_way:
                return
            for node_id in busy:
                self.do_process(node_id)
            for message in under_way:
                self.network.remove(message)
                self.print(describe(message))
                self._step(message)
        raise AssertionError("the cluster does not come to rest")

    def do_settle(self, *node_ids: int) -> None:
        """As stabilize, but shows only where it led."""
        self.quiet = True
        self.do_stabilize(*node_ids)
        self.quiet = False
        for node_id in node_ids or tuple(self.shells):
            self.do_status(node_id)

    def do_beat(self, leader: int, count: int, *node_ids: int) -> None:
        """Lets time pass on all replicas named (or all), tick by tick, with the network working."""
        among = node_ids or tuple(self.shells)
        for _ in range(count):
            for node_id in among:
                self._node(node_id).tick()
            self.quiet = True
            self.do_stabilize(*among)
            self.quiet = False
        self.do_status(leader)

    # Views

    def do_status(self, *node_ids: int) -> None:
        for node_id in node_ids or tuple(self.shells):
            node = self._node(node_id)
            asleep = " asleep" if node.quiesced else ""
            repair = "" if node.counting else " in repair"
            self.print(
                f"{node_id} {node.role.value} term={node.term} vote={node.vote} leader={node.leader_id}"
                f" last={node.last_index} stable={node.stable_index} commit={node.commit_index}{asleep}{repair}"
            )

    def do_configuration(self, *node_ids: int) -> None:
        for node_id in node_ids or tuple(self.shells):
            node = self._node(node_id)
            self.print(f"{node_id} {describe_configuration(node.configuration)} of entry {node.configuration_index}")

    def do_log(self, *node_ids: int) -> None:
        for node_id in node_ids or tuple(self.shells):
            self.print(f"{node_id} holds {describe_entries(tuple(self.shells[node_id].log.stored))}")

    def do_progress(self, node_id: int) -> None:
        for peer in sorted(self.shells):
            view = self._node(node_id).progress(NodeId(peer))
            if view is not None:
                marks = {
                    "active": view.recently_active,
                    "not-counting": not view.counting,
                    "needs-snapshot": view.needs_snapshot,
                }
                self.print(
                    f"{peer} {view.state.name} match={view.match_index} counted={view.counted_index}"
                    f" next={view.next_index} inflight={view.inflight_messages}/{view.inflight_size_bytes}B"
                    + "".join(f" {mark}" for mark, holds in marks.items() if holds)
                )

    def do_network(self) -> None:
        for message in self.network:
            self.print(describe(message))

    def _node(self, node_id: int):  # type: ignore[no-untyped-def]
        return self.shells[node_id].node

    def _pick(self, to: int | None, options: Options) -> list[Message]:
        picked = [
            message
            for message in self.network
            if (to is None or message.to == to)
            and options.get("type", message.type.name) == message.type.name
            and int(options.get("sender", message.sender)) == message.sender
        ]
        if "first" in options:
            picked = picked[: int(options["first"])]
        if "at" in options:
            picked = [picked[int(options["at"])]]
        for message in picked:
            self.network.remove(message)
        return picked

    def _step(self, message: Message) -> None:
        try:
            self.shells[message.to].step(message)
        except RaftError as error:
            self.print(f"{message.to} refuses it: {type(error).__name__}: {error}")
        self._node(message.to).check_invariants()

    def _show(self, node_id: int, ready: Ready) -> None:
        parts = []
        if ready.install is not None:
            parts.append(f"install the snapshot at {ready.install}")
        if ready.repaired:
            parts.append("note the end of repair")
        if ready.hard_state is not None:
            parts.append(f"persist term={ready.hard_state.term} vote={ready.hard_state.vote}")
        if ready.truncate_since is not None:
            parts.append(f"truncate since {ready.truncate_since}")
        if ready.entries:
            parts.append(f"append {describe_entries(ready.entries)}")
        if ready.configurations is not None:
            parts.append(f"configurations of entries {' '.join(str(row.index) for row in ready.configurations)}")
        parts.append(f"commit={ready.commit_index}")
        self.print(f"{node_id} ready: " + ", ".join(parts))
        for message in ready.messages:
            self.print(f"  sends {describe(message)}")
        for message in ready.messages_after_sync:
            self.print(f"  after sync {describe(message)}")

"""Every replica meets every message in an older, the present and a later term, and somebody has decided what happens.

The decisions stand in dispatch_table.md. QUORUMLOG_RAFT_REWRITE=1 writes what happens now into it; commit only changes
that you understand.
"""

import os
from itertools import product
from pathlib import Path

import pytest

from quorumlog.raft import (
    Config,
    Configuration,
    Entry,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    Ready,
    Role,
    StepError,
    Term,
)
from quorumlog.raft.dispatch import DISPATCH, ignore, impossible
from quorumlog.raft.validation import CHECKS
from tests.raft.memory_shell import MemoryLog, Shell, SteadyRandom, configuration, entry

TABLE = Path(__file__).parent / "dispatch_table.md"
CELLS = list(product(Role, MessageType))
OLDER, PRESENT, LATER = 2, 3, 4
TERMS = (OLDER, PRESENT, LATER)
VOTERS = configuration(1, 2, 3)
REPLICAS = {
    "follower": VOTERS,
    "pre_candidate": VOTERS,
    "candidate": VOTERS,
    "leader": VOTERS,
    "learner": Configuration((NodeId(2), NodeId(3)), (NodeId(1),)),
    "in repair": VOTERS,
    "born after its group": Configuration(()),
}


def make(kind: str) -> Shell:
    """Replica 1 of three in term 3, as `kind` says, with one entry where its log may hold one."""
    campaigns = kind in ("pre_candidate", "candidate", "leader")
    shell = Shell(
        1,
        REPLICAS[kind],
        Config(NodeId(1)),
        SteadyRandom(1),
        disk=MemoryLog([] if kind == "born after its group" else [entry(1, 1)]),
        disk_hard_state=HardState(Term(2 if kind in ("candidate", "leader") else 3), NodeId(0)),
        nonce=7 if kind in ("in repair", "born after its group") else 0,
    )
    if campaigns:
        shell.node.campaign()
        work(shell)
    if kind in ("candidate", "leader"):
        shell.node.step(message(MessageType.PRE_VOTE_RESPONSE))
        work(shell)
    if kind == "leader":
        shell.node.step(message(MessageType.VOTE_RESPONSE))
        work(shell)
    assert shell.node.role is (Role[kind.upper()] if kind.upper() in Role.__members__ else Role.FOLLOWER)
    assert shell.node.term == 3
    return shell


def work(shell: Shell) -> list[Ready]:
    done = []
    while shell.node.has_ready() or shell.in_flight:
        if shell.node.has_ready():
            done.append(shell.take())
        shell.sync()
    return done


def message(kind: MessageType, term: int = PRESENT) -> Message:
    """One that a correct peer may send to the replica of `make`."""
    position: dict[str, object] = {"index": LogIndex(1), "log_term": Term(1)}
    fields: dict[MessageType, dict[str, object]] = {
        MessageType.APPEND: {**position, "entries": (entry(2, 2),), "commit_index": LogIndex(1)},
        MessageType.APPEND_RESPONSE: {"index": LogIndex(1), "last_index": LogIndex(1), "stable_index": LogIndex(1)},
        MessageType.HEARTBEAT: {"commit_index": LogIndex(0)},
        MessageType.HEARTBEAT_RESPONSE: {"last_index": LogIndex(1)},
        MessageType.VOTE: position,
        MessageType.PRE_VOTE: position,
        MessageType.SNAPSHOT: {"index": LogIndex(5), "log_term": Term(2), "configuration": VOTERS},
    }
    return Message(kind, NodeId(2), NodeId(1), Term(term), **fields.get(kind, {}))  # type: ignore[arg-type]


def outcome(kind: str, one: Message) -> str:
    """What the message does: what the replica becomes, what it takes over, and what it answers."""
    shell = make(kind)
    node = shell.node
    before = (node.role, node.term, node.leader_id, node.commit_index)
    try:
        shell.step(one)
    except StepError:
        assert (node.role, node.term, node.leader_id, node.commit_index) == before
        assert not node.has_ready()
        return "refused"
    node.check_invariants()
    words = []
    if (node.role, node.term) != before[:2]:
        words.append(f"{node.role.value} in {node.term}")
    if node.leader_id not in (before[2], 0, 1):
        words.append(f"follows {node.leader_id}")
    for ready in work(shell):
        if ready.install is not None:
            words.append(f"installs {ready.install}")
        if ready.entries:
            words.append(f"appends {'no-op' if node.is_leader else ready.entries[0].index}")
        if ready.commit_index != before[3] and ready.install is None:
            words.append(f"commits {ready.commit_index}")
        words += [
            f"{answer.type.name.lower()} to {answer.to}{' (reject)' if answer.reject else ''}"
            for answer in ready.messages + ready.messages_after_sync
        ]
    return ", ".join(words) or "ignored"


HEAD = """# What happens when a replica of term 3 gets a message of node 2

Written by `QUORUMLOG_RAFT_REWRITE=1 pytest tests/raft/test_dispatch.py`. `ignored`: no change, no answer.
`refused`: StepError. `follows 2`: takes node 2 for the leader. `to 2`: answered.
"""


def table() -> str:
    lines = [HEAD]
    for kind in REPLICAS:
        lines.append(f"\n## {kind}\n\n| message | of term 2 | of term 3 | of term 4 |\n|---|---|---|---|\n")
        for one in MessageType:
            cells = [outcome(kind, message(one, term)) for term in TERMS]
            lines.append(f"| {one.name} | {' | '.join(cells)} |\n")
    return "".join(lines)


def test_every_cell_is_decided() -> None:
    now = table()
    if os.environ.get("QUORUMLOG_RAFT_REWRITE"):
        TABLE.write_text(now)
    assert TABLE.read_text() == now


def test_the_table_of_handlers_names_every_pair_and_nothing_else() -> None:
    assert sorted(DISPATCH, key=str) == sorted(CELLS, key=str)


@pytest.mark.parametrize(("role", "kind"), CELLS, ids=lambda one: one.name)
def test_every_pair_is_handled_as_the_table_of_handlers_says(role: Role, kind: MessageType) -> None:
    handler = DISPATCH[role, kind]
    happens = outcome(role.value, message(kind))
    if handler is impossible:
        assert happens == "refused"
    if handler is ignore:
        assert happens == "ignored"


@pytest.mark.parametrize("kind", MessageType, ids=lambda one: one.name)
@pytest.mark.parametrize("replica", REPLICAS)
def test_a_message_of_an_older_term_never_changes_anything(replica: str, kind: MessageType) -> None:
    shell = make(replica)
    before = observable(shell)
    shell.step(message(kind, OLDER))
    work(shell)
    assert observable(shell) == before


@pytest.mark.parametrize("kind", MessageType, ids=lambda one: one.name)
@pytest.mark.parametrize("replica", ["learner", "in repair", "born after its group"])
def test_whoever_may_not_campaign_stays_a_follower(replica: str, kind: MessageType) -> None:
    for term in TERMS:
        shell = make(replica)
        shell.step(message(kind, term))
        work(shell)
        assert shell.node.role is Role.FOLLOWER


@pytest.mark.parametrize("replica", ["in repair", "born after its group"])
@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
def test_whoever_may_have_forgotten_promises_grants_nothing(replica: str, kind: MessageType) -> None:
    for term in TERMS:
        shell = make(replica)
        shell.step(message(kind, term))
        answers = [one for ready in work(shell) for one in ready.messages + ready.messages_after_sync]
        assert [one.reject for one in answers] == [True]
        assert shell.node.vote == 0


def observable(shell: Shell) -> tuple[int, int, Role, int, int, list[Entry]]:
    node = shell.node
    return node.term, node.vote, node.role, node.leader_id, node.commit_index, list(shell.log.stored)


def test_only_messages_without_fields_go_unchecked() -> None:
    assert {kind for kind in MessageType if kind not in CHECKS} == {
        MessageType.TIMEOUT_NOW, MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE,
    }  # fmt: skip

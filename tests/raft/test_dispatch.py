"""Every role meets every message, and somebody has decided what happens."""

from itertools import product

import pytest

from quorumlog.raft import Config, HardState, LogIndex, Message, MessageType, NodeId, Role, StepError, Term
from quorumlog.raft.dispatch import DISPATCH, ignore, impossible
from quorumlog.raft.validation import CHECKS
from tests.raft.memory_shell import MemoryLog, Shell, SteadyRandom, configuration, entry

CELLS = list(product(Role, MessageType))


def replica_in(role: Role) -> Shell:
    """Replica 1 of three in term 3, in the role wanted, with one entry."""
    shell = Shell(
        1,
        configuration(1, 2, 3),
        Config(NodeId(1)),
        SteadyRandom(1),
        disk=MemoryLog([entry(1, 1)]),
        disk_hard_state=HardState(Term(2 if role in (Role.CANDIDATE, Role.LEADER) else 3), NodeId(0)),
    )
    if role is not Role.FOLLOWER:
        shell.node.campaign()
    if role in (Role.CANDIDATE, Role.LEADER):
        shell.node.step(message(MessageType.PRE_VOTE_RESPONSE))
        shell.take()
        shell.sync()
    if role is Role.LEADER:
        shell.node.step(message(MessageType.VOTE_RESPONSE))
        shell.take()
        shell.sync()
    assert shell.node.role is role
    assert shell.node.term == 3
    return shell


def message(kind: MessageType, term: int = 3) -> Message:
    position: dict[str, object] = (
        {"index": LogIndex(1), "log_term": Term(1)} if kind is not MessageType.APPEND_RESPONSE else {}
    )
    if kind is MessageType.SNAPSHOT:
        position["configuration"] = configuration(1, 2, 3)
    return Message(kind, NodeId(2), NodeId(1), Term(term), **position)  # type: ignore[arg-type]


def test_the_table_names_every_pair_and_nothing_else() -> None:
    assert sorted(DISPATCH, key=str) == sorted(CELLS, key=str)


@pytest.mark.parametrize(("role", "kind"), CELLS, ids=lambda one: one.name)
def test_every_pair_is_handled_as_the_table_says(role: Role, kind: MessageType) -> None:
    shell = replica_in(role)
    handler = DISPATCH[role, kind]
    if handler is impossible:
        with pytest.raises(StepError, match="claims to lead term 3"):
            shell.node.step(message(kind))
        return
    before = (shell.node.role, shell.node.term, shell.node.vote, shell.node.leader_id, shell.node.has_ready())
    shell.node.step(message(kind))
    shell.node.check_invariants()
    if handler is ignore:
        assert before == (
            shell.node.role, shell.node.term, shell.node.vote, shell.node.leader_id, shell.node.has_ready(),
        )  # fmt: skip


@pytest.mark.parametrize(("role", "kind"), CELLS, ids=lambda one: one.name)
def test_every_pair_survives_an_older_and_a_later_term(role: Role, kind: MessageType) -> None:
    for term in (2, 4):
        shell = replica_in(role)
        shell.node.step(message(kind, term))
        shell.node.check_invariants()
        assert shell.node.term in (3, 4, 5)  # 5: told by the leader of term 4 to campaign
        if term == 2:
            assert (shell.node.role, shell.node.term) == (role, 3)


def test_only_messages_without_fields_go_unchecked() -> None:
    assert {kind for kind in MessageType if kind not in CHECKS} == {
        MessageType.TIMEOUT_NOW, MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE,
    }  # fmt: skip

"""Well-typed nonsense: whatever arrives, the core answers with StepError or takes it, and stays whole."""

from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quorumlog.raft import (
    Config,
    Entry,
    EntryKind,
    HardState,
    LogIndex,
    Message,
    MessageType,
    NodeId,
    NotLeader,
    StepError,
    Term,
)
from tests.raft.memory_shell import MemoryLog, Shell, SteadyRandom, configuration, entry

SMALL = st.integers(0, 9)
ANY = st.one_of(SMALL, SMALL, SMALL, st.sampled_from([-1, 2**32, 2**63, 2**64 - 1]))
ENTRIES = st.builds(Entry, ANY.map(LogIndex), ANY.map(Term), st.sampled_from(EntryKind), st.binary(max_size=3))


@st.composite
def runs(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Entries as a correct leader would send them, so that the deeper code is reached as well."""
    first, count = draw(st.integers(1, 8)), draw(st.integers(0, 4))
    terms = sorted(draw(st.lists(st.integers(1, 5), min_size=count, max_size=count)))
    return tuple(entry(first + place, term) for place, term in enumerate(terms))


MESSAGES = st.builds(
    Message,
    type=st.sampled_from(MessageType),
    sender=st.one_of(st.sampled_from([2, 3]), ANY).map(NodeId),
    to=st.one_of(st.just(1), st.just(1), st.just(1), ANY).map(NodeId),
    term=ANY.map(Term),
    index=ANY.map(LogIndex),
    log_term=ANY.map(Term),
    entries=st.one_of(st.just(()), runs(), st.lists(ENTRIES, max_size=3).map(tuple)),
    commit_index=ANY.map(LogIndex),
    reject=st.booleans(),
    hint_index=ANY.map(LogIndex),
    hint_term=ANY.map(Term),
    last_index=ANY.map(LogIndex),
    stable_index=ANY.map(LogIndex),
    counting=st.booleans(),
    context=ANY,
    force=st.booleans(),
    quiesce=st.booleans(),
)
ACTIONS = st.one_of(
    MESSAGES, MESSAGES, MESSAGES, st.sampled_from(["tick", "campaign", "ready", "sync", "read", "propose"])
)


def act(shell: Shell, action: str) -> None:
    node = shell.node
    if action == "tick":
        for _ in range(6):
            node.tick()
    elif action == "campaign":
        node.campaign()
    elif action == "ready" and node.has_ready():
        shell.take()
    elif action == "sync":
        shell.sync()
    elif action == "read":
        with suppress(NotLeader):
            node.read_index(1)
    elif action == "propose":
        with suppress(NotLeader):
            shell.propose(b"p")


def observable(shell: Shell) -> tuple[object, ...]:
    node = shell.node
    return (
        node.term, node.vote, node.role, node.leader_id, node.commit_index, node.last_index, node.stable_index,
        node.quiesced, node.has_ready(), node.transferring_to, node.progress(NodeId(2)), node.progress(NodeId(3)),
    )  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=25), st.sampled_from([(1,), (1, 2), (1, 2, 3), (2, 3)]), st.booleans(), st.booleans())
def test_nonsense_is_refused_without_effect(
    actions: list[Message | str], voters: tuple[int, ...], counting: bool, elected: bool
) -> None:
    shell = Shell(
        1,
        configuration(*voters),
        Config(NodeId(1)),
        SteadyRandom(1),
        disk=MemoryLog([entry(index, 1) for index in range(3, 6)], offset=2, offset_term=1),
        disk_hard_state=HardState(Term(1), NodeId(0)),
        nonce=0 if counting else 7,
        commit_index=3,
    )
    if elected:
        shell.node.campaign()
        for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
            act(shell, "ready")
            act(shell, "sync")
            shell.node.step(Message(kind, NodeId(2), NodeId(1), Term(2)))
    commit_index, term = shell.node.commit_index, shell.node.term
    for action in actions:
        if isinstance(action, str):
            act(shell, action)
        else:
            before = observable(shell)
            try:
                shell.node.step(action)
            except StepError:
                assert observable(shell) == before
        shell.node.check_invariants()
        assert shell.node.commit_index >= commit_index
        assert shell.node.term >= term
        commit_index, term = shell.node.commit_index, shell.node.term

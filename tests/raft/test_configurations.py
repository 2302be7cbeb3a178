"""The configurations of a log against a list of all its entries, and sequences of changes against their wishes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from quorumlog.raft import Config, Configuration, ConfigurationRefused, ConfigurationRow, LogIndex, NodeId
from quorumlog.raft.configurations import Configurations
from tests.raft.memory_shell import Shell, SteadyRandom, configuration

KNOWN = st.sets(st.integers(1, 5), min_size=1, max_size=3).map(lambda voters: configuration(*voters))


class LogOfConfigurations(RuleBasedStateMachine):
    """The model keeps one slot for each entry of the log: the configuration that it holds, or nothing."""

    @initialize(founding=KNOWN)
    def begin(self, founding: Configuration) -> None:
        self.real = Configurations([ConfigurationRow(LogIndex(0), founding)])
        self.before: Configuration = founding
        self.first = 1
        self.entries: list[Configuration | None] = []

    @property
    def last(self) -> int:
        return self.first + len(self.entries) - 1

    @rule(holds=st.one_of(st.none(), KNOWN))
    def append(self, holds: Configuration | None) -> None:
        self.entries.append(holds)
        if holds is not None:
            self.real.append(LogIndex(self.last), holds)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        since = data.draw(st.integers(self.first, self.last))
        changed = any(one is not None for one in self.entries[since - self.first :])
        del self.entries[since - self.first :]
        assert self.real.truncate(LogIndex(since)) == changed

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        upto = data.draw(st.integers(self.first, self.last))
        self.before = self.in_force(upto)
        del self.entries[: upto + 1 - self.first]
        self.first = upto + 1
        self.real.compact(LogIndex(upto))

    @rule(ahead=st.integers(0, 5), known=KNOWN)
    def install(self, ahead: int, known: Configuration) -> None:
        self.before, self.first = known, self.last + ahead + 1
        self.entries = []
        self.real.reset(LogIndex(self.first - 1), known)

    @rule()
    def restart(self) -> None:
        self.real = Configurations(self.real.rows)

    def in_force(self, index: int) -> Configuration:
        held = [one for one in self.entries[: index + 1 - self.first] if one is not None]
        return held[-1] if held else self.before

    @invariant()
    def agree(self) -> None:
        assert self.real.latest == self.in_force(self.last)
        for index in range(self.first - 1, self.last + 1):
            assert self.real.at(LogIndex(index)) == self.in_force(index)
        assert self.real.rows[0].index < self.first
        assert all(self.first <= row.index <= self.last for row in self.real.rows[1:])


TestLogOfConfigurations = LogOfConfigurations.TestCase
TestLogOfConfigurations.settings = settings(max_examples=60, stateful_step_count=30)


class Group:
    """Nodes 1 to 5, of which 1 is the first voter; every message arrives, every write is synced at once."""

    def __init__(self) -> None:
        self.shells: dict[int, Shell] = {}
        for node_id in range(1, 6):
            self.shells[node_id] = Shell(
                node_id,
                configuration(1) if node_id == 1 else Configuration(()),
                Config(NodeId(node_id)),
                SteadyRandom(node_id),
                nonce=0 if node_id == 1 else node_id,
                send=lambda message: self.shells[message.to].step(message),
            )
        self.shells[1].node.campaign()
        self.settle()

    def settle(self) -> None:
        while any(one.node.has_ready() or one.in_flight for one in self.shells.values()):
            for shell in self.shells.values():
                if shell.node.has_ready():
                    shell.take()
                shell.sync()

    def beat(self, ticks: int) -> None:
        for _ in range(ticks):
            for shell in self.shells.values():
                shell.node.tick()
            self.settle()

    @property
    def leader(self) -> Shell:
        (leader,) = [one for one in self.shells.values() if one.node.is_leader]
        return leader


WISHES = st.tuples(st.sets(st.integers(1, 5), max_size=5), st.sets(st.integers(1, 5), max_size=5))


@settings(max_examples=60)
@given(st.lists(WISHES, max_size=8))
def test_a_sequence_of_changes_ends_in_the_last_one_that_was_allowed(wishes: list[tuple[set[int], set[int]]]) -> None:
    group = Group()
    expected = configuration(1)
    for voters, learning in wishes:
        learners = learning - voters
        # The second implementation: a change is allowed if somebody votes and nobody votes who was not here before.
        allowed = bool(voters) and voters <= {*expected.voters, *expected.learners}
        try:
            group.leader.node.propose_configuration(
                [NodeId(one) for one in sorted(voters)], [NodeId(one) for one in sorted(learners)]
            )
        except ConfigurationRefused:
            assert not allowed
        else:
            assert allowed
            expected = Configuration(
                tuple(NodeId(one) for one in sorted(voters)), tuple(NodeId(one) for one in sorted(learners))
            )
        group.beat(25)
        assert group.leader.node.configuration == expected
        assert group.leader.node.commit_index == group.leader.node.last_index
        for replica in expected.replicas:
            assert group.shells[replica].node.configuration == expected
            assert group.shells[replica].node.counting

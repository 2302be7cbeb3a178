"""A leader's view of a peer against a model that remembers everything and works it out anew each time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quorumlog.raft import LogIndex, ProgressState
from quorumlog.raft.inflights import Inflights
from quorumlog.raft.progress import Progress

MESSAGES_MAX, SIZE_BYTES_MAX = 3, 20
INDEXES = st.integers(0, 12).map(LogIndex)


class LeaderAndPeer(RuleBasedStateMachine):
    """The model: all acknowledgements of the session, all APPENDs since the pipeline was given up, and the state."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Progress(LogIndex(6), Inflights(MESSAGES_MAX, SIZE_BYTES_MAX))
        self.acknowledged: list[int] = [0]
        self.sent: list[tuple[int, int]] = []
        self.state = ProgressState.PROBE
        self.probing_from = 6

    @property
    def match(self) -> int:
        return max(self.acknowledged)

    @property
    def in_flight(self) -> list[tuple[int, int]]:
        return [one for one in self.sent if one[0] > self.match]

    @property
    def next(self) -> int:
        """Behind what was sent, or acknowledged, or where it probes."""
        if self.state is ProgressState.REPLICATE:
            return max([self.match, *(last for last, _ in self.sent)]) + 1
        return max(self.probing_from, self.match + 1)

    @precondition(lambda self: self.real.state is ProgressState.REPLICATE and self.real.can_send)
    @rule(count=st.integers(1, 3), size_bytes=st.integers(0, 15))
    def send(self, count: int, size_bytes: int) -> None:
        last = self.next + count - 1
        self.real.on_sent(LogIndex(last), size_bytes)
        self.sent.append((last, size_bytes))

    @precondition(lambda self: self.real.state is ProgressState.PROBE and self.real.can_send)
    @rule(count=st.integers(0, 3))
    def probe(self, count: int) -> None:
        self.real.on_sent(LogIndex(self.next + count - 1), 1)
        assert not self.real.can_send

    @rule(index=INDEXES)
    def acknowledge(self, index: LogIndex) -> None:
        """Of something sent, of something sent long ago, or of more than this leader has sent."""
        news = index > self.match
        if not (self.state is ProgressState.REPLICATE and index >= self.next):
            assert self.real.on_matched(index) == news
            self.acknowledged.append(index)

    @precondition(lambda self: self.real.state is not ProgressState.REPLICATE)
    @rule()
    def replicate(self) -> None:
        self.real.become_replicate()
        self.state, self.sent = ProgressState.REPLICATE, []

    @rule(rejected=INDEXES, hint=INDEXES)
    def reject(self, rejected: LogIndex, hint: LogIndex) -> None:
        stale = rejected <= self.match or (
            self.state is ProgressState.SNAPSHOT or (self.state is ProgressState.PROBE and rejected != self.next - 1)
        )
        if self.state is ProgressState.REPLICATE:
            probing_from = self.match + 1
        else:
            probing_from = min(rejected, hint + 1)
        assert self.real.on_rejected(rejected, hint) is not stale
        if not stale:
            self.give_up(ProgressState.PROBE, probing_from)

    @rule(at=INDEXES)
    def lose(self, at: LogIndex) -> None:
        """The stream broke."""
        self.real.become_probe(at)
        self.give_up(ProgressState.PROBE, at)

    @rule()
    def compact(self) -> None:
        """What the peer needs next is gone."""
        at = self.next
        self.real.become_snapshot()
        self.give_up(ProgressState.SNAPSHOT, at)

    @rule(at=INDEXES)
    def begin_a_session(self, at: LogIndex) -> None:
        self.real.reset(at)
        self.acknowledged = [0]
        self.give_up(ProgressState.PROBE, at)

    def give_up(self, state: ProgressState, at: int) -> None:
        self.state, self.sent, self.probing_from = state, [], at

    @invariant()
    def agree(self) -> None:
        real = self.real.view(LogIndex(0))
        assert (real.state, real.match_index, real.next_index) == (self.state, self.match, self.next)
        assert real.inflight_messages == len(self.in_flight)
        assert real.inflight_size_bytes == sum(size for _, size in self.in_flight)
        assert real.needs_snapshot == (self.state is ProgressState.SNAPSHOT)
        if self.state is ProgressState.REPLICATE:
            full = len(self.in_flight) >= MESSAGES_MAX or real.inflight_size_bytes >= SIZE_BYTES_MAX
            assert self.real.can_send is not full
        else:
            assert real.inflight_messages == 0


TestLeaderAndPeer = LeaderAndPeer.TestCase
TestLeaderAndPeer.settings = settings(max_examples=60, stateful_step_count=25)

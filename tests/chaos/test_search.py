"""The small-model search finds nothing in the shipped core, and finds what is broken on purpose."""

import pytest

from quorumlog.chaos.sim import search
from quorumlog.chaos.sim.search import Bounds, Search, Violation
from quorumlog.raft import following
from quorumlog.raft.core import Core
from quorumlog.raft.quorum import VoteResult
from quorumlog.raft.types import Entry
from tests.raft.script import run_script


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(nodes=3, depth=60, states=7_000),
        Bounds(nodes=3, depth=60, states=7_000, elected=True, synced=True, changes=1),
        Bounds(nodes=2, depth=60, states=7_000, elected=True, changes=1, compactions=1),
    ],
    ids=str,
)
def test_every_interleaving_of_few_steps_keeps_the_promises(bounds: Bounds) -> None:
    one = Search(bounds)
    one.run()
    assert one.states >= bounds.states
    assert one.depth >= 5


def test_the_same_bounds_reach_the_same_states() -> None:
    first, second = Search(Bounds(nodes=3, depth=6)), Search(Bounds(nodes=3, depth=6))
    first.run()
    second.run()
    assert (first.states, first.transitions) == (second.states, second.transitions)


def test_two_leaders_in_a_term_are_found_and_the_way_there_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_vote_wins(configuration: object, votes: dict[int, bool]) -> VoteResult:
        return VoteResult.WON if any(votes.values()) else VoteResult.PENDING

    monkeypatch.setattr("quorumlog.raft.election.vote_result", one_vote_wins)
    with pytest.raises(Violation, match="two leaders in term 1") as found:
        Search(Bounds(nodes=3, depth=8)).run()
    transcript = run_script(found.value.script + "status\n----\n")
    assert transcript.count(" leader term=1") == 2


def test_a_matching_suffix_that_is_truncated_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old APPEND, come twice, takes back what was acknowledged (R5)."""
    take_over = following._take_over  # the step to break

    def truncating(core: Core, entries: tuple[Entry, ...]) -> None:
        if core.commit_index < entries[0].index <= core.log.last_index:
            core.truncate(entries[0].index)
        take_over(core, entries)

    monkeypatch.setattr(following, "_take_over", truncating)
    bounds = Bounds(nodes=2, depth=12, states=300_000, timeouts=0, requests=2, failures=1, elected=True)
    with pytest.raises(Violation, match="is committed, but durable on") as found:
        Search(bounds).run()
    transcript = run_script(found.value.script + "log\n----\n\nstatus 1\n----\n")
    assert "1 leader term=1" in transcript


def test_the_command_line_tells_how_far_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    assert search.main(["--nodes", "2", "--depth", "5"], said.append) == 0
    assert "states, depth 5" in "".join(said)

import itertools
import random

import pytest

from quorumlog.node.coordination.plane import choose_voters
from quorumlog.node.coordination.settings import PlaneSettings
from quorumlog.node.coordination.view import LeaderHint
from quorumlog.node.coordination.wire import MAX_PAYLOAD_BYTES
from quorumlog.raft.types import NodeId, Term
from tests.node.coordination.links import Network


def settled(members: int, seed: int = 1, settings: PlaneSettings | None = None) -> Network:
    """A network in which everyone has heard everyone; node n leads group 10 n in term n."""
    network = Network(members, seed, settings)
    for node_id in network.member_ids:
        network.announce(node_id, {node_id * 10: node_id})
    network.run_until(lambda: network.leader() is not None)
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.planes))
    return network


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(4))
def test_planes_converge_on_the_same_view(members: int, seed: int) -> None:
    network = settled(members, seed)
    for plane in network.planes.values():
        assert plane.figures().keys() == set(network.member_ids)
        for node_id in network.member_ids:
            hint = plane.leader_hint(node_id * 10)
            assert hint is not None
            assert hint == LeaderHint(node_id, Term(node_id))
            assert plane.figures()[node_id].disk_free_bytes == node_id * 1_000
        assert plane.failures == 0


@pytest.mark.parametrize(
    ("members", "voters"), [(1, [1]), (2, [1]), (3, [1, 2, 3]), (4, [1, 2, 3]), (9, [1, 2, 3, 4, 5])]
)
def test_the_voters_are_the_lowest_one_three_or_five_node_ids(members: int, voters: list[int]) -> None:
    assert choose_voters([NodeId(number) for number in range(members, 0, -1)]) == voters


@pytest.mark.parametrize("victim", [1, 2, 3])
def test_the_loss_of_any_one_node_costs_only_what_it_said(victim: int) -> None:
    network = settled(3)
    network.kill(victim)
    lost = network.now
    network.run_until(lambda: not any(p.node_is_up(NodeId(victim), network.now) for p in network.planes.values()))
    assert network.now - lost < 10.0 + 0.1
    for survivor, plane in network.planes.items():
        assert plane.leader_hint(victim * 10) is None
        assert victim not in plane.figures()
        network.announce(survivor, {77: survivor})
    network.run_until(lambda: all(p.leader_hint(77) is not None for p in network.planes.values()))
    network.run(30)
    assert all(network.everyone_sees(survivor) for survivor in network.planes)


@pytest.mark.parametrize("victim", [1, 2, 3])
@pytest.mark.parametrize("away_seconds", [0.0, 600.0])  # within the log, and behind a snapshot
def test_a_restarted_node_catches_up(victim: int, away_seconds: float) -> None:
    network = settled(3)
    network.kill(victim)
    network.run(away_seconds)
    plane = network.start(victim)
    network.announce(victim, {victim * 10: 9})
    said_now = LeaderHint(NodeId(victim), Term(9))
    network.run_until(lambda: all(p.leader_hint(victim * 10) == said_now for p in network.planes.values()))
    network.run_until(lambda: plane.figures().keys() == set(network.member_ids))
    assert plane.failures == 0


def test_all_nodes_restarted_at_once_know_everything_again_within_seconds() -> None:
    network = settled(3)
    for node_id in network.member_ids:
        network.kill(node_id)
    for node_id in network.member_ids:
        network.start(node_id)
        network.announce(node_id, {node_id: 1})
    assert network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids)) < 10


def test_all_voters_restarted_at_once_are_followed_again_by_those_who_did_not_restart() -> None:
    network = settled(7)
    for _ in range(5):  # elections, so that the followers have seen a term that fresh voters do not reach by chance
        leader = network.leader()
        assert leader is not None
        network.kill(leader)
        network.run_until(lambda: network.leader() is not None)
        network.start(leader)
        network.run(10)
    for voter in (1, 2, 3, 4, 5):
        network.kill(voter)
    for voter in (1, 2, 3, 4, 5):
        network.start(voter)
        network.announce(voter, {voter: 1})
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids), seconds=30)
    assert all(plane.failures == 0 for plane in network.planes.values())


def test_two_voters_that_restart_empty_while_the_third_is_cut_off_agree_with_it_again() -> None:
    network = settled(3)
    network.drop = lambda sender, receiver: 1 in (sender, receiver)
    for node_id in (2, 3):
        network.kill(node_id)
    for node_id in (2, 3):
        network.start(node_id)
        network.announce(node_id, {node_id: 1})
    network.run_until(lambda: network.planes[NodeId(2)].plane_leader in (2, 3))
    network.run(120)
    network.drop = lambda sender, receiver: False
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids), seconds=60)
    network.run(30)
    assert all(network.everyone_sees(node_id) for node_id in network.member_ids)
    assert all(plane.failures <= 2 for plane in network.planes.values())


def test_the_higher_term_wins_in_whichever_order_it_is_said() -> None:
    network = settled(3)
    for order in itertools.permutations([(1, 5), (2, 7), (3, 6)]):
        for node_id, term in order:
            network.announce(node_id, {500: term})
            network.run(1)
        for plane in network.planes.values():
            hint = plane.leader_hint(500)
            assert hint is not None
            assert (hint.node_id, hint.term) == (2, 7)


def test_a_hint_goes_to_the_next_best_claim_when_its_node_no_longer_leads() -> None:
    network = settled(3)
    network.announce(1, {500: 5})
    network.announce(2, {500: 7})
    network.run(2)
    network.announce(2, {})
    network.run(2)
    hints = [plane.leader_hint(500) for plane in network.planes.values()]
    assert [hint.node_id for hint in hints if hint is not None] == [1, 1, 1]


def test_a_silent_node_expires_while_its_connection_stands() -> None:
    network = settled(3)
    silent = NodeId(next(node_id for node_id in network.member_ids if node_id != network.leader()))
    network.planes[silent].stop()
    heard_at = {
        node_id: plane.figures()[silent].heard_at for node_id, plane in network.planes.items() if node_id != silent
    }
    network.run(20)
    for node_id, heard in heard_at.items():
        plane = network.planes[node_id]
        assert plane.node_is_up(silent, heard + 9.9) is False, "it was dropped, so the past is not answered either"
        assert plane.node_is_up(silent, network.now) is False
        assert plane.node_is_up(node_id, network.now)


def test_a_cut_off_node_keeps_its_last_view_until_it_expires_and_returns_without_disorder() -> None:
    network = settled(3)
    cut = network.leader()
    assert cut is not None
    network.drop = lambda sender, receiver: cut in (sender, receiver)
    network.run(0.5)
    assert network.planes[cut].node_is_up(NodeId(cut % 3 + 1), network.now)
    network.run(2)
    assert network.planes[cut].plane_leader != cut, "without a majority it stops leading"
    network.run(30)
    assert not network.planes[cut].figures()
    network.drop = lambda sender, receiver: False
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
    assert all(plane.failures == 0 for plane in network.planes.values())


@pytest.mark.parametrize("seed", range(5))
def test_with_a_fifth_of_all_messages_lost_everyone_hears_everyone(seed: int) -> None:
    print(f"seed {seed}")
    network = Network(3, seed)
    rng = random.Random(seed)
    network.drop = lambda sender, receiver: rng.random() < 0.2
    for node_id in network.member_ids:
        network.announce(node_id, {node_id: 1}, ttl_seconds=30)
    network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids), seconds=60)
    network.run(120)
    assert all(plane.failures == 0 for plane in network.planes.values()), "loss alone contradicts nothing"


@pytest.mark.parametrize(("members", "seed"), [(members, seed) for members in (3, 6) for seed in range(6)])
def test_after_any_mixture_of_kills_cuts_and_losses_everyone_hears_everyone(members: int, seed: int) -> None:
    print(f"seed {seed}")
    network = Network(members, seed)
    rng = random.Random(seed)
    for _ in range(60):
        node_id = rng.choice(network.member_ids)
        match rng.randrange(5):
            case 0:
                if node_id in network.planes:
                    network.kill(node_id)
            case 1 | 2:
                if node_id not in network.planes:
                    network.start(node_id)
                network.announce(node_id, {rng.randint(1, 9): rng.randint(1, 99)})
            case 3:
                cut = {each for each in network.member_ids if rng.random() < 0.4}
                loss = rng.choice([0.0, 0.3])
                network.drop = lambda a, b, cut=cut, loss=loss: (a in cut) != (b in cut) or rng.random() < loss  # type: ignore[misc]
            case 4:
                network.drop = lambda sender, receiver: False
        network.run(rng.choice([0.2, 1.0, 5.0]))
    network.drop = lambda sender, receiver: False
    for node_id in network.member_ids:
        if node_id not in network.planes:
            network.start(node_id)
        network.announce(node_id, {node_id * 10: 1_000})
    network.run_until(
        lambda: all(
            plane.leader_hint(node_id * 10) == LeaderHint(node_id, Term(1_000))
            for plane in network.planes.values()
            for node_id in network.member_ids
        ),
        seconds=30,
    )


def test_a_large_announcement_travels_in_small_messages() -> None:
    network = settled(3)
    network.history.clear()
    groups = dict.fromkeys(range(20000), 3)
    network.announce(1, groups)
    network.run_until(lambda: all(plane.leader_hint(19_999) is not None for plane in network.planes.values()))
    assert all(plane.leader_hint(0) is not None for plane in network.planes.values())
    assert max(len(payload) for *_, payload in network.history) <= MAX_PAYLOAD_BYTES
    network.announce(1, {})
    network.run_until(lambda: all(plane.leader_hint(0) is None for plane in network.planes.values()))


def test_the_log_stays_short_for_ever() -> None:
    settings = PlaneSettings()
    network = settled(3, settings=settings)
    longest = 0
    for _ in range(40):
        network.run(60)
        longest = max(longest, *(plane.log_entries for plane in network.planes.values()))
    assert longest <= settings.compact_entries + 50
    assert all(plane.failures == 0 for plane in network.planes.values())


def test_a_stopped_plane_answers_nothing_and_says_nothing() -> None:
    network = settled(3)
    plane = network.planes[NodeId(1)]
    plane.stop()
    network.history.clear()
    network.run(5)
    assert not [sender for sender, *_ in network.history if sender == 1]
    assert not plane.figures()
    assert plane.leader_hint(20) is None
    assert not plane.node_is_up(NodeId(2), network.now)
    assert plane.try_lock("cleaner", 5.0, network.now) is False


def test_the_same_seed_gives_the_same_messages() -> None:
    def history(seed: int) -> list[tuple[NodeId, NodeId, int, bytes]]:
        network = settled(3, seed)
        network.kill(2)
        network.run(10)
        network.start(2)
        network.run(10)
        return network.history

    assert history(7) == history(7)
    assert history(7) != history(8)


def test_one_node_at_a_time_holds_a_lock_and_a_dead_ones_lock_passes_on() -> None:
    network = settled(3)
    held_by: set[NodeId] = set()
    while not held_by:
        network.step()
        held_by = {i for i, plane in network.planes.items() if plane.try_lock("cleaner", 5.0, network.now)}
    (owner,) = held_by
    for _ in range(1000):
        network.step()
        held_by = {i for i, plane in network.planes.items() if plane.try_lock("cleaner", 5.0, network.now)}
        assert held_by == {owner}
    assert {plane.lock_owner("cleaner", network.now) for plane in network.planes.values()} == {owner}
    network.kill(owner)
    lost = network.now
    held_by = set()
    while not held_by:
        network.step()
        held_by = {i for i, plane in network.planes.items() if plane.try_lock("cleaner", 5.0, network.now)}
        assert network.now - lost < 15
    assert len(held_by) == 1


def test_a_lock_survives_a_snapshot_and_the_restart_of_all_but_its_owner_in_turn() -> None:
    network = settled(3)
    owner = network.planes[NodeId(1)]
    network.run_until(lambda: owner.try_lock("cleaner", 4.0, network.now))
    for victim in (2, 3):
        network.kill(victim)
        for _ in range(6000):
            network.step()
            owner.try_lock("cleaner", 4.0, network.now)
        restarted = network.start(victim)
        network.announce(victim)
        network.run_until(lambda: restarted.lock_owner("cleaner", network.now) == 1)  # noqa: B023 - used at once
        assert not restarted.try_lock("cleaner", 4.0, network.now)

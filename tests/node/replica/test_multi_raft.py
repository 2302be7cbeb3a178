"""All groups of a node: one write a turn, nothing leaves before the sync that it promises, nothing gets lost."""

from __future__ import annotations

import pytest

from quorumlog.node.errors import StorageBusy, StorageFailed
from quorumlog.node.replica.replica import LOST, Committed
from quorumlog.raft import Message, MessageType, NodeId, Term
from tests.node.replica.rig import Answers, Rig, append


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_all_groups_share_one_write_and_one_sync(rig: Rig) -> None:
    replicas = [rig.leader(group_id) for group_id in range(2, 12)]
    rig.writes.clear()
    answers = Answers()
    for replica in replicas:
        append(rig, replica, answers)
    rig.pump()
    assert len(rig.writes) == 1
    assert rig.syncs_under_way == 1
    rig.settle()
    assert len(answers.results) == 10


def test_nothing_is_answered_before_its_sync(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    append(rig, replica, answers)
    rig.pump()
    assert not answers.results
    rig.finish_sync()
    rig.pump()
    assert isinstance(answers.results[0], Committed)


def test_what_is_written_during_a_sync_is_not_covered_by_it(rig: Rig) -> None:
    replica, first, second = rig.leader(7), Answers(), Answers()
    append(rig, replica, first)
    rig.pump()
    append(rig, replica, second)
    rig.pump()
    assert rig.syncs_under_way == 1, "the next one is for all that has piled up"
    rig.finish_sync()
    rig.pump()
    assert (len(first.results), len(second.results)) == (1, 0)
    rig.finish_sync()
    rig.pump()
    assert len(second.results) == 1


def test_entries_leave_for_the_peers_before_the_own_sync_and_count_here_only_after_it(rig: Rig) -> None:
    replica, answers = rig.leader(7, voters=(1, 2, 3)), Answers()
    rig.acknowledge(replica, 2)
    rig.settle()
    rig.sent.clear()
    append(rig, replica, answers)
    rig.pump()
    assert MessageType.APPEND in rig.sent_types(7)
    rig.acknowledge(replica, 2)
    rig.pump()
    assert not answers.results, "one of three has synced it"
    rig.acknowledge(replica, 3)
    rig.pump()
    assert isinstance(answers.results[0], Committed), "two of three have, whatever becomes of the sync here"


def test_a_vote_leaves_only_after_both_of_its_files_are_synced(rig: Rig) -> None:
    rig.add(7, voters=(1, 2, 3))
    rig.step(7, Message(MessageType.VOTE, NodeId(2), NodeId(1), Term(5), force=True))
    rig.pump()
    assert not rig.sent
    rig.finish_sync()
    assert rig.sent_types(7) == [MessageType.VOTE_RESPONSE]
    rig.restart(power_cut=True)
    again = rig.add(7, voters=(1, 2, 3))
    assert (again.raft.term, again.raft.vote) == (5, 2)


def test_an_answer_in_a_new_term_waits_for_the_sync_that_covers_the_term(rig: Rig) -> None:
    leader, follower = rig.leader(8), rig.add(7, voters=(1, 2, 3))
    append(rig, leader, Answers())
    rig.pump()
    rig.step(7, Message(MessageType.HEARTBEAT, NodeId(2), NodeId(1), Term(4)))
    rig.pump()
    rig.finish_sync()
    rig.pump()
    assert not rig.sent_types(7), "that sync had begun before the term was written"
    rig.finish_sync()
    rig.pump()
    assert rig.sent_types(7) == [MessageType.HEARTBEAT_RESPONSE]
    assert follower.raft.term == 4


def test_a_refused_write_is_repeated_as_it_was_before_anything_else(rig: Rig) -> None:
    replica, other = rig.leader(7), rig.leader(8)
    rig.writes.clear()
    first, second = Answers(), Answers()
    rig.storage.fail_next_write = StorageBusy("behind with compaction")
    append(rig, replica, first)
    assert not rig.pump()
    assert rig.multi.stalled
    assert not rig.writes
    assert not rig.syncs_under_way, "there is nothing to sync"
    append(rig, other, second)
    rig.settle()
    assert len(rig.writes) == 2, "the refused batch, and then what came meanwhile"
    assert [group for group, _ in rig.applied[-2:]] == [7, 8]
    assert len(first.results) == len(second.results) == 1


def test_nothing_of_a_refused_turn_leaves(rig: Rig) -> None:
    replica = rig.leader(7, voters=(1, 2, 3))
    rig.acknowledge(replica, 2)
    rig.settle()
    rig.sent.clear()
    rig.storage.fail_next_write = StorageBusy("behind with compaction")
    append(rig, replica, Answers())
    rig.pump()
    assert not rig.sent
    rig.pump()
    assert MessageType.APPEND in rig.sent_types(7)


def test_a_failed_write_is_for_the_node_to_die_of(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    rig.storage.fail_next_write = StorageFailed("the disk is gone")
    append(rig, replica, answers)
    with pytest.raises(StorageFailed):
        rig.pump()
    assert not answers.results


def test_a_removed_replica_writes_and_says_nothing_more(rig: Rig) -> None:
    replica, answers = rig.leader(7, voters=(1, 2, 3)), Answers()
    rig.sent.clear()
    append(rig, replica, answers)
    rig.multi.remove(7)
    replica.stop("topic 't' was deleted")
    rig.writes.clear()
    rig.settle()
    assert answers.results == [LOST]
    assert not rig.writes
    assert not rig.sent


def test_a_sync_that_ends_after_the_removal_concerns_nobody(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    append(rig, replica, answers)
    rig.pump()
    rig.multi.remove(7)
    replica.stop("topic 't' was deleted")
    rig.settle()
    assert answers.results == [LOST]
    assert rig.multi.idle


def test_messages_for_groups_that_are_not_here_are_dropped(rig: Rig) -> None:
    rig.step(99, Message(MessageType.HEARTBEAT, NodeId(2), NodeId(1), Term(1)))
    rig.settle()
    assert not rig.sent


def test_nonsense_of_a_peer_is_counted_and_changes_nothing(rig: Rig) -> None:
    replica = rig.add(7, voters=(1, 2, 3))
    rig.step(7, Message(MessageType.HEARTBEAT, NodeId(2), NodeId(1), Term(1 << 60)))
    rig.settle()
    assert rig.multi.step_errors == 1
    assert replica.raft.term == 0


def test_what_was_answered_survives_a_power_cut(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    for _ in range(5):
        append(rig, replica, answers, values=2)
        rig.settle()
    append(rig, replica, answers)
    rig.pump()
    assert len(answers.results) == 5
    rig.restart(power_cut=True)
    again = rig.leader(7)
    assert again.high_watermark >= 10


def test_a_vote_that_is_written_is_durable_only_after_the_sync_that_covers_it(rig: Rig) -> None:
    told = [rig.multi.votes_durable]
    replica = rig.add(7)
    replica.raft.campaign()
    rig.pump()
    told.append(rig.multi.votes_durable)
    rig.settle()
    told.append(rig.multi.votes_durable)
    assert told == [True, False, True], "a replica of this group that is born in between must wait"

"""A replica between its core, its log and its machine: who is answered, when, and with what."""

from __future__ import annotations

from itertools import pairwise

import pytest

from quorumlog.node.errors import ReplicaStopped
from quorumlog.node.groups.state import GroupsState
from quorumlog.node.replica import folds as folds_module
from quorumlog.node.replica.folds import FOLDS_MAX
from quorumlog.node.replica.machine import CommandMachine
from quorumlog.node.replica.producers import Verdict
from quorumlog.node.replica.replica import LOST, Committed
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import INDEX_MAX, state_key
from quorumlog.proto import internal_pb2
from quorumlog.proto.batch import header_for
from quorumlog.raft import EntryKind, Message, MessageType, NodeId, NotLeader, Term
from tests.node.replica.rig import WALL_MS, Answers, Rig, append


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_burst_larger_than_one_turn_applies_is_answered_to_its_end(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    for _ in range(3):
        append(rig, replica, answers, size_bytes=3 << 20)
    rig.settle()
    assert replica.raft.applied == replica.raft.commit_index == replica.raft.last_index
    assert [type(result) for result in answers.results] == [Committed] * 3


def test_a_read_confirmed_in_the_turn_that_removes_its_group_is_refused(rig: Rig) -> None:
    cluster, doomed = rig.leader(1), rig.leader(7)
    answers = Answers()

    def remove(*_: object) -> None:
        if 7 in rig.multi.replicas:
            rig.multi.remove(7)
            doomed.stop("topic 't' was deleted")

    rig.on_applied = remove
    append(rig, cluster, Answers())
    rig.pump()
    rig.finish_sync()  # the next turn applies the removal, and has the read confirmed
    doomed.read_index(answers)
    rig.multi.touch(doomed)
    rig.settle()
    assert answers.results == [False]


def deposed_by(rig: Rig, group_id: int, term: int) -> None:
    """Node 2 leads the group from `term` on."""
    rig.step(group_id, Message(MessageType.HEARTBEAT, NodeId(2), NodeId(1), Term(term)))


def test_who_waits_is_told_when_leadership_is_lost(rig: Rig) -> None:
    replica, answers = rig.leader(7, voters=(1, 2, 3)), Answers()
    append(rig, replica, answers)
    rig.pump()
    deposed_by(rig, 7, 2)
    rig.settle()
    assert answers.results == [LOST]
    assert not replica.leads
    with pytest.raises(NotLeader):
        append(rig, replica, answers)


def test_who_waits_is_told_even_when_leadership_is_won_back_before_anybody_looks(rig: Rig) -> None:
    replica, answers = rig.leader(7), Answers()
    append(rig, replica, answers)
    rig.roles.clear()
    deposed_by(rig, 7, 2)
    replica.raft.campaign()
    rig.settle()
    assert replica.raft.term > 2
    assert answers.results == [LOST], "it may have been replaced meanwhile, so nothing is promised"
    assert rig.roles[-1] == (7, True)


def test_a_read_waits_for_a_quorum_and_is_refused_with_the_leadership(rig: Rig) -> None:
    replica, confirmed, lost = rig.leader(7, voters=(1, 2, 3)), Answers(), Answers()
    rig.acknowledge(replica, 2)
    rig.settle()
    replica.read_index(confirmed)
    rig.multi.touch(replica)
    rig.settle()
    assert not confirmed.results
    rounds = [message.context for _, message in rig.sent if message.type is MessageType.HEARTBEAT]
    rig.step(7, Message(MessageType.HEARTBEAT_RESPONSE, NodeId(3), NodeId(1), replica.raft.term, context=max(rounds)))
    rig.settle()
    assert confirmed.results == [True]
    replica.read_index(lost)
    rig.multi.touch(replica)
    rig.pump()
    deposed_by(rig, 7, 2)
    rig.settle()
    assert lost.results == [False]


def test_a_read_before_the_first_commit_of_a_term_waits_for_it(rig: Rig) -> None:
    replica, answers = rig.leader(7, voters=(1, 2, 3)), Answers()
    replica.read_index(answers)
    rig.multi.touch(replica)
    rig.settle()
    assert (replica.ready_to_decide, answers.results) == (False, [])
    rig.acknowledge(replica, 2)
    rig.settle()
    assert replica.ready_to_decide
    rounds = [message.context for _, message in rig.sent if message.type is MessageType.HEARTBEAT]
    rig.step(7, Message(MessageType.HEARTBEAT_RESPONSE, NodeId(2), NodeId(1), replica.raft.term, context=max(rounds)))
    rig.settle()
    assert answers.results == [True]


def test_a_duplicate_in_the_tail_waits_for_the_entry_that_holds_it(rig: Rig) -> None:
    replica, first, second = rig.leader(7, voters=(1, 2, 3)), Answers(), Answers()
    rig.acknowledge(replica, 2)
    rig.settle()
    append(rig, replica, first, values=2, producer=(5, 0, 0))
    assert replica.partition is not None
    again = replica.partition.judge(header_for(2, first_timestamp_ms=WALL_MS, producer_id=5))
    assert again.verdict is Verdict.DUPLICATE
    assert again.batch is not None
    replica.await_entry(again.batch.index, second)
    rig.settle()
    assert not second.results
    rig.acknowledge(replica, 2)
    rig.settle()
    assert len(first.results) == len(second.results) == 1
    assert isinstance(second.results[0], Committed)


def test_a_new_leader_knows_the_batches_of_its_uncommitted_tail(rig: Rig) -> None:
    replica = rig.leader(7, voters=(1, 2, 3))
    rig.acknowledge(replica, 2)
    append(rig, replica, Answers(), values=2, producer=(5, 0, 0))
    rig.settle()
    deposed_by(rig, 7, 2)
    rig.settle()
    assert replica.partition is not None
    header = header_for(2, first_timestamp_ms=WALL_MS, producer_id=5)
    assert replica.partition.judge(header).verdict is Verdict.APPEND, "a follower judges nothing, and forgets its tail"
    replica.raft.campaign()
    rig.settle()
    for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
        rig.step(7, Message(kind, NodeId(3), NodeId(1), Term(3)))
        rig.settle()
    assert replica.leads
    assert replica.partition.judge(header).verdict is Verdict.DUPLICATE
    assert replica.log_end_offset == 2


def test_time_in_a_log_never_goes_back_whatever_the_clocks_say(rig: Rig) -> None:
    replica = rig.leader(7)
    late = append(rig, replica, Answers(), wall_ms=WALL_MS + 5000)
    early = append(rig, replica, Answers(), wall_ms=WALL_MS - 5000)
    assert (late.append_time_ms, early.append_time_ms) == (WALL_MS + 5000, WALL_MS + 5000)


def test_time_does_not_go_back_either_when_nothing_but_a_fold_is_left_of_a_log(rig: Rig) -> None:
    replica = rig.leader(7)
    append(rig, replica, Answers(), wall_ms=WALL_MS + 5000)
    rig.settle()
    replica.fold_now(rig.multi.next_batch)
    replica.log.compact(rig.multi.next_batch, replica.raft.applied)
    replica.raft.compact(replica.raft.applied)
    rig.storage.write(rig.multi.next_batch)
    rig.restart()
    again = rig.add(7)
    assert again.log.first_index() == again.log.last_index() + 1
    again.raft.campaign()
    rig.settle()
    assert again.leads
    assert again.log.first_append_time_ms() == WALL_MS + 5000, "that of the new leader's first entry"


def test_a_restart_replays_to_the_same_state(rig: Rig) -> None:
    replica = rig.leader(7)
    for number in range(4):
        append(rig, replica, Answers(), producer=(5, 0, number))
        rig.settle()
    assert replica.partition is not None
    before = replica.partition.snapshot()
    rig.restart()
    again = rig.leader(7)
    rig.settle()
    assert again.partition is not None
    assert again.partition.judge(header_for(1, first_timestamp_ms=0, producer_id=5, base_sequence=3)).batch is not None
    assert again.partition.next_offset == internal_pb2.PartitionSnapshot.FromString(before).next_offset


def test_a_command_of_a_later_release_stops_its_group_and_no_other(rig: Rig) -> None:
    machine = CommandMachine(GroupsState())
    replica = rig.add(7, machine=machine)
    other = rig.leader(8)
    replica.raft.campaign()
    rig.multi.touch(replica)
    rig.settle()
    answers, read = Answers(), Answers()
    replica.propose(EntryKind.COMMAND, b"\xff\xff", wall_ms=WALL_MS, reply=answers)
    replica.read_index(read)
    rig.multi.touch(replica)
    rig.settle()
    assert replica.stopped is not None
    assert "index 2" in replica.stopped
    assert answers.results == [LOST]
    assert replica.raft.applied == 1
    with pytest.raises(ReplicaStopped):
        replica.propose(EntryKind.COMMAND, b"", wall_ms=WALL_MS, reply=answers)
    with pytest.raises(NotLeader):
        replica.read_index(read)
    assert not replica.leads
    append(rig, other, answers)
    rig.settle()
    assert isinstance(answers.results[-1], Committed)


def folds_stored(rig: Rig, group_id: int) -> int:
    return len(rig.storage.scan(Family.STATE, state_key(group_id, 0), state_key(group_id, INDEX_MAX)))


def test_a_log_without_retention_keeps_few_folds(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds_module, "FOLD_SIZE_BYTES_MIN", 1)
    monkeypatch.setattr(folds_module, "FOLD_AMPLIFICATION_MIN", 0)
    replica = rig.leader(7)
    for _ in range(5 * FOLDS_MAX):
        append(rig, replica, Answers())
        rig.settle()
    assert FOLDS_MAX // 2 <= len(replica.folds.indexes) <= FOLDS_MAX
    assert folds_stored(rig, 7) == len(replica.folds.indexes)
    gaps = [later - earlier for earlier, later in pairwise(replica.folds.indexes)]
    assert max(gaps) <= 5 * FOLDS_MAX // 8, "and they are spread over the log, so that it can be cut anywhere about"
    rig.restart()
    again = rig.leader(7)
    assert again.high_watermark == 5 * FOLDS_MAX


def snapshot_at(index: int, state: bytes) -> internal_pb2.GroupSnapshot:
    """A snapshot of group 7, of three voters."""
    voters = internal_pb2.GroupConfiguration(voters=[1, 2, 3])
    return internal_pb2.GroupSnapshot(
        group_id=7, index=index, term=1, configuration=voters, next_offset=0, append_time_ms=WALL_MS, state=state
    )


def test_a_snapshot_of_a_later_release_stops_its_group_and_no_other(rig: Rig) -> None:
    replica = rig.add(7, voters=(1, 2, 3), machine=CommandMachine(GroupsState()))
    other = rig.leader(8)
    replica.install(snapshot_at(5, b"\xff\xff"), NodeId(2), Term(1))
    rig.multi.touch(replica)
    rig.settle()
    assert replica.stopped is not None
    assert "index 5" in replica.stopped
    assert replica.log.last_index() == 0, "and nothing of it was written"
    answers = Answers()
    append(rig, other, answers)
    rig.settle()
    assert answers.results


def test_a_late_snapshot_is_not_mixed_up_with_the_one_that_is_being_installed(rig: Rig) -> None:
    replica = rig.add(7, voters=(1, 2, 3), machine=CommandMachine(GroupsState()))
    state = GroupsState().snapshot()
    replica.install(snapshot_at(9, state), NodeId(2), Term(1))
    replica.install(snapshot_at(5, state), NodeId(2), Term(1))
    rig.multi.touch(replica)
    rig.settle()
    assert replica.stopped is None
    assert replica.log.last_index() == 9


def test_a_fold_that_is_due_leaves_the_snapshot_alone_that_is_to_be_installed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds_module, "FOLD_SIZE_BYTES_MIN", 0)
    replica = rig.add(7, voters=(1, 2, 3), machine=CommandMachine(GroupsState()))
    replica.install(snapshot_at(9, GroupsState().snapshot()), NodeId(2), Term(1))
    assert replica.folds.due
    rig.multi.touch(replica)
    rig.settle()
    assert replica.log.last_index() == 9
    assert replica.folds.indexes == [9]


def test_a_node_that_stops_leaves_the_snapshot_alone_that_is_to_be_installed(rig: Rig) -> None:
    replica = rig.add(7, voters=(1, 2, 3), machine=CommandMachine(GroupsState()))
    replica.install(snapshot_at(9, GroupsState().snapshot()), NodeId(2), Term(1))
    replica.fold_now(rig.multi.next_batch)
    rig.multi.touch(replica)
    rig.settle()
    assert replica.log.last_index() == 9
    assert replica.folds.indexes == [9]


def test_a_fold_is_sent_to_nobody_before_it_is_written(rig: Rig) -> None:
    replica = rig.leader(7)
    append(rig, replica, Answers())
    rig.settle()
    pushed_back = rig.storage.new_batch()
    replica.fold_now(pushed_back)
    assert replica.snapshot() is None
    rig.storage.write(pushed_back)
    found = replica.snapshot()
    assert found is not None
    assert found[0] == replica.raft.applied

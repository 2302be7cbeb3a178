"""The replicated state alone: commands, directory and locks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.coordination.commands import (
    MAX_ANNOUNCE_BYTES,
    MAX_GROUPS_PER_NODE,
    AnnouncementPart,
    LockClaim,
    Malformed,
    decode_command,
    encode_announcement,
    encode_claim,
)
from quorumlog.node.coordination.directory import Directory
from quorumlog.node.coordination.locks import MAX_LOCKS, LockTable
from quorumlog.node.coordination.view import Announcement, LeaderHint
from quorumlog.raft.types import NodeId, Term

MEMBERS = [NodeId(1), NodeId(2), NodeId(3)]


def said(node_id: int, leaders: dict[int, int], session_id: int = 1, ttl_seconds: float = 10.0) -> Announcement:
    """What node `node_id` says when it leads `leaders`."""
    terms = {group_id: Term(term) for group_id, term in leaders.items()}
    return Announcement(NodeId(node_id), b"inc", session_id, terms, 5_000, 0.5, ttl_seconds)


def parts_of(announcement: Announcement, sequence: int) -> list[AnnouncementPart]:
    """Its parts as they arrive."""
    parts = [decode_command(command) for command in encode_announcement(announcement, sequence)]
    return [part for part in parts if isinstance(part, AnnouncementPart)]


def hear(directory: Directory, announcement: Announcement, sequence: int, now: float = 0.0) -> bool:
    """Apply the whole announcement; True if it counted."""
    return [directory.apply(part, now) for part in parts_of(announcement, sequence)][-1]


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), max_size=3000), st.integers(0, 2**63))
def test_an_announcement_arrives_as_it_was_said(leaders: dict[int, int], sequence: int) -> None:
    announcement = said(2, leaders)
    commands = encode_announcement(announcement, sequence)
    assert max(map(len, commands)) <= MAX_ANNOUNCE_BYTES
    parts = parts_of(announcement, sequence)
    assert {(part.sequence, part.parts) for part in parts} == {(sequence, len(commands))}
    assert [part.part for part in parts] == list(range(len(commands)))
    assert {group_id: term for part in parts for group_id, term in part.announcement.leaders.items()} == leaders
    assert parts[0].announcement.incarnation == b"inc"


def test_an_announcement_without_end_is_cut() -> None:
    leaders = dict.fromkeys(range(MAX_GROUPS_PER_NODE + 10), 1)
    heard = [group_id for part in parts_of(said(1, leaders), 1) for group_id in part.announcement.leaders]
    assert heard == list(range(MAX_GROUPS_PER_NODE))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_command_or_one_in_range(command: bytes) -> None:
    try:
        decoded = decode_command(command)
    except Malformed:
        return
    if isinstance(decoded, AnnouncementPart):
        assert math.isfinite(decoded.announcement.load)
        assert decoded.part < decoded.parts
    else:
        assert decoded.name


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_lock_name_is_short_and_not_empty(name: str) -> None:
    with pytest.raises(ValueError, match="lock name"):
        encode_claim(LockClaim(name, NodeId(1), 1, 5.0, 0))


def test_only_all_parts_together_replace_what_a_node_said() -> None:
    directory = Directory(MEMBERS)
    hear(directory, said(1, {7: 1}), 1)
    first, *middle, last = parts_of(said(1, dict.fromkeys(range(100, 4000), 2)), 2)
    for part in (last, *middle):
        assert not directory.apply(part, 1.0)
    assert directory.leader_hint(7) == LeaderHint(NodeId(1), Term(1))
    assert directory.leader_hint(3999) is None
    assert directory.apply(first, 1.0)
    assert directory.leader_hint(7) is None
    assert directory.leader_hint(3999) == LeaderHint(NodeId(1), Term(2))


def test_an_announcement_that_lost_a_part_gives_way_to_the_next() -> None:
    directory = Directory(MEMBERS)
    for part in parts_of(said(1, dict.fromkeys(range(4000), 1)), 1)[1:]:
        directory.apply(part, 0.0)
    assert hear(directory, said(1, {5: 5}), 2)
    assert not directory.apply(parts_of(said(1, dict.fromkeys(range(4000), 1)), 1)[0], 0.0)
    assert directory.leader_hint(5) == LeaderHint(NodeId(1), Term(5))


def test_within_a_session_only_a_later_announcement_counts_and_a_new_session_always() -> None:
    directory = Directory(MEMBERS)
    assert hear(directory, said(1, {7: 3}, session_id=8), 5)
    assert not hear(directory, said(1, {7: 4}, session_id=8), 5)
    assert not hear(directory, said(1, {7: 4}, session_id=8), 4)
    assert hear(directory, said(1, {7: 1}, session_id=3), 1)
    assert directory.leader_hint(7) == LeaderHint(NodeId(1), Term(1))


def test_a_stranger_is_not_listed() -> None:
    directory = Directory(MEMBERS)
    assert not hear(directory, said(9, {7: 3}), 1)
    assert not directory.figures()
    assert directory.leader_hint(7) is None


def test_what_expires_takes_its_hints_along_and_leaves_those_of_others() -> None:
    directory = Directory(MEMBERS)
    hear(directory, said(1, {7: 3, 8: 3}, ttl_seconds=5), 1, now=100)
    hear(directory, said(2, {7: 2}, ttl_seconds=50), 1, now=100)
    directory.expire(104.9)
    assert directory.node_is_up(NodeId(1), 104.9)
    assert not directory.node_is_up(NodeId(1), 105)
    directory.expire(105)
    assert directory.leader_hint(7) == LeaderHint(NodeId(2), Term(2))
    assert directory.leader_hint(8) is None
    assert directory.figures().keys() == {2}


announcements = st.tuples(st.integers(1, 3), st.dictionaries(st.integers(0, 3), st.integers(1, 4)), st.integers(0, 20))


@given(st.lists(announcements, max_size=25))
def test_hints_are_the_highest_term_of_what_all_nodes_said_last(steps: list[tuple[int, dict[int, int], int]]) -> None:
    directory, last, now = Directory(MEMBERS), dict[int, tuple[dict[int, int], int]](), 0
    for sequence, (node_id, leaders, wait) in enumerate(steps):
        now += wait
        directory.expire(now)
        hear(directory, said(node_id, leaders, ttl_seconds=15), sequence, now)
        last[node_id] = (leaders, now)
    for group_id in range(4):
        terms = [leaders[group_id] for leaders, at in last.values() if group_id in leaders and now < at + 15]
        hint = directory.leader_hint(group_id)
        assert (hint.term if hint is not None else None) == max(terms, default=None)
        if hint is not None:
            assert last[hint.node_id][0][group_id] == hint.term


def granted(table: LockTable, *others: LockTable, name: str = "cleaner", ttl_seconds: float = 10.0, now: float) -> bool:
    """Let `table` claim the lock, if a claim is due, and apply the claim everywhere half a second later."""
    claim = table.next_claim(name, ttl_seconds, now, retry_seconds=1.0)
    return claim is not None and {each.apply(claim, now + 0.5) for each in (table, *others)} == {True}


def test_the_owner_stops_before_anyone_else_starts() -> None:
    ours, theirs = LockTable(NodeId(1), 1), LockTable(NodeId(2), 2)
    assert granted(ours, theirs, now=100.0)
    assert ours.held("cleaner", 109.9)
    assert not ours.held("cleaner", 110.0), "counted from the claim"
    assert theirs.owner("cleaner", 110.4) == 1, "counted from the arrival"
    assert theirs.next_claim("cleaner", 10.0, 110.4, 1.0) is None
    assert theirs.next_claim("cleaner", 10.0, 110.5, 1.0) is not None


def test_of_two_claims_on_one_version_the_first_in_the_log_wins_everywhere() -> None:
    ours, theirs = LockTable(NodeId(1), 1), LockTable(NodeId(2), 2)
    first, second = theirs.next_claim("cleaner", 10.0, 0.0, 1.0), ours.next_claim("cleaner", 10.0, 0.0, 1.0)
    assert first is not None
    assert second is not None
    for table, late in ((ours, 3.0), (theirs, 0.1)):
        assert table.apply(first, late)
        assert not table.apply(second, late + 60.0), "whatever the time: the version has moved"
        assert table.owner("cleaner", late) == 2


def test_a_lock_of_an_earlier_process_of_this_node_is_not_ours() -> None:
    before, after = LockTable(NodeId(1), 1), LockTable(NodeId(1), 2)
    assert granted(before, after, now=0.0)
    assert before.held("cleaner", 1.0)
    assert not after.held("cleaner", 1.0)


def test_a_renewal_is_due_from_half_of_the_time_on() -> None:
    table = LockTable(NodeId(1), 1)
    assert granted(table, now=0.0)
    assert not granted(table, now=4.9)
    assert granted(table, now=5.0)
    assert table.held("cleaner", 14.9)


def test_a_repeated_claim_counts_from_its_first_copy() -> None:
    table = LockTable(NodeId(1), 1)
    lost = table.next_claim("cleaner", 10.0, 0.0, 1.0)
    assert lost is not None
    assert table.next_claim("cleaner", 10.0, 0.9, 1.0) is None, "not again so soon"
    assert granted(table, now=4.0)
    assert table.held("cleaner", 9.9)
    assert not table.held("cleaner", 10.0)


def test_a_restored_table_knows_the_owners_and_lets_none_of_ours_be_held() -> None:
    ours, theirs, fresh = LockTable(NodeId(1), 1), LockTable(NodeId(2), 2), LockTable(NodeId(3), 3)
    assert granted(ours, theirs, now=0.0)
    fresh.restore(ours.encode(), now=3.0)
    assert fresh.owner("cleaner", 12.9) == 1
    forgot = LockTable(NodeId(1), 1)
    forgot.restore(ours.encode(), now=3.0)
    assert not forgot.held("cleaner", 3.0), "how old it is cannot be known"
    assert granted(forgot, now=3.0)


def test_the_table_is_bounded() -> None:
    table = LockTable(NodeId(1), 1)
    for number in range(MAX_LOCKS):
        assert table.apply(LockClaim(f"lock {number}", NodeId(2), 2, 5.0, 0), 0.0)
    assert not table.apply(LockClaim("one more", NodeId(2), 2, 5.0, 0), 0.0)
    assert table.next_claim("one more", 5.0, 0.0, 1.0) is None
    assert len(table) == MAX_LOCKS

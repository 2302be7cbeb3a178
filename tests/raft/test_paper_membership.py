"""One test per guarantee about membership and snapshots of the Raft paper and Ongaro's thesis, by section."""

import pytest

from quorumlog.raft import ConfigurationRefused, Message, MessageType, NodeId, Role, Term
from tests.raft.memory_shell import Shell
from tests.raft.script import Script


def three_and(*learners: int) -> Script:
    """Leader 1 of voters 1, 2 and 3, which all hold and know everything; the learners too."""
    script = Script()
    script.run("cluster 3")
    for learner in learners:
        script.run(f"add {learner} voters=")
    script.run("campaign 1")
    script.run("settle")
    if learners:
        script.run(f"configure 1 voters=1,2,3 learners={','.join(map(str, learners))}")
        script.run("settle")
        script.run("beat 1 2")  # the leader hears that they count
    assert script.shells[1].node.is_leader
    return script


def voters(script: Script, node_id: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The voters and the outgoing voters that the replica goes by."""
    configuration = script.shells[node_id].node.configuration
    return configuration.voters, configuration.outgoing


def runs(script: Script, *commands: str) -> None:
    for command in commands:
        for line in script.run(command):
            assert not line.startswith(("ConfigurationRefused", "InvariantViolation", "NotLeader")), (
                f"{command}: {line}"
            )


def leader_of(script: Script, *among: int) -> Shell:
    (leader,) = [script.shells[one] for one in among if script.shells[one].node.is_leader]
    return leader


def leads_uncommitted(script: Script, node_id: int) -> bool:
    """It leads, and the configuration that it goes by is not committed."""
    node = script.shells[node_id].node
    return node.is_leader and node.commit_index < node.configuration_index


class TestSection6Membership:
    def test_a_replica_uses_the_latest_configuration_of_its_log_committed_or_not(self) -> None:
        script = three_and(4)
        runs(script, "configure 1 voters=1,2,4", "process 1", "deliver 2")
        assert voters(script, 1) == voters(script, 2) == ((1, 2, 4), (1, 2, 3))
        assert script.shells[1].node.commit_index < script.shells[1].node.configuration_index
        assert voters(script, 3) == ((1, 2, 3), ())

    def test_joint_entries_go_to_all_replicas_of_both_configurations(self) -> None:
        script = three_and(4)
        runs(script, "configure 1 voters=1,2,4", "process 1")
        assert {one.to for one in script.network if one.type is MessageType.APPEND} == {2, 3, 4}

    @pytest.mark.parametrize(
        ("holders", "commits"), [((2, 3), False), ((3, 4), False), ((4, 5), False), ((2, 4), True)]
    )
    def test_agreement_needs_majorities_of_both(self, holders: tuple[int, ...], commits: bool) -> None:
        """1 leads; with the holders the change from 1, 2, 3 to 2, 4, 5 is on their disks and on its own."""
        script = three_and(4, 5)
        runs(script, "configure 1 voters=2,4,5", "process 1")
        index = script.shells[1].node.configuration_index
        for holder in holders:
            runs(script, f"deliver {holder}", f"process {holder}")
        runs(script, "deliver 1")
        assert (script.shells[1].node.commit_index >= index) is commits

    @pytest.mark.parametrize(
        ("granters", "wins"), [((1, 3), False), ((4, 5), False), ((3,), False), ((3, 4), True), ((1, 5), True)]
    )
    def test_elections_need_majorities_of_both(self, granters: tuple[int, ...], wins: bool) -> None:
        """2 campaigns in the joint configuration from 1, 2, 3 to 4, 5, 2."""
        script = three_and(4, 5)
        runs(script, "configure 1 voters=2,4,5", "process 1", "deliver 2", "process 2", "drop", "campaign 2")
        node = script.shells[2].node
        for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
            runs(script, "process 2")
            for granter in granters:
                term = Term(node.term + (kind is MessageType.PRE_VOTE_RESPONSE))
                if node.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):
                    node.step(Message(kind, NodeId(granter), NodeId(2), term))
        assert node.is_leader is wins

    def test_the_final_configuration_follows_once_the_joint_one_is_committed(self) -> None:
        script = three_and(4)
        runs(script, "configure 1 voters=1,2,4", "process 1")
        assert voters(script, 1) == ((1, 2, 4), (1, 2, 3))
        runs(script, "settle")
        assert voters(script, 1) == voters(script, 4) == ((1, 2, 4), ())

    def test_a_leader_not_in_the_new_configuration_leads_until_it_is_committed_and_counts_for_nothing_in_it(
        self,
    ) -> None:
        script = three_and()
        runs(
            script, "configure 1 voters=2,3", "process 1", "deliver", "process 2", "process 3", "deliver 1", "process 1"
        )
        assert voters(script, 1) == ((2, 3), ())
        runs(script, "drop 3", "deliver 2", "process 2", "deliver 1", "process 1")
        assert leads_uncommitted(script, 1)  # on its own disk and on 2's
        runs(script, "beat 1 6")
        assert script.shells[1].node.role is Role.FOLLOWER
        assert script.shells[1].node.commit_index >= script.shells[1].node.configuration_index
        assert leader_of(script, 2, 3).node.configuration.voters == (2, 3)

    def test_new_servers_join_as_learners_and_vote_only_when_they_have_caught_up(self) -> None:
        script = three_and()
        runs(script, "add 4 voters=", "propose 1 5", "settle", "configure 1 voters=1,2,3 learners=4", "settle 1 2 3")
        with pytest.raises(ConfigurationRefused, match="no learner that has caught up"):
            script.shells[1].node.propose_configuration([NodeId(one) for one in (1, 2, 3, 4)])
        runs(script, "settle", "beat 1 2", "configure 1 voters=1,2,3,4", "settle")
        assert voters(script, 4) == ((1, 2, 3, 4), ())

    def test_removed_servers_do_not_disrupt_those_that_hear_their_leader(self) -> None:
        script = three_and()
        runs(script, "configure 1 voters=1,2", "settle")
        for _ in range(5):
            runs(script, "campaign 3", "settle")
        runs(script, "step 3 1 type=VOTE term=9 index=9 log_term=8", "step 3 2 type=VOTE term=9 index=9 log_term=8")
        assert script.shells[1].node.is_leader
        assert (script.shells[1].node.term, script.shells[2].node.term) == (1, 1)


class TestThesis4Membership:
    def test_41_no_change_before_an_entry_of_the_leaders_term_is_committed(self) -> None:
        """The bug in single-server changes that Ongaro reported in 2015."""
        script = three_and(4)
        runs(script, "crash 1", "reset 2 1", "reset 3 1", "campaign 2")
        runs(
            script,
            "process 2",
            "deliver 3",
            "process 3",
            "deliver 2",
            "process 2",
            "deliver 3",
            "process 3",
            "deliver 2",
        )
        node = script.shells[2].node
        assert node.is_leader
        with pytest.raises(ConfigurationRefused, match="nothing of term 2 is committed yet"):
            node.propose_configuration([NodeId(2), NodeId(3)])
        runs(script, "settle 2 3", "configure 2 voters=2,3", "settle 2 3")
        assert voters(script, 2) == ((2, 3), ())

    def test_41_one_change_at_a_time(self) -> None:
        script = three_and(4)
        runs(script, "configure 1 voters=1,2,4", "process 1")
        with pytest.raises(ConfigurationRefused, match="not committed yet"):
            script.shells[1].node.propose_configuration([NodeId(1), NodeId(2)])

    def test_421_learners_are_replicated_to_and_never_counted(self) -> None:
        script = three_and(4)
        before = script.shells[1].node.commit_index
        runs(script, "propose 1", "settle 1 4")
        assert script.shells[4].node.last_index == script.shells[1].node.last_index
        assert script.shells[1].node.commit_index == before

    def test_422_a_leader_that_removes_itself_steps_down_after_the_commit(self) -> None:
        script = three_and()
        runs(script, "configure 1 voters=2,3", "settle")
        assert script.shells[1].node.role is Role.FOLLOWER
        assert leader_of(script, 2, 3).node.term == 2

    def test_423_a_server_follows_no_vote_while_it_hears_a_leader(self) -> None:
        script = three_and()
        runs(script, "step 3 2 type=VOTE term=5 index=9 log_term=4")
        assert script.shells[2].node.term == 1

    def test_424_the_availability_of_a_change_outlives_its_leader(self) -> None:
        """Whoever is elected with the joint configuration finishes the change."""
        script = three_and(4)
        runs(
            script, "configure 1 voters=2,3,4", "process 1", "deliver 2", "deliver 3", "process 2", "process 3", "drop"
        )
        runs(script, "crash 1", "reset 2 1", "reset 3 1", "reset 4 1", "campaign 2", "settle 2 3 4")
        assert voters(script, 2) == voters(script, 3) == voters(script, 4) == ((2, 3, 4), ())

    def test_43_an_uncommitted_configuration_is_undone_with_its_entry(self) -> None:
        script = three_and()
        runs(script, "configure 1 voters=1,2", "process 1", "drop", "crash 1")
        assert voters(script, 1) == ((1, 2), (1, 2, 3))
        runs(script, "reset 2 1", "reset 3 1", "campaign 2", "settle")
        assert voters(script, 1) == ((1, 2, 3), ())


class TestSection7Snapshots:
    def behind(self) -> Script:
        """3 has entry 1 of 5; 1 and 2 have dropped all through 4."""
        script = three_and()
        runs(script, "propose 1 4", "settle 1 2", "drop", "compact 1 4", "compact 2 4", "beat 1 6")
        return script

    def test_a_follower_whose_next_entry_is_gone_needs_a_snapshot(self) -> None:
        script = self.behind()
        progress = script.shells[1].node.progress(NodeId(3))
        assert progress is not None
        assert progress.needs_snapshot
        assert script.shells[3].node.last_index == 1

    def test_a_snapshot_replaces_log_and_state_in_one_write(self) -> None:
        script = self.behind()
        runs(script, "snapshot 1 3", "deliver 3")
        ready = script.shells[3].take()
        assert (ready.install, ready.commit_index, ready.must_sync) == (4, 4, True)
        assert ready.configurations is not None
        assert [row.index for row in ready.configurations] == [4]
        assert not any(one.type is MessageType.APPEND_RESPONSE for one in ready.messages)  # only when it is durable

    def test_entries_follow_the_snapshot(self) -> None:
        script = self.behind()
        runs(script, "snapshot 1 3", "settle", "propose 1", "settle")
        assert [one.index for one in script.shells[3].log.stored] == [5, 6]
        assert script.shells[3].node.commit_index == 6

    def test_entries_behind_a_snapshot_that_the_log_holds_are_kept(self) -> None:
        script = three_and()
        runs(script, "propose 1 3", "settle", "propose 1 2", "process 1", "deliver 3", "process 3")
        before = list(script.shells[3].log.stored)
        runs(script, "snapshot 1 3 at=4", "deliver 3 type=SNAPSHOT", "process 3")
        assert script.shells[3].log.stored == before
        assert script.shells[3].node.commit_index == 4

    def test_what_is_compacted_still_counts_for_elections(self) -> None:
        """Index and term of the last entry compacted away are remembered (section 7)."""
        script = Script()
        script.run("add 1 voters=1,2,3 log=1,2,2 commit=3 compacted=3")
        node = script.shells[1].node
        node.step(Message(MessageType.VOTE, NodeId(2), NodeId(1), 3, index=2, log_term=2))  # type: ignore[arg-type]
        assert node.vote == 0
        node.step(Message(MessageType.VOTE, NodeId(3), NodeId(1), 3, index=3, log_term=2))  # type: ignore[arg-type]
        assert node.vote == 3

    def test_the_latest_configuration_is_part_of_the_snapshot(self) -> None:
        script = three_and(4)
        runs(script, "configure 1 voters=1,2,4", "settle", "propose 1", "settle 1 2 4", "compact 1 5", "add 5 voters=")
        runs(script, "configure 1 voters=1,2,4 learners=5", "settle 1 2 4", "settle 1 5", "snapshot 1 5", "deliver 5")
        assert voters(script, 5) == ((1, 2, 4), ())

    def test_a_snapshot_of_an_older_term_is_refused(self) -> None:
        script = self.behind()
        runs(script, "snapshot 1 3", "step 2 3 type=VOTE term=7 index=9 log_term=6 force=yes", "process 3", "deliver 3")
        assert script.shells[3].log.last_index() == 1
        assert script.shells[3].node.term == 7

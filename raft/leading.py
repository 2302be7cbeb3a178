"""What the shell asks of a leader: proposals, reads, transfer of leadership (thesis 3.10 and 6.4)."""

from __future__ import annotations

from collections.abc import Sequence

from quorumlog.raft import membership
from quorumlog.raft.core import Core
from quorumlog.raft.election import campaign_for_real
from quorumlog.raft.errors import NotLeader, ProposalRefused
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.types import NO_NODE, Entry, Message, NodeId, Role


def propose(core: Core, entries: Sequence[Entry]) -> None:
    """Appends entries that the shell has stamped for this term, and sends them with the next Ready."""
    leadership = _leadership_of(core)
    if leadership.transferring_to is not None:
        raise NotLeader(leadership.transferring_to)
    assert entries, "an empty proposal"
    expected = int(core.log.last_index)
    size_bytes = 0
    for entry in entries:
        expected += 1
        assert entry.index == expected, f"proposed entry {entry.index} should have index {expected}"
        assert entry.term == core.term, f"proposed entry of term {entry.term} in term {core.term}"
        size_bytes += len(entry.data)
    waiting = leadership.uncommitted_size_bytes
    limit = core.config.uncommitted_size_bytes_max
    if waiting and waiting + size_bytes > limit:
        raise ProposalRefused(waiting, size_bytes, limit)
    core.wake()
    core.append(entries)
    leadership.add_uncommitted(core.log.last_index, size_bytes)
    leadership.idle_elapsed = 0
    leadership.make_all_due()


def propose_configuration(core: Core, voters: Sequence[NodeId], learners: Sequence[NodeId], version: int) -> None:
    """Begins to change who votes and who learns."""
    leadership = _leadership_of(core)
    if leadership.transferring_to is not None:
        raise NotLeader(leadership.transferring_to)
    membership.propose_configuration(core, leadership, voters, learners, version)


def read_index(core: Core, context: int) -> None:
    """Starts a read; before the first commit of the term it waits, for the commit index may be too old till then."""
    leadership = _leadership_of(core)
    core.wake()
    leadership.idle_elapsed = 0
    if core.commit_index >= leadership.term_start_index:
        leadership.reads.add(context, core.commit_index)
    else:
        leadership.reads.waiting.append(context)


def transfer_leadership(core: Core, target: NodeId) -> None:
    """Stops proposals, catches the target up, then tells it to campaign at once."""
    leadership = _leadership_of(core)
    others = [voter for voter in core.configuration.voters if voter != core.node_id]
    if target not in others:
        raise ValueError(f"leadership cannot go to node {target}: the other voters are {others}")
    if leadership.transferring_to == target:
        return
    core.wake()
    leadership.idle_elapsed = 0
    leadership.transferring_to = target
    leadership.transfer_elapsed = 0
    leadership.timeout_now_sent = False
    progress = leadership.progress[target]
    progress.send_due = leadership.appends_due = True


def withhold(core: Core, withheld: bool) -> None:
    """Whether this replica is unfit to lead for now; it follows and votes as before."""
    core.withheld = withheld
    if not withheld:
        return
    if core.leadership is not None:
        core.wake()
        membership.hand_over(core, core.leadership)
    elif core.role is not Role.FOLLOWER:
        core.become_follower(core.term, NO_NODE)


def handle_timeout_now(core: Core, message: Message) -> None:
    """The leader hands over: campaigns without pre-vote, and past the stickiness of the other voters."""
    if core.promotable:
        campaign_for_real(core, force=True)


def _leadership_of(core: Core) -> Leadership:
    if core.leadership is None:
        raise NotLeader(core.leader_id)
    return core.leadership

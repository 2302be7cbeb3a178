"""Changes of the configuration, by joint consensus (Raft section 6), as their leader makes them.

A change of voters is two entries: the joint one, which needs a majority of the old and one of the new voters from the
moment it is in the log, and the final one, which the leader appends by itself once the joint one is committed. Changes
that touch learners alone are one entry, because they move no majority. One change at a time, and none before an entry
of the leader's own term is committed: until then it cannot know whether an earlier change is (Ongaro, 2015).
"""

from __future__ import annotations

from collections.abc import Sequence

from quorumlog.raft.core import Core
from quorumlog.raft.errors import ConfigurationRefused
from quorumlog.raft.leadership import Leadership
from quorumlog.raft.progress import ProgressState
from quorumlog.raft.types import NO_NODE, Configuration, Entry, EntryKind, LogIndex, Message, MessageType, NodeId


def propose_configuration(
    core: Core, leadership: Leadership, voters: Sequence[NodeId], learners: Sequence[NodeId], version: int
) -> None:
    """Begins the change to these voters and learners. Raises ConfigurationRefused."""
    now = core.configuration
    wanted = Configuration(tuple(sorted(voters)), tuple(sorted(learners)), version=version)
    if core.commit_index < leadership.term_start_index:
        raise ConfigurationRefused(f"nothing of term {core.term} is committed yet")
    if now.joint or core.configurations.latest_index > core.commit_index:
        raise ConfigurationRefused(f"the change to {now} is not committed yet")
    if not wanted.voters:
        raise ConfigurationRefused("a group needs a voter")
    for voter in wanted.voters:
        if voter not in now.voters and not _caught_up(leadership, voter):
            raise ConfigurationRefused(f"node {voter} is to vote, but is no learner that has caught up")
    if (wanted.voters, wanted.learners) == (now.voters, now.learners):
        return
    if wanted.voters == now.voters:
        _append(core, leadership, wanted)
    else:
        _append(core, leadership, Configuration(wanted.voters, wanted.learners, now.voters, version))


def on_committed(core: Core, leadership: Leadership) -> None:
    """Goes on with a change whose last entry is committed."""
    configuration = core.configuration
    if core.configurations.latest_index > core.commit_index:
        return
    if configuration.joint:
        final = Configuration(configuration.voters, configuration.learners, version=configuration.version)
        _append(core, leadership, final)
    elif core.node_id not in configuration.voters:
        hand_over(core, leadership)


def _caught_up(leadership: Leadership, peer: NodeId) -> bool:
    """Whether a learner would not hold up commits as a voter: it has what was committed an election timeout ago."""
    progress = leadership.progress.get(peer)
    return (
        progress is not None
        and progress.counting
        and progress.state is ProgressState.REPLICATE
        and progress.match_index >= max(leadership.commit_before, leadership.term_start_index)
    )


def _append(core: Core, leadership: Leadership, configuration: Configuration) -> None:
    index = LogIndex(core.log.last_index + 1)
    data = core.codec.configuration(index, core.term, configuration)
    core.wake()
    leadership.add_uncommitted(index, len(data))
    core.append([Entry(index, core.term, EntryKind.CONFIGURATION, data)])
    leadership.idle_elapsed = 0
    leadership.make_all_due()


def hand_over(core: Core, leadership: Leadership) -> None:
    """Leads no more: it votes no more, and has led until that was committed (section 6), or is not fit to lead. The
    best of the others, if there is one, campaigns.
    """
    others = [voter for voter in core.configuration.voters if voter != core.node_id]
    if others:
        best = max(others, key=lambda voter: leadership.counted.get(voter, LogIndex(0)))
        core.outbox.append(Message(MessageType.TIMEOUT_NOW, core.node_id, best, core.term))
    core.become_follower(core.term, NO_NODE)

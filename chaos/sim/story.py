"""A failure told in few words: what went before it in the group concerned, and how to see it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quorumlog.chaos.sim.failures import SimulationFailed, verdict_of
from quorumlog.chaos.sim.run import Run
from quorumlog.chaos.sim.world import Told

LINES_MAX: Final = 50


def story(run: Run, error: BaseException) -> str:
    """The last things that concerned the group of the failure, the failure itself, and who was how in the end."""
    group_id = error.group_id if isinstance(error, SimulationFailed) else 0
    told = [one for one in run.world.told if one.group_id in (0, group_id)]
    lines = [_line(run, one) for one in told[-LINES_MAX:]]
    lines.append(f"{verdict_of(error).name.lower()}: {str(error) or type(error).__name__}")
    lines.extend(_ends(run, group_id))
    return "\n".join(lines)


def replay_command(run: Run, strokes: Sequence[int] | None) -> str:
    """What to type to see it again."""
    words = ["python -m quorumlog.chaos.sim", f"--seed {run.seed}"]
    if run.swarm.asked_nodes:
        words.append(f"--nodes {run.swarm.asked_nodes}")
    if run.swarm.seconds != 120.0:
        words.append(f"--seconds {run.swarm.seconds:g}")
    if strokes is not None:
        words.append("--only " + (",".join(map(str, strokes)) or "none"))
    return " ".join(words)


def _line(run: Run, one: Told) -> str:
    where = f"group {one.group_id}: " if one.group_id else ""
    return f"{one.at - run.began:8.3f} s  {where}{one.text}"


def _ends(run: Run, group_id: int) -> list[str]:
    """The replicas of the group as they stand."""
    if group_id == 0:
        return []
    lines = []
    for node in run.world.nodes.values():
        replica = node.broker.multi.replicas.get(group_id) if node.broker is not None else None
        if replica is None:
            lines.append(f"node {node.node_id}: {'no replica' if node.running else 'does not run'}")
            continue
        raft = replica.raft
        lines.append(
            f"node {node.node_id}: {raft.role.value} in term {raft.term}, log {raft.first_index} to {raft.last_index}, "
            f"committed {raft.commit_index}, applied {raft.applied}, {raft.configuration}"
            + ("" if replica.counting else ", in REPAIR")
            + (f", stopped: {replica.stopped}" if replica.stopped else "")
        )
    return lines

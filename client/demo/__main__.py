"""Starts the cluster, runs the story, and says what came of it."""

import asyncio
import random
import secrets
import sys

from quorumlog.cli.errors import FAILED, INTERRUPTED, describe
from quorumlog.demo.screen import Screen
from quorumlog.demo.story import Outcome, Story
from quorumlog.dev_cluster import DevCluster, end_in_order
from quorumlog.errors import QuorumlogError

NODES = 3
PROVES_NOTHING = 4


def main() -> int:
    """Run the demo; returns its exit code."""
    end_in_order()
    screen = Screen()
    seed = secrets.randbits(32)
    cluster = DevCluster(NODES, random.Random(seed), "quorumlog-demo-")
    try:
        screen.event(f"starting {NODES} nodes in {cluster.folder}")
        with cluster:
            outcome = _run(cluster, screen)
    except QuorumlogError as error:
        screen.line("")
        sys.stderr.write(describe(error.message, error.hint))
        _name_what_is_left(cluster)
        return FAILED
    except KeyboardInterrupt:
        screen.line("interrupted")
        return INTERRUPTED
    _tell(outcome, screen)
    code = _exit_code(outcome)
    if code:
        _name_what_is_left(cluster)
    return code


def _run(cluster: DevCluster, screen: Screen) -> Outcome:
    """Tell the story; what it leaves is kept where something went wrong, for whoever wants to know why."""
    for node in cluster.nodes.values():
        screen.event(f"node {node.node_id} pid {node.pid} {node.address}")
    try:
        outcome = asyncio.run(Story(cluster, screen).run())
    except Exception:
        cluster.keep_folder = True
        raise
    cluster.keep_folder = _exit_code(outcome) != 0
    return outcome


def _name_what_is_left(cluster: DevCluster) -> None:
    if cluster.keep_folder:
        sys.stderr.write(f"hint: what it left is in {cluster.folder}\n")


def _exit_code(outcome: Outcome) -> int:
    if not outcome.is_clean():
        return FAILED
    return PROVES_NOTHING if outcome.proves_nothing() else 0


def _tell(outcome: Outcome, screen: Screen) -> None:
    kill, verdict = outcome.kill, outcome.verdict
    screen.line(f"killed node {kill.node_id} pid {kill.pid}, leader of partition {kill.partition}")
    screen.line(f"term before {kill.term_before} after {kill.term_after}")
    screen.line(f"acks before the kill {outcome.acks_before} after {outcome.acks_after}")
    for example in verdict["examples"]:
        screen.line(f"wrong: {example}")
    if outcome.failed:
        screen.line(f"wrong: {outcome.failed} records were given up by their producers")
    for reason in outcome.proves_nothing():
        screen.line(f"proves nothing: {reason}")
    screen.line(
        f"records {verdict['records']} lost {verdict['lost']} duplicated {verdict['duplicated']} "
        f"longest stall {verdict['longest_stall']:.1f} s"
    )


if __name__ == "__main__":
    sys.exit(main())

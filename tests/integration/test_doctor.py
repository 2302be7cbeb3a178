"""`quorumlog doctor` against real nodes: one line when all is well, one for each cause when it is not."""

from __future__ import annotations

import shutil
import subprocess
import sys

from quorumlog.proto import client_pb2 as pb
from tests.integration.cluster import LocalCluster, NodeProcess, eventually
from tests.integration.conftest import MakeCluster

PARTITIONS = 6


def doctor(node: NodeProcess, code: int) -> list[str]:
    """The lines that it prints when asked at this node's address."""
    return quorumlog("doctor", node=node, code=code)


def quorumlog(*words: str, node: NodeProcess, code: int) -> list[str]:
    """The lines that the program prints when asked at this node's address."""
    done = subprocess.run(
        [sys.executable, "-m", "quorumlog", *words, "-b", node.client_address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, (words, done.stdout + done.stderr)
    return (done.stdout + done.stderr).splitlines()


def test_healthy_then_a_dead_node_then_a_dead_majority(cluster: LocalCluster) -> None:
    cluster.create_topic("events", PARTITIONS)
    groups = len(cluster.node(1).status().replicas)  # type: ignore[union-attr]
    cluster.until_ready()
    assert doctor(cluster.node(1), 0) == [
        f"healthy: the 3 nodes of the cluster and their {3 * groups} replicas are well"
    ]

    survivor, second, third = cluster.nodes
    third.kill()

    def heals() -> bool:
        status = survivor.status()
        return status is not None and all(replica.leader_node_id in (1, 2) for replica in status.replicas)

    eventually("the others lead everything", heals)
    problem, *rest = doctor(survivor, 1)
    assert problem.startswith(f"PROBLEM  node 3: cannot connect to {third.client_address}: ")
    assert problem.endswith(" (failed at: tcp)")
    assert "node 1" not in problem, "that others do not hear of it goes without saying"
    assert rest == [
        "         fix: start the node (quorumlog dev, or quorumlog node), or check the port",
        f"PROBLEM 1, WARNING 0, INFO 0; 2 nodes with {2 * groups} replicas answered, 1 did not",
    ]

    moved = quorumlog("cluster", "transfer", "events", "0", "--to", "3", "--timeout", "1", node=survivor, code=1)
    assert "node 3 does not lead topic 'events' partition 0: node " in moved[0]
    assert "does not hear of it" in moved[0]
    assert any("quorumlog doctor says whether node 3 is up" in line for line in moved)

    second.kill()

    def stands_still() -> bool:
        status = survivor.status()
        return status is not None and not any(replica.leader_node_id for replica in status.replicas)

    eventually("nothing is led", stands_still)
    told = doctor(survivor, 1)
    print("\n".join(told))
    problem, fix, summary = told
    assert problem.startswith("PROBLEM  nodes 2, 3: cannot connect to ")
    assert problem.endswith(
        f"; not heard of by node 1, and without a majority {groups} of the {groups} groups on node 1 have no leader: "
        f"events partition 0, events partition 1, events partition 2 and {groups - 3} more (failed at: tcp)"
    )
    assert fix == "         fix: start the node (quorumlog dev, or quorumlog node), or check the port"
    assert summary == f"PROBLEM 1, WARNING 0, INFO 0; 1 node with {groups} replicas answered, 2 did not"
    status = survivor.status()
    assert status is not None
    (finding,) = status.findings
    assert (finding.severity, finding.subject) == (pb.PROBLEM, "nodes 2, 3")
    assert finding.fix.startswith("start nodes 2, 3 again, or check the network between them and node 1")
    assert "quorumlog cluster recover" in finding.fix

    overview = quorumlog("cluster", "status", node=survivor, code=0)
    assert overview[-2:] == [f"PROBLEM  nodes 2, 3: {finding.message}", f"         fix: {finding.fix}"]


def test_a_wiped_node_that_no_majority_admits_is_one_problem_whoever_is_asked(cluster: LocalCluster) -> None:
    survivor, down, wiped = cluster.nodes
    wiped.kill()
    down.kill()
    shutil.rmtree(wiped.data)
    wiped.start()
    wiped.until_waiting()

    def known(node: NodeProcess) -> bool:
        status = node.status()
        return status is not None and any("wiped or exchanged" in finding.message for finding in status.findings)

    for node in (survivor, wiped):
        eventually(f"node {node.node_id} knows", lambda node=node: known(node))  # type: ignore[misc]
    told = doctor(survivor, 1)
    problem, fix = next((line, told[number + 1]) for number, line in enumerate(told) if "PROBLEM  node 3:" in line)
    assert problem.startswith("PROBLEM  node 3: cluster ")
    assert f"its data folder {wiped.data} has incarnation " in problem
    assert fix.startswith("         fix: keep node 3 and a majority of the others up")
    assert sum(line.startswith("PROBLEM  node 3") for line in told) == 1
    # The wiped one has forgotten its fellows, and says the same of itself.
    assert doctor(wiped, 1)[:2] == [problem, fix]


def test_what_moves_and_what_is_drained_is_told_and_is_no_problem(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(nodes=4).up()
    cluster.create_topic("events", PARTITIONS, replicas=2)
    quorumlog("cluster", "drain", "4", node=cluster.node(1), code=0)
    told = doctor(cluster.node(1), 0)
    assert told[0] == "INFO     node 4: drained, and empty"
    assert "quorumlog cluster remove 4" in told[1]
    assert "quorumlog cluster drain 4 --end" in told[1]
    quorumlog("cluster", "drain", "4", "--end", node=cluster.node(1), code=0)
    assert doctor(cluster.node(1), 0)[0].startswith("healthy: the 4 nodes of the cluster")

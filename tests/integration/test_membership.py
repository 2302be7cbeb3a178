"""Nodes that are wiped, added, drained and removed, as processes with real folders, while producers go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.client_pb2_grpc import AdminStub
from tests.integration.cluster import LocalCluster, NodeProcess, eventually, free_ports
from tests.integration.conftest import MakeCluster
from tests.integration.stream import Stream, check_everywhere
from tests.integration.test_cli import Program

T = TypeVar("T")
TOPIC = "orders"
PARTITIONS = 3
SOME = 30
"""Acks per partition between two events."""
MOVE_SECONDS = 90.0


def ask(cluster: LocalCluster, call: Callable[[AdminStub], T]) -> T:
    """Ask the leader of the metadata group until it has answered."""

    def look() -> list[T] | None:
        try:
            return [call(cluster.leader("__cluster").admin)]
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED):
                return None
            raise

    return eventually("the leader of the metadata group answers", look)[0]


def placed(cluster: LocalCluster, topic: str = TOPIC) -> list[list[int]]:
    answer = ask(cluster, lambda admin: admin.DescribeTopic(pb.DescribeTopicRequest(name=topic), timeout=5.0))
    return [sorted(partition.replicas) for partition in answer.topic.partitions]


def until_settled(cluster: LocalCluster) -> None:
    """Wait until every partition is where it shall be, with as many replicas as wanted."""

    def settled() -> bool:
        status = cluster.leader("__cluster").status()
        return status is not None and not status.moving

    eventually("every partition is where it shall be", settled, MOVE_SECONDS)


def until_member(node: NodeProcess) -> None:
    def member() -> bool:
        status = node.status()
        return status is not None and status.state == "member" and len(status.nodes) > 0

    eventually(f"node {node.node_id} is a member", member)


def spare(cluster: LocalCluster, folder: Path, node_id: int) -> NodeProcess:
    """One more node, which waits."""
    ports = free_ports(2)
    node = NodeProcess(node_id, folder / f"node-{node_id}", (ports[0], ports[1]), {})
    cluster.nodes.append(node)
    node.start()
    node.until_waiting()
    return node


def wipe(node: NodeProcess) -> None:
    shutil.rmtree(node.data)


def test_a_wiped_node_comes_back_whole_by_itself_as_often_as_it_is_wiped(cluster: LocalCluster) -> None:
    cluster.create_topic(TOPIC, PARTITIONS)
    until_settled(cluster)
    victim = cluster.node(3)
    incarnations = set()
    with Stream(cluster, TOPIC, PARTITIONS) as stream:
        for _ in range(2):
            before = victim.status()
            assert before is not None
            incarnations.add(before.incarnation)
            stream.until_more(SOME)
            victim.kill()
            wipe(victim)
            stream.until_more(SOME)
            victim.start()
            until_member(victim)
            until_settled(cluster)
            stream.until_more(SOME)
            voters = eventually("node 3 votes in the metadata group again", lambda: votes(cluster, 3), MOVE_SECONDS)
            assert voters == [1, 2, 3]
    after = victim.status()
    assert after is not None
    assert len(incarnations | {after.incarnation}) == 3
    assert placed(cluster) == [[1, 2, 3]] * PARTITIONS
    check_everywhere(cluster, TOPIC, PARTITIONS, stream.acks)


def votes(cluster: LocalCluster, node_id: int) -> list[int] | None:
    replica = cluster.leader("__cluster").replica("__cluster", 0)
    return (
        sorted(replica.voters) if replica is not None and node_id in replica.voters and not replica.outgoing else None
    )


def test_the_former_folder_of_a_node_that_was_admitted_anew_is_turned_away(cluster: LocalCluster) -> None:
    victim = cluster.node(2)
    victim.kill()
    aside = victim.data.with_name("former")
    victim.data.rename(aside)
    victim.start()
    until_member(victim)
    victim.kill()
    wipe(victim)
    aside.rename(victim.data)
    victim.start()

    def told() -> str | None:
        status = victim.status()
        found = [one.message for one in status.findings if "admitted node 2" in one.message] if status else []
        return found[0] if found else None

    message = eventually("it says that it is no member any more", told)
    assert "counts for nothing" in message


def test_a_node_is_added_takes_its_share_and_another_one_goes(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.create_topic(TOPIC, PARTITIONS)
    until_settled(cluster)
    with Stream(cluster, TOPIC, PARTITIONS) as stream:
        stream.until_more(SOME)
        fourth = spare(cluster, tmp_path, 4)
        added = ask(cluster, lambda admin: admin.AddNode(pb.AddNodeRequest(address=fourth.peer_address), timeout=10.0))
        assert added.node.node_id == 4
        until_member(fourth)
        drained = ask(cluster, lambda admin: admin.DrainNode(pb.DrainNodeRequest(node_id=1), timeout=10.0))
        assert len(drained.changes) == PARTITIONS + 16
        until_settled(cluster)
        assert placed(cluster) == [[2, 3, 4]] * PARTITIONS
        eventually("node 4 votes in the metadata group", lambda: votes(cluster, 4), MOVE_SECONDS)
        eventually("node 1 is not in use any more", lambda: removed(cluster, 1), MOVE_SECONDS)
        stream.until_more(SOME)
    cluster.node(1).stop()
    cluster.nodes.pop(0)
    check_everywhere(cluster, TOPIC, PARTITIONS, stream.acks)
    status = cluster.nodes[0].status()
    assert status is not None
    assert sorted(node.node_id for node in status.nodes) == [2, 3, 4]


def removed(cluster: LocalCluster, node_id: int) -> bool:
    try:
        ask(cluster, lambda admin: admin.RemoveNode(pb.RemoveNodeRequest(node_id=node_id), timeout=5.0))
    except grpc.RpcError as error:
        if "cannot be removed" in str(error.details()):
            return False
        raise
    return True


def test_everything_is_evened_out_over_an_added_node(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(nodes=1).up()
    cluster.create_topic(TOPIC, 4, replicas=1)
    until_settled(cluster)
    second = spare(cluster, tmp_path, 2)
    ask(cluster, lambda admin: admin.AddNode(pb.AddNodeRequest(address=second.peer_address), timeout=10.0))
    until_member(second)
    until_settled(cluster)
    preview = ask(cluster, lambda admin: admin.Reassign(pb.ReassignRequest(validate_only=True), timeout=5.0))
    carried_out = ask(cluster, lambda admin: admin.Reassign(pb.ReassignRequest(), timeout=5.0))
    assert carried_out.changes == preview.changes
    until_settled(cluster)
    replicas = placed(cluster)
    assert sorted(replicas) == [[1], [1], [2], [2]]


def test_a_node_that_is_no_node_or_another_clusters_is_not_added(
    cluster: LocalCluster, make_cluster: MakeCluster
) -> None:
    other = make_cluster(nodes=1).up()
    for address, said in (
        (other.nodes[0].peer_address, "belongs to cluster"),
        (f"127.0.0.1:{free_ports(1)[0]}", "nothing listens"),
    ):
        with pytest.raises(grpc.RpcError, match=said):
            ask(cluster, lambda admin, address=address: admin.AddNode(pb.AddNodeRequest(address=address), timeout=20.0))  # type: ignore[misc]


def test_the_command_line_adds_moves_drains_and_removes(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(nodes=2).up()
    cluster.create_topic(TOPIC, 2, replicas=1)
    until_settled(cluster)
    program = Program(cluster.bootstrap)
    third = spare(cluster, tmp_path, 3)

    added = ("cluster", "add", third.peer_address)
    assert "would be added" in program.lines(*added, "--dry-run")[0]
    assert [node["node_id"] for node in program.json("cluster", "status")["nodes"]] == [1, 2]
    assert program.json(*added)["node_id"] == 3
    assert program.json(*added)["node_id"] == 3, "once more is the same"
    assert third.status().state == "member"  # type: ignore[union-attr] # it was waited for
    until_settled(cluster)

    moved = ("cluster", "reassign", TOPIC, 0, "--to", "3")
    [before], _ = placed(cluster)
    header, row = program.lines(*moved, "--dry-run")
    assert header.split() == ["TOPIC", "PARTITION", "FROM", "TO"]
    assert row.split() == [TOPIC, "0", str(before), "3"]
    assert placed(cluster)[0] == [before]
    assert program.lines(*moved)[-1] == "1 partition moved"
    assert placed(cluster)[0] == [3]
    assert program.lines(*moved) == ["nothing to move"]

    plan = program.json("cluster", "reassign", "--balance", "--dry-run")
    assert (plan["dry_run"], plan["done"]) == (True, False)
    plan["changes"].append({"topic": TOPIC, "partition": 1, "after": [3]})
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    assert program.lines("cluster", "reassign", "--file", file, "--no-wait")[-1].startswith("they are moving")
    until_settled(cluster)
    assert placed(cluster) == [[3], [3]]

    assert "drain it first" in program.run("cluster", "remove", 3, code=1).stderr
    drained = program.json("cluster", "drain", 3)
    assert (drained["draining"], drained["done"]) == (True, True)
    assert {TOPIC} < {change["topic"] for change in drained["changes"]}
    table = program.lines("cluster", "status")
    assert any("member, draining" in line for line in table)
    assert program.lines("cluster", "remove", 3, "--dry-run") == ["node 3 can be removed; stop it, it is not needed"]
    program.run("cluster", "remove", 3)
    assert [node["node_id"] for node in program.json("cluster", "status")["nodes"]] == [1, 2]
    assert "not a member" in program.run("cluster", "drain", 3, code=1).stderr


def test_a_drain_that_has_no_room_says_what_to_do_and_one_that_is_ended_lets_replicas_come(
    cluster: LocalCluster,
) -> None:
    cluster.create_topic(TOPIC, 1)
    until_settled(cluster)
    program = Program(cluster.bootstrap)
    refused = program.run("cluster", "drain", 2, code=1).stderr
    assert "partition 0 of topic 'orders'" in refused
    assert f"quorumlog cluster reassign {TOPIC} 0 --to 1,3" in refused or "--to 3,1" in refused
    program.run("cluster", "reassign", TOPIC, 0, "--to", "1,3")
    program.run("cluster", "drain", 2)
    assert program.lines("cluster", "drain", 2, "--end") == ["node 2 is placed on again"]
    program.run("cluster", "reassign", TOPIC, 0, "--to", "1,2,3")
    assert placed(cluster) == [[1, 2, 3]]
    program.run("cluster", "transfer", TOPIC, 0, "--to", 2, "--dry-run")
    assert "has no replica" in program.run("cluster", "transfer", TOPIC, 0, "--to", 9, "--dry-run", code=1).stderr

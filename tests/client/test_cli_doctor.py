"""What doctor makes of answers and of nodes that do not answer."""

import json

from quorumlog.cli.doctor import report, report_json
from quorumlog.cli.examine import Examination, judge
from quorumlog.errors import ConnectionFailed
from quorumlog.proto import client_pb2 as pb


def answer(node_id: int, *findings: pb.Finding, cluster: bytes = b"c" * 16, version: str = "1.0") -> pb.StatusResponse:
    nodes = [pb.NodeInfo(node_id=number, address=f"host-{number}:7070") for number in (1, 2, 3)]
    return pb.StatusResponse(
        node_id=node_id, cluster_id=cluster, state="member", nodes=nodes, findings=findings, version=version
    )


def finding(severity: pb.Severity.ValueType, message: str) -> pb.Finding:
    return pb.Finding(severity=severity, subject="orders partition 3", message=message, fix="start the node")


def healthy() -> Examination:
    return Examination(answers={f"host-{number}:7070": answer(number) for number in (1, 2, 3)})


def refused(node_id: int) -> ConnectionFailed:
    address = f"host-{node_id}:7070"
    return ConnectionFailed(
        f"cannot connect to {address}: refused", hint="start the node", address=address, stage="tcp"
    )


def test_a_healthy_cluster_is_one_line() -> None:
    found = healthy()
    diagnoses = judge(found)
    assert diagnoses == []
    assert report(found, diagnoses) == ("healthy: the 3 nodes of the cluster and their 0 replicas are well")
    assert report_json(found, diagnoses)["healthy"] is True
    assert report_json(found, diagnoses)["findings"] == []


def test_a_dead_majority_is_one_problem_however_much_follows_from_it() -> None:
    leaderless = pb.Finding(
        severity=pb.PROBLEM,
        subject="nodes 2, 3",
        message="not heard of by node 1, and without a majority 26 of the 26 groups on node 1 have no leader: "
        "orders partition 0, orders partition 1, orders partition 2 and 23 more",
        fix="start nodes 2, 3 again",
    )
    held = pb.Finding(severity=pb.WARNING, subject="node 3", message="for its sake 4096 bytes are kept", fix="back")
    silent = pb.Finding(severity=pb.WARNING, subject="node 3", message="not heard of by node 1; at host-3", fix="start")
    found = Examination(
        answers={"host-1:7070": answer(1, silent, leaderless, held)},
        failures={f"host-{number}:7070": refused(number) for number in (2, 3)},
    )
    problem = (
        "PROBLEM  nodes 2, 3: cannot connect to host-2:7070: refused; cannot connect to host-3:7070: refused; "
        "not heard of by node 1, and without a majority 26 of the 26 groups on node 1 have no leader: "
        "orders partition 0, orders partition 1, orders partition 2 and 23 more; for its sake 4096 bytes are kept "
        "(failed at: tcp)"
    )
    assert report(found, judge(found)).splitlines() == [
        problem,
        "         fix: start the node",
        "PROBLEM 1, WARNING 0, INFO 0; 1 node with 0 replicas answered, 2 did not",
    ]


def test_what_several_nodes_say_of_one_that_answers_is_one_line() -> None:
    found = healthy()
    for number in (1, 2):
        message = f"not heard of by node {number}; its peer address is host-3:7170"
        silent = pb.Finding(severity=pb.WARNING, subject="node 3", message=message, fix="check the network")
        found.answers[f"host-{number}:7070"] = answer(number, silent)
    (only,) = judge(found)
    assert (only.severity, only.subject, only.fix) == ("WARNING", "node 3", "check the network")
    assert "by node 1; " in only.message
    assert "by node 2; " in only.message


def test_nodes_that_are_dead_for_themselves_are_a_line_each() -> None:
    found = Examination(
        answers={"host-1:7070": answer(1)}, failures={f"host-{number}:7070": refused(number) for number in (2, 3)}
    )
    assert [one.subject for one in judge(found)] == ["node 2", "node 3"]


def test_a_node_that_does_not_answer_is_a_problem_with_address_stage_and_fix() -> None:
    found = healthy()
    del found.answers["host-3:7070"]
    found.failures["host-3:7070"] = ConnectionFailed(
        "cannot connect to host-3:7070: refused", hint="start the node", address="host-3:7070", stage="tcp"
    )
    worst, *_ = judge(found)
    assert (worst.severity, worst.subject, worst.stage) == ("PROBLEM", "node 3", "tcp")
    lines = report(found, judge(found)).splitlines()
    assert lines[0] == "PROBLEM  node 3: cannot connect to host-3:7070: refused (failed at: tcp)"
    assert lines[1].strip() == "fix: start the node"
    as_json = json.loads(json.dumps(report_json(found, judge(found))))
    assert as_json["healthy"] is False
    assert as_json["unreachable"] == ["host-3:7070"]
    assert as_json["findings"][0]["address"] == "host-3:7070"


def test_the_worst_comes_first_and_what_several_nodes_say_is_said_once() -> None:
    found = healthy()
    lag = finding(pb.WARNING, "4096 bytes are kept")
    found.answers["host-1:7070"] = answer(1, lag, finding(pb.PROBLEM, "no leader"))
    found.answers["host-2:7070"] = answer(2, lag, finding(pb.PROBLEM, "no leader"))
    assert [diagnosis.message for diagnosis in judge(found)][:2] == ["no leader", "4096 bytes are kept"]


def test_addresses_of_different_clusters_are_a_problem() -> None:
    found = healthy()
    found.answers["host-2:7070"] = answer(2, cluster=b"d" * 16)
    worst = judge(found)[0]
    assert worst.severity == "PROBLEM"
    assert "different clusters" in worst.message
    assert "63" * 16 in worst.message
    assert "64" * 16 in worst.message


def test_different_releases_are_a_warning() -> None:
    found = healthy()
    found.answers["host-2:7070"] = answer(2, version="1.1")
    worst = judge(found)[0]
    assert (worst.severity, worst.message) == ("WARNING", "its nodes run different releases: 1.0, 1.1")


def test_a_severity_of_a_newer_node_is_taken_for_a_problem() -> None:
    found = healthy()
    found.answers["host-1:7070"] = pb.StatusResponse.FromString(
        answer(1).SerializeToString() + b"\x3a\x06\x08\x09\x1a\x02ab"  # findings: severity 9, message "ab"
    )
    assert ("PROBLEM", "ab") in {(diagnosis.severity, diagnosis.message) for diagnosis in judge(found)}

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


def test_a_healthy_cluster_has_no_problem() -> None:
    found = healthy()
    diagnoses = judge(found)
    assert {diagnosis.severity for diagnosis in diagnoses} == {"INFO"}
    assert report(found, diagnoses).endswith(
        "PROBLEM 0, WARNING 0, INFO 1; 3 nodes with 0 replicas answered, 0 did not"
    )
    assert report_json(found, diagnoses)["healthy"] is True


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

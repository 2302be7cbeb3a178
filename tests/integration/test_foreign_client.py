"""A client that has reflection and the .proto files only, as one in another language would."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from grpc_tools import protoc

from quorumlog.proto import client_pb2
from tests.integration.cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[2]


def test_foreign_client_does_it_all_with_generated_code(shared: LocalCluster, tmp_path: Path) -> None:
    # Under another package, so that nothing generated here is in use by accident.
    (tmp_path / "foreign").mkdir()
    shutil.copy2(ROOT / "proto/client.proto", tmp_path / "foreign")
    arguments = ["protoc", f"-I{tmp_path}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main([*arguments, str(tmp_path / "foreign/client.proto")]) == 0

    program = Path(__file__).with_name("foreign_client.py")
    done = subprocess.run(
        [sys.executable, program, shared.nodes[0].client_address, tmp_path],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    services = client_pb2.DESCRIPTOR.services_by_name.values()
    assert found["services"] == {one.full_name: [method.name for method in one.methods] for one in services}
    assert found["create_codes"][0] == "NOT_LEADER"
    offsets = [offset for offsets, _ in found["produced"] for offset in offsets]
    assert offsets == list(range(9)), "three records through each of three nodes, in order"
    assert "NOT_LEADER" in {code for _, codes in found["produced"] for code in codes}
    assert found["member"]["values"] == ["one", "two", "three"] * 3
    assert found["member"]["member_id"]
    assert found["member"]["commit_id"] == 7
    assert found["member"]["committed"] == [9]
    assert found["wrong_topic"] == {
        "status": "NOT_FOUND",
        "reason": "UNKNOWN_TOPIC",
        "code": "UNKNOWN_TOPIC",
        "message": "topic 'orders' does not exist",
        "hint": "create it: quorumlog topic create NAME",
    }

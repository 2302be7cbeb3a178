"""The checked-in generated code is what the .proto files give."""

import os
import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).resolve().parents[2] / "proto"


def test_generated_code_is_current(tmp_path: Path) -> None:
    subprocess.run([PROTO / "generate", tmp_path], check=True, env={**os.environ, "PYTHON": sys.executable})
    generated = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checked_in = {path.name: path.read_bytes() for path in PROTO.glob("*_pb2*.py*")}
    assert generated.keys() == checked_in.keys(), "run `make proto`"
    for name, content in generated.items():
        assert content == checked_in[name], f"proto/{name} is not what the .proto files give: run `make proto`"


def test_descriptors_carry_the_import_path() -> None:
    from quorumlog.proto import client_pb2, internal_pb2, peer_pb2

    names = [module.DESCRIPTOR.name for module in (client_pb2, internal_pb2, peer_pb2)]
    assert names == ["quorumlog/proto/client.proto", "quorumlog/proto/internal.proto", "quorumlog/proto/peer.proto"]

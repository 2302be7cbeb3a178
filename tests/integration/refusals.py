"""The error with which a call ends."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from quorumlog.proto import client_pb2 as pb


def error_of(call: Callable[[], object]) -> pb.Error:
    """Make the call, which fails as a whole; returns the error in its trailing metadata."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    found = [item.value for item in caught.value.trailing_metadata() or () if item.key == "quorumlog-error-bin"]
    assert found, f"no error of ours: {caught.value}"
    assert isinstance(found[0], bytes)
    return pb.Error.FromString(found[0])

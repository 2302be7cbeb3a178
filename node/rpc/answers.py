"""How a call that fails as a whole tells the client: a gRPC status, with the error in full in its details.

The trailing metadata carry the error twice: as `google.rpc.Status` under the standard name, which tools of every
language show, and as the contract's own `Error` under `quorumlog-error-bin`, which a client reads without another
dependency.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import GRPC_DETAILS_METADATA_KEY

from quorumlog.proto import client_pb2
from quorumlog.proto.errors import kind_of, make_error

ERROR_METADATA_KEY: Final = "quorumlog-error-bin"
ERROR_DOMAIN: Final = "quorumlog"
MESSAGE_CHARACTERS_MAX: Final = 500
"""A message stands in the metadata four times, and gRPC clients take 8 KiB of those by default."""

Context = grpc.aio.ServicerContext[Any, Any]


async def fail(context: Context, error: client_pb2.Error) -> NoReturn:
    """End the call with `error`. A message that repeats much of the request is cut, for metadata have little room."""
    kind = kind_of(error.code)
    if len(error.message) > MESSAGE_CHARACTERS_MAX:
        error.message = error.message[:MESSAGE_CHARACTERS_MAX] + "..."
    code = grpc.StatusCode[kind.grpc_status]
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    status = Status(code=code.value[0], message=text)
    info = ErrorInfo(reason=kind.name, domain=ERROR_DOMAIN, metadata={"hint": error.hint})
    if error.HasField("leader"):
        info.metadata["leader"] = error.leader.address
    details: list[Message] = [info, error]
    if error.retry_after_ms:
        retry = RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        details.append(retry)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    await context.abort(
        code,
        text,
        trailing_metadata=(
            (GRPC_DETAILS_METADATA_KEY, status.SerializeToString()),
            (ERROR_METADATA_KEY, error.SerializeToString()),
        ),
    )


def unknown_fields(request: Message) -> client_pb2.Error | None:
    """UNSUPPORTED_VERSION when a request carries a field, at any depth, that this release does not know.

    Ignoring it would do something else than the client asked for.
    """
    size_bytes = request.ByteSize()
    request.DiscardUnknownFields()
    return None if request.ByteSize() == size_bytes else _strange(request)


def unknown_produce_fields(request: client_pb2.ProduceRequest) -> client_pb2.Error | None:
    """As `unknown_fields`, without walking the payloads; batches and rows are looked at where they are checked."""
    if len(UnknownFieldSet(request)) or any(len(UnknownFieldSet(batch)) for batch in request.batches):
        return _strange(request)
    return None


def _strange(request: Message) -> client_pb2.Error:
    return make_error(
        client_pb2.UNSUPPORTED_VERSION,
        f"{type(request).__name__} carries a field that this node does not know",
        hint="upgrade the node, or use a client of its release",
    )

"""What is raised about a batch that cannot be accepted."""

from quorumlog.proto import client_pb2 as pb


class BatchInvalid(ValueError):
    """A batch is refused. `code` is the wire's error code, `message` names what is wrong, `hint` the fix.

    An empty `hint` stands for the usual one of the code. Nothing of such a batch has been appended.
    """

    def __init__(self, code: pb.ErrorCode.ValueType, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

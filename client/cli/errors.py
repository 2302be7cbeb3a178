"""How commands end."""

FAILED = 1
USAGE = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: what became of the output is up to whoever stopped reading it, and `pipefail` can tell."""


class UsageError(Exception):
    """The command itself is wrong.

    Args:
        message: what is wrong, naming it.
        hint: what to write instead.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CommandFailed(Exception):
    """The command is right, but what it asks for did not succeed."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def describe(message: str, hint: str = "") -> str:
    """Return what standard error shows, with a line end."""
    text = f"quorumlog: {message}\n"
    return f"{text}hint: {hint}\n" if hint else text

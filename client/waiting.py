"""What a call waits for, and what it says when it has waited in vain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quorumlog.errors import ConnectionFailed, NoLeader, NotCoordinator, NotLeader, QuorumlogError, TimedOut


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a call waits, and for how many seconds so far.

    `hopeless`: nothing listens at any address the client knows, so that only a node that is started can end the wait.
    """

    cause: QuorumlogError
    seconds: float
    hopeless: bool


OnWaiting = Callable[[Wait], None]
"""Told again and again while a call waits. It runs in the client's own loop and must not block. A `QuorumlogError` that
it raises ends a call that would try again."""

# An attempt that takes longer than this is told of while it lasts.
SLOW_SECONDS = 1.0


class Causes:
    """Why there is no answer yet: the last word of every node that was asked."""

    def __init__(self) -> None:
        self._by_address: dict[str, QuorumlogError] = {}

    def add(self, address: str, error: QuorumlogError) -> None:
        """Take over how an attempt ended."""
        # The last attempt is cut short by the deadline: that it was late says less than what came before.
        if address not in self._by_address or not isinstance(error, TimedOut):
            self._by_address[address] = error

    @property
    def unanswered(self) -> dict[str, QuorumlogError]:
        """Return who is to blame for the wait by not answering, and how each failed; empty where an answer tells more.

        An answer that only names the leader tells nothing where that leader is silent.
        """
        errors = self._by_address.values()
        if any(not silent(error) and not error.leader for error in errors):
            return {}
        return {address: error for address, error in self._by_address.items() if silent(error)}

    def summary(self) -> QuorumlogError:
        """Return the one error for all of it; at least one node was asked.

        What nodes answered is the cause, and those that do not answer stand beside it: they may be why.
        """
        if self.unanswered:
            return nobody_answers(self.unanswered)
        answers = [error for error in self._by_address.values() if not silent(error)]
        answers.sort(key=lambda error: (not isinstance(error, NoLeader), bool(error.leader)))
        return _beside(answers[0], [error for error in self._by_address.values() if silent(error)])


def silent(error: QuorumlogError) -> bool:
    """Whether an attempt ended without an answer."""
    return isinstance(error, (ConnectionFailed, TimedOut)) and error.code == "CLIENT"


def _beside(answer: QuorumlogError, missing: list[QuorumlogError]) -> QuorumlogError:
    if not missing:
        return answer
    hint = answer.hint
    if isinstance(answer, (NoLeader, NotLeader, NotCoordinator)):
        hint = "start the nodes that do not answer: a majority must run"
    return type(answer)(
        "; ".join(error.message for error in (answer, *missing)),
        hint=hint,
        code=answer.code,
        outcome=answer.outcome,
        leader=answer.leader,
        retry_after_seconds=answer.retry_after_seconds,
    )


def nobody_answers(found: Mapping[str, QuorumlogError]) -> QuorumlogError:
    """Return the error for nodes that do not answer; `found` has what is wrong with each, by its address."""
    errors = list(found.values())
    faults = [error for error in errors if isinstance(error, ConnectionFailed)]
    message = errors[0].message if len(errors) == 1 else "no answer: " + "; ".join(error.message for error in errors)
    if not faults:
        return TimedOut(message, hint=errors[0].hint, outcome=errors[0].outcome)
    return ConnectionFailed(
        message,
        hint=faults[0].hint,
        address=",".join(found),
        stage=faults[0].stage,
        refused=len(faults) == len(errors) and all(error.refused for error in faults),
    )

"""Sequences, retries and outcomes of one partition, as transcripts."""

import random

import pytest

from quorumlog.errors import ConnectionFailed, DeliveryFailed, Outcome, QuorumlogError, RecordTooLarge, from_wire
from quorumlog.futures import BatchCompletion, BulkFuture, SendFuture
from quorumlog.partition_sender import Attempt, PartitionSender
from quorumlog.pending import PendingBatch
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto.errors import make_error
from quorumlog.records import AppendedRange


class Script:
    """One sender, a clock that only moves when told to, and batches of two records named by letters."""

    def __init__(self) -> None:
        self.sender = PartitionSender("t", b"i" * 16, 0, 7, 0, random.Random(1))
        self.now = 0.0
        self.batches: dict[str, PendingBatch] = {}

    def add(self, names: str, deadline: float = 100.0) -> None:
        for name in names:
            batch = PendingBatch("t", 0, self.now, deadline)
            batch.extend([name.encode()] * 2, None, [0, 0], 40)
            self.batches[name] = batch
            self.sender.queue.append(batch)

    def send(self) -> dict[str, Attempt]:
        """Send whatever may be sent, and return the attempts by name."""
        attempts = {}
        while (attempt := self.sender.next_attempt(self.now, linger=0, batch_size=1, idle=True)) is not None:
            attempts[self.name(attempt.batch)] = attempt
        return attempts

    def name(self, sent: BatchCompletion) -> str:
        """The name of a batch; the halves of `a` are `a1` and `a2`."""
        for name, batch in self.batches.items():
            if batch is sent:
                return name
            for number, half in enumerate(batch.halves or (), 1):
                if half is sent:
                    return f"{name}{number}"
        raise AssertionError("a batch without a name")

    def state(self, attempts: dict[str, Attempt]) -> str:
        return " ".join(f"{n}@{a.batch.epoch}:{a.batch.base_sequence}" for n, a in attempts.items())

    def refuse(self, attempt: Attempt, code: int, outcome: int | None = None) -> None:
        error = make_error(pb.ErrorCode.ValueType(code), "refused")
        if outcome is not None:
            error.outcome = pb.Outcome.ValueType(outcome)
        self.sender.refused(attempt, from_wire(error), self.now)

    def lose(self, attempt: Attempt) -> None:
        self.refuse(attempt, pb.SHUTTING_DOWN, pb.OUTCOME_UNKNOWN)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.sender.expire(self.now)

    def outcome(self, name: str) -> Outcome | None:
        """What became of a batch: None while nothing did, NONE if it was appended."""
        batch = self.batches[name]
        if not batch.done:
            return None
        if batch.error is None:
            return Outcome.NONE
        assert isinstance(batch.error, DeliveryFailed)
        return batch.error.outcome


@pytest.fixture
def script() -> Script:
    return Script()


def test_five_are_in_flight_and_sequences_count_records(script: Script) -> None:
    script.add("abcdefg")
    sent = script.send()
    assert script.state(sent) == "a@0:0 b@0:2 c@0:4 d@0:6 e@0:8"
    script.sender.appended(sent["b"], 2)
    assert script.send() == {}, "the leader remembers five: a repetition of `a` must not be older than that"
    script.sender.appended(sent["a"], 0)
    assert script.state(script.send()) == "f@0:10 g@0:12"


def test_after_a_failure_all_answers_are_awaited_then_all_is_sent_again_in_order(script: Script) -> None:
    script.add("abc")
    sent = script.send()
    script.refuse(sent["a"], pb.NOT_LEADER)
    script.refuse(sent["c"], pb.OUT_OF_ORDER_SEQUENCE)
    script.wait(1)
    assert script.send() == {}
    script.refuse(sent["b"], pb.OUT_OF_ORDER_SEQUENCE)
    script.wait(1)
    again = script.send()
    assert script.state(again) == "a@0:0 b@0:2 c@0:4"
    assert [attempt.number for attempt in again.values()] == [1, 1, 1]


def test_a_lost_answer_is_asked_for_under_the_same_sequence(script: Script) -> None:
    script.add("a")
    script.lose(script.send()["a"])
    script.wait(1)
    again = script.send()
    assert script.state(again) == "a@0:0"
    script.sender.appended(again["a"], 5)
    assert script.batches["a"].metadata(1).offset == 6


def test_a_sequence_long_past_counts_as_appended_at_an_unknown_offset(script: Script) -> None:
    script.add("a")
    script.lose(script.send()["a"])
    script.wait(1)
    script.refuse(script.send()["a"], pb.DUPLICATE_SEQUENCE)
    assert script.outcome("a") is Outcome.NONE
    assert script.batches["a"].metadata(0).offset == -1


def test_a_certain_failure_lets_the_rest_go_on_under_the_next_epoch(script: Script) -> None:
    script.add("abc")
    sent = script.send()
    script.refuse(sent["a"], pb.INVALID_REQUEST)
    assert script.outcome("a") is Outcome.NOT_APPENDED
    script.refuse(sent["b"], pb.OUT_OF_ORDER_SEQUENCE)
    script.lose(sent["c"])  # cannot have been appended either: `a` is missing in front of it
    script.wait(1)
    assert script.state(script.send()) == "b@1:0 c@1:2"


def test_what_came_before_a_failure_is_settled_under_its_own_epoch(script: Script) -> None:
    script.add("abc")
    sent = script.send()
    script.refuse(sent["b"], pb.INVALID_REQUEST)
    script.lose(sent["a"])
    script.refuse(sent["c"], pb.OUT_OF_ORDER_SEQUENCE)
    script.wait(1)
    again = script.send()
    assert script.state(again) == "a@0:0"
    script.sender.appended(again["a"], 0)
    assert script.state(script.send()) == "c@1:0"


def test_giving_up_on_an_unknown_settles_what_may_be_appended_and_renumbers_the_rest(script: Script) -> None:
    script.add("a", deadline=10)
    script.add("bcd")
    sent = script.send()
    script.lose(sent["a"])
    script.lose(sent["b"])
    script.refuse(sent["c"], pb.NOT_LEADER)
    script.refuse(sent["d"], pb.NOT_LEADER)
    script.wait(10)
    assert script.outcome("a") is Outcome.UNKNOWN
    again = script.send()
    assert script.state(again) == "b@0:2", "it may be in the log, so it keeps its sequence"
    script.sender.appended(again["b"], 2)
    assert script.state(script.send()) == "c@1:0 d@1:2"


def test_a_gap_in_front_of_an_unknown_tells_nothing(script: Script) -> None:
    script.add("a", deadline=10)
    script.add("bc")
    sent = script.send()
    script.lose(sent["a"])
    script.lose(sent["b"])
    script.refuse(sent["c"], pb.NOT_LEADER)
    script.wait(10)
    script.refuse(script.send()["b"], pb.OUT_OF_ORDER_SEQUENCE)
    assert script.outcome("b") is Outcome.UNKNOWN
    assert script.state(script.send()) == "c@1:0"


def test_not_appended_is_said_only_if_every_attempt_said_so(script: Script) -> None:
    script.add("ab", deadline=10)
    sent = script.send()
    script.refuse(sent["a"], pb.NOT_LEADER)
    script.refuse(sent["b"], pb.NOT_LEADER)
    script.wait(1)
    again = script.send()
    script.refuse(again["a"], pb.NOT_LEADER)
    script.lose(again["b"])
    script.wait(10)
    assert (script.outcome("a"), script.outcome("b")) == (Outcome.NOT_APPENDED, Outcome.UNKNOWN)


def test_an_unknown_producer_goes_on_under_the_next_epoch(script: Script) -> None:
    script.add("abc")
    sent = script.send()
    script.sender.appended(sent["a"], 0)
    script.refuse(sent["b"], pb.UNKNOWN_PRODUCER, pb.NOT_APPENDED)
    assert script.send() == {}
    script.refuse(sent["c"], pb.UNKNOWN_PRODUCER, pb.NOT_APPENDED)
    assert script.state(script.send()) == "b@1:0 c@1:2"


def test_an_unknown_producer_on_a_retry_of_an_unknown_is_given_up(script: Script) -> None:
    script.add("ab")
    sent = script.send()
    script.sender.appended(sent["a"], 0)
    script.lose(sent["b"])
    script.wait(1)
    script.refuse(script.send()["b"], pb.UNKNOWN_PRODUCER, pb.OUTCOME_UNKNOWN)
    assert script.outcome("b") is Outcome.UNKNOWN


def test_a_fenced_producer_gives_everything_up(script: Script) -> None:
    script.add("abcdef")
    sent = script.send()
    script.refuse(sent["a"], pb.PRODUCER_FENCED)
    assert [script.outcome(name) for name in "abf"] == [Outcome.NOT_APPENDED, Outcome.UNKNOWN, Outcome.NOT_APPENDED]
    assert isinstance(script.sender.fenced, QuorumlogError)


def test_what_never_left_is_not_appended_and_leaves_no_hole(script: Script) -> None:
    script.add("abcde")
    script.add("f", deadline=10)
    script.add("g")
    sent = script.send()
    script.wait(10)
    assert script.outcome("f") is Outcome.NOT_APPENDED
    for offset, name in enumerate("abcde"):
        script.sender.appended(sent[name], offset * 2)
    assert script.state(script.send()) == "g@0:10"


def test_a_late_answer_changes_nothing(script: Script) -> None:
    script.add("a", deadline=10)
    sent = script.send()
    script.wait(10)
    assert script.outcome("a") is Outcome.UNKNOWN
    script.sender.appended(sent["a"], 0)
    script.refuse(sent["a"], pb.NOT_LEADER)
    assert script.outcome("a") is Outcome.UNKNOWN


def test_sequences_wrap(script: Script) -> None:
    script.sender._next_sequence = (1 << 31) - 2
    script.add("ab")
    assert script.state(script.send()) == f"a@0:{(1 << 31) - 2} b@0:0"


def test_linger_applies_only_while_something_is_in_flight(script: Script) -> None:
    batch = PendingBatch("t", 0, 0.0, 100.0)
    batch.add(b"v", None, (), 0, 17)
    script.sender.open = batch
    assert script.sender.next_attempt(0.004, linger=0.005, batch_size=100, idle=False) is None
    assert script.sender.next_attempt(0.005, linger=0.005, batch_size=100, idle=False) is not None


def test_a_batch_that_is_too_large_goes_on_as_two_halves_before_what_came_after_it(script: Script) -> None:
    script.add("ab")
    sent = script.send()
    script.refuse(sent["a"], pb.RECORD_TOO_LARGE)
    assert script.send() == {}, "what is in flight is awaited first"
    script.refuse(sent["b"], pb.OUT_OF_ORDER_SEQUENCE)
    script.wait(1)
    again = script.send()
    assert script.state(again) == "a1@1:0 a2@1:1 b1@1:2 b2@1:3", "b is as large: it is not even tried"
    script.sender.appended(again["a1"], 10)
    assert script.outcome("a") is None
    script.sender.appended(again["a2"], 20)
    assert script.outcome("a") is Outcome.NONE
    assert [SendFuture(script.batches["a"], n).result().offset for n in range(2)] == [10, 20]
    assert BulkFuture([(script.batches["a"], 0, 2)]).result() == [
        AppendedRange("t", 0, 10, 1),
        AppendedRange("t", 0, 20, 1),
    ]


def test_only_the_record_that_is_too_large_itself_fails(script: Script) -> None:
    script.add("a")
    script.refuse(script.send()["a"], pb.RECORD_TOO_LARGE)
    halves = script.send()
    script.refuse(halves["a2"], pb.RECORD_TOO_LARGE)
    script.sender.appended(halves["a1"], 5)
    first, second = (SendFuture(script.batches["a"], n) for n in range(2))
    assert first.result().offset == 5
    assert first.exception() is None
    error = second.exception()
    assert isinstance(error, DeliveryFailed)
    assert isinstance(error.__cause__, RecordTooLarge)
    assert (error.count, error.outcome) == (1, Outcome.NOT_APPENDED)


def test_what_may_be_in_the_log_is_not_split(script: Script) -> None:
    script.add("a")
    script.lose(script.send()["a"])
    script.wait(1)
    script.refuse(script.send()["a"], pb.RECORD_TOO_LARGE)
    assert script.outcome("a") is Outcome.UNKNOWN


def test_what_is_given_up_says_what_was_heard_last(script: Script) -> None:
    script.add("ab", deadline=10)
    sent = script.send()
    script.sender.refused(sent["a"], ConnectionFailed("cannot reach h:1", hint="", address="h:1", stage="tcp"), 0.0)
    script.wait(10)
    assert str(script.batches["a"].error).count("every attempt failed; last heard: cannot reach h:1") == 1
    assert "no answer came; last heard: cannot reach h:1" in str(script.batches["b"].error)


def test_what_was_heard_before_a_success_explains_nothing(script: Script) -> None:
    script.add("a")
    script.refuse(script.send()["a"], pb.NOT_LEADER)
    script.wait(1)
    script.sender.appended(script.send()["a"], 0)
    script.add("b", deadline=10)
    script.send()
    script.wait(10)
    assert "no answer came" in str(script.batches["b"].error)
    assert "last heard" not in str(script.batches["b"].error)

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorumlog.node.coordination.commands import MAX_COMMAND_BYTES, Malformed
from quorumlog.node.coordination.locks import LockTable
from quorumlog.node.coordination.snapshot import Snapshot
from quorumlog.node.coordination.wire import MAX_INDEX, MAX_PAYLOAD_BYTES, MAX_TERM, Envelope, Message, decode, encode
from quorumlog.raft.types import NodeId

terms = st.integers(1, MAX_TERM)
indexes = st.integers(2, MAX_INDEX)
commands = st.binary(max_size=60).map(lambda body: b"\x00" + body)


@st.composite
def messages(draw: st.DrawFn) -> tuple[int, Message]:
    """A term and a message that PySyncObj might send in it."""
    term = draw(terms)
    kind = draw(st.sampled_from(["append", "snapshot", "next", "command", "ask", "vote"]))
    if kind == "append":
        previous = draw(st.integers(1, 1000))
        entry_terms = sorted(draw(st.lists(st.integers(0, term), min_size=1, max_size=6)))
        rows = [(draw(commands), previous + 1 + at, each) for at, each in enumerate(entry_terms[1:])]
        return term, {
            "type": "append_entries", "term": term, "commit_index": draw(indexes), "entries": rows,
            "prevLogIdx": previous, "prevLogTerm": entry_terms[0],
        }  # fmt: skip
    if kind == "snapshot":
        index = draw(st.integers(2, 1000))
        snapshot = Snapshot((draw(commands), index - 1, 0), (draw(commands), index, term), b"")
        data = (snapshot.encode(), True, True)
        return term, {"type": "append_entries", "term": term, "commit_index": index, "serialized": data}
    if kind == "next":
        flags = {"success": draw(st.booleans()), "reset": draw(st.booleans())}
        return term, {"type": "next_node_idx", "next_node_idx": draw(indexes), **flags}
    if kind == "command":
        return term, {"type": "apply_command", "command": draw(commands)}
    if kind == "ask":
        last_term = draw(st.integers(0, term - 1))
        return term, {"type": "request_vote", "term": term, "last_log_index": draw(indexes), "last_log_term": last_term}
    return term, {"type": "response_vote", "term": term}


@given(messages(), st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1), st.integers(1, 2**63))
def test_what_is_encoded_is_decoded_again(
    said: tuple[int, Message], session_id: int, epoch: int, sequence: int
) -> None:
    term, message = said
    envelope = Envelope(session_id, epoch, sequence, term)
    assert decode(encode(envelope, message)) == (envelope, message)


@given(messages(), st.data())
def test_a_changed_payload_is_malformed_or_in_range(said: tuple[int, Message], data: st.DataObject) -> None:
    payload = bytearray(encode(Envelope(1, 1, 1, said[0]), said[1]))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    try:
        envelope, message = decode(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    except Malformed:
        return
    assert envelope.term <= MAX_TERM
    assert all(entry[2] <= envelope.term for entry in message.get("entries", []))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_a_message(payload: bytes) -> None:
    try:
        decode(payload)
    except Malformed:
        return
    assert payload[0] == 1


class Attack:
    """Unpickled, it would leave a mark."""

    done = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Attack, "done", True)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_never_loaded(protocol: int) -> None:
    attack = pickle.dumps(Attack(), protocol)
    with pytest.raises(Malformed):
        decode(attack)
    command = {"type": "apply_command", "command": b"\x00" + attack}
    decode(encode(Envelope(1, 1, 1, 1), command))
    assert not Attack.done


def append(**changes: Any) -> Message:
    """An append_entries of term 5 after entry 3 of term 2, with `changes`."""
    message = {
        "type": "append_entries", "term": 5, "commit_index": 3, "entries": [(b"\x00a", 4, 3), (b"\x01", 5, 5)],
        "prevLogIdx": 3, "prevLogTerm": 2,
    }  # fmt: skip
    return message | changes


@pytest.mark.parametrize(
    "message",
    [
        append(entries=[(b"\x00a", 4, 6)]),  # an entry of a term that its sender has not reached
        append(entries=[(b"\x00a", 4, 1)]),  # terms that fall
        append(entries=[(b"\x02a", 4, 5)]),  # a membership change
        append(entries=[(b"\x03a", 4, 5)]),  # a code version
        append(entries=[(b"", 4, 5)]),
        append(entries=[(b"\x00" + bytes(MAX_COMMAND_BYTES + 1), 4, 5)]),
        append(commit_index=MAX_INDEX + 1),
        append(prevLogIdx=None, prevLogTerm=None),  # entries after nothing
        {"type": "next_node_idx", "next_node_idx": 1, "success": True, "reset": False},
        {"type": "request_vote", "last_log_index": 4, "last_log_term": 5},
        {"type": "apply_command", "command": b"\x02a"},
        {"type": "apply_command", "command": b"\x00" + bytes(MAX_COMMAND_BYTES + 1)},
        {"type": "append_entries", "commit_index": 9, "serialized": (b"", False, True)},
        {"type": "append_entries", "commit_index": 9, "serialized": (b"garbage" * 9, True, True)},
    ],
)  # fmt: skip
def test_a_message_out_of_range_is_malformed(message: Message) -> None:
    with pytest.raises(Malformed):
        decode(encode(Envelope(1, 1, 1, 5), message))


@pytest.mark.parametrize("envelope", [Envelope(1, 0, 1, 5), Envelope(1, 1, 0, 5), Envelope(1, 1, 1, MAX_TERM + 1)])
def test_an_envelope_out_of_range_is_malformed(envelope: Envelope) -> None:
    with pytest.raises(Malformed):
        decode(encode(envelope, append()))


def test_a_payload_above_the_limit_is_malformed_unread() -> None:
    with pytest.raises(Malformed, match="the limit is"):
        decode(bytes(MAX_PAYLOAD_BYTES + 1))


def test_the_lock_table_of_a_snapshot_is_checked_on_arrival() -> None:
    snapshot = Snapshot((b"\x01", 1, 0), (b"\x01", 2, 5), LockTable(NodeId(1), 1).encode() + b"\x00")
    with pytest.raises(Malformed):
        decode(
            encode(
                Envelope(1, 1, 1, 5),
                {"type": "append_entries", "commit_index": 2, "serialized": (snapshot.encode(), True, True)},
            )
        )

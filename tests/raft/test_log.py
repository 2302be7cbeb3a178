"""RaftLog against a list that knows everything."""

import random

import pytest

from quorumlog.raft import Entry, LogIndex, Term
from quorumlog.raft.log import RaftLog
from quorumlog.raft.ready import Persisted, Ready
from tests.raft.memory_shell import MemoryLog, entry


class Model:
    """The same log as plain lists: what is in it, what the disk holds, and the writes on their way there."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.reader = MemoryLog([entry(1, 1), entry(2, 1)])
        self.log = RaftLog(self.reader)
        self.entries = list(self.reader.stored)
        self.disk = list(self.entries)
        self.writes: list[tuple[Persisted, list[Entry]]] = []
        self.number = 0

    def append(self) -> None:
        term = self.entries[-1].term if self.entries else 1
        added: list[Entry] = []
        for place in range(self.rng.randint(1, 3)):
            term = Term(term + self.rng.choice((0, 0, 1, 2)))
            index = len(self.entries) + 1 + place
            # An index and a term name one entry, so that what was cut may come back the same.
            added.append(entry(index, term, b"x" * ((index * 7 + term) % 5)))
        self.log.append(added)
        self.entries += added

    def truncate(self) -> None:
        first = max(self.log.first_index, 2)
        if first <= len(self.entries):
            since = self.rng.randint(first, len(self.entries))
            self.log.truncate(LogIndex(since))
            del self.entries[since - 1 :]

    def hand_out(self) -> None:
        self.number += 1
        persisted = Persisted(Term(1), self.log.last_term, self.log.last_index, self.number)
        ready = Ready(
            hard_state=None,
            install=None,
            truncate_since=self.log.truncate_since,
            entries=self.log.frozen(),
            configurations=None,
            repaired=False,
            snapshots_wanted=(),
            messages=(),
            messages_after_sync=(),
            commit_index=LogIndex(0),
            read_states=(),
            reads_lost=(),
            must_sync=True,
            persisted=persisted,
        )
        self.reader.write(ready)
        self.log.handed_out(self.number)
        self.writes.append((persisted, list(self.entries)))

    def complete(self) -> None:
        if self.writes:
            for _ in range(self.rng.randint(1, len(self.writes))):
                persisted, self.disk = self.writes.pop(0)
            self.log.on_persisted(persisted)

    def compact(self) -> None:
        upto = self.rng.randint(0, min(self.log.stable_index, len(self.disk)))
        self.log.compact(LogIndex(upto))
        self.reader.compact(upto)

    def check(self) -> None:
        log = self.log
        assert log.last_index == len(self.entries)
        for index in range(max(log.first_index - 1, 1), log.last_index + 1):
            assert log.term(LogIndex(index)) == self.entries[index - 1].term
        durable = self.entries[: log.stable_index]
        first = log.first_index - 1
        assert self.disk[first : log.stable_index] == durable[first:], "stable, but not on the disk"
        if not self.writes and self.rng.random() < 0.3:
            self.hand_out()
            self.log.on_persisted(self.writes.pop()[0])
            self.disk = list(self.entries)
            assert log.stable_index == log.last_index, "all is on the disk, but not stable"

    def check_searches(self) -> None:
        log = self.log
        first = self.rng.randint(log.first_index, log.last_index + 1)
        if first <= log.last_index:
            size_bytes_max = self.rng.randint(1, 12)
            found = log.slice(LogIndex(first), size_bytes_max)
            assert found is not None
            entries, size_bytes = found
            assert list(entries) == self.entries[first - 1 : first - 1 + len(entries)]
            assert size_bytes == sum(len(one.data) for one in entries)
            assert len(entries) == 1 or size_bytes <= size_bytes_max
        upto, term = self.rng.randint(0, log.last_index + 2), self.rng.randint(0, 12)
        expected = min(upto, log.last_index)
        while expected >= log.first_index - 1 and expected > 0 and self.entries[expected - 1].term > term:
            expected -= 1
        assert log.last_at_or_below_term(LogIndex(upto), Term(term)) == expected


@pytest.mark.parametrize("seed", range(150))
def test_it_agrees_with_a_plain_list(seed: int) -> None:
    model = Model(seed)
    actions = (model.append, model.append, model.truncate, model.hand_out, model.complete, model.compact)
    for _ in range(60):
        model.rng.choice(actions)()
        model.check_searches()
        model.check()


def test_entries_are_shared_not_copied() -> None:
    log = RaftLog(MemoryLog())
    log.append([entry(1, 1), entry(2, 1)])
    found = log.slice(LogIndex(1), 100)
    assert found is not None
    assert found[0] is log.frozen()

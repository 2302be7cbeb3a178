"""The shadow of a disk shows what the disk shows, and what it would show after the power has gone."""

import random

from quorumlog.chaos.sim.shadow import GroupShadow
from quorumlog.chaos.sim.storage import SimStorage
from quorumlog.node.storage.entry import decode_header, encode_entry
from quorumlog.node.storage.group_log import GroupLog
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import group_range
from quorumlog.node.storage.log_ends import read_prefix
from quorumlog.node.storage.votes import get_hard_state, put_hard_state
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft import Entry, EntryKind, HardState, LogIndex, NodeId, Term

GROUP = 3
STEPS = 300


def entry(index: int, term: int) -> Entry:
    """An entry without records."""
    payload = b"%d %d" % (index, term)
    data = encode_entry(EntryKind.NOOP, GROUP, index, term, 0, 0, index, payload, crc32c(payload))
    return Entry(LogIndex(index), Term(term), EntryKind.NOOP, data)


def shown(storage: SimStorage) -> dict[int, int]:
    """Terms by index, as they stand in the database."""
    rows = storage.scan(Family.LOG, *group_range(GROUP))
    return {header.index: header.term for header in (decode_header(value) for _, value in rows)}


def test_it_goes_with_a_log_through_everything_that_happens_to_one() -> None:
    rng = random.Random(5)
    storage = SimStorage(bytes(16), lambda steps: None)
    log, term = GroupLog(storage, GROUP), 1
    for _ in range(STEPS):
        batch = storage.new_batch()
        what = rng.choice(["append", "append", "append", "truncate", "compact", "vote", "sync", "crash"])
        first, last = log.first_index(), log.last_index()
        if what == "append":
            term += rng.random() < 0.2
            log.append(batch, [entry(last + 1 + number, term) for number in range(rng.randint(1, 3))])
        elif what == "truncate" and last >= first:
            term += 1
            log.truncate(batch, LogIndex(rng.randint(first, last)))
        elif what == "compact" and last > first + 3:
            log.compact(batch, LogIndex(rng.randint(first, last - 1)))
        elif what == "vote":
            term += 1
            put_hard_state(batch, GROUP, HardState(Term(term), NodeId(1)))
        if what == "sync":
            storage.sync()
        elif what == "crash":
            storage.crash(rng.randint(0, storage.unsynced_batches()))
            log = GroupLog(storage, GROUP)
        elif not batch.is_empty():
            storage.write(batch)
        visible = storage.shadow.visible.get(GROUP, GroupShadow())
        assert visible.terms == shown(storage)
        prefix = read_prefix(storage, GROUP)
        assert visible.first == (prefix[1].next_index if prefix is not None else 1)
        state = get_hard_state(storage, GROUP)
        assert (visible.term, visible.vote) == ((state.term, state.vote) if state is not None else (0, 0))
    durable = storage.shadow.durable[GROUP].terms
    storage.crash()
    assert durable == shown(storage)

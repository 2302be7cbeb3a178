"""Term and vote stand in the database and in the votes file, and after every start in both: either may be lost next."""

import random

import pytest

from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.identity import Founder, Founding, save_identity
from quorumlog.node.storage.interface import Family
from quorumlog.node.storage.keys import MetaRow, meta_key
from quorumlog.node.storage.memory_files import MemoryFileSystem
from quorumlog.node.storage.opened import Opened
from quorumlog.node.storage.opening import open_node
from quorumlog.node.storage.votes import VoteRecord, get_hard_state, put_hard_state
from quorumlog.node.storage.watermark import WATERMARK_NAME
from quorumlog.raft import HardState, NodeId, Term

GROUP = 7
OLD, NEW = HardState(Term(1), NodeId(2)), HardState(Term(2), NodeId(3))


class Folder:
    """The data folder of a member that has one group."""

    def __init__(self) -> None:
        rng = random.Random(1)
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, rng.randbytes)
        self._draw = rng.randbytes
        opened = self.open()
        identity = opened.identity
        founding = Founding(bytes(16), (Founder(identity.node_id, identity.incarnation),))
        save_identity(self.files, identity.founded(founding))
        batch = opened.storage.new_batch()
        batch.put(Family.META, meta_key(GROUP, MetaRow.REPLICA), b"")
        opened.storage.write(batch)
        write(opened, OLD, database=True, votes=True)
        opened.close()

    def open(self) -> Opened:
        return open_node(self.files, self.database, NodeId(1), self._draw)

    def crash(self) -> None:
        """The power goes; of the database everything is left, of the files what was synced."""
        assert self.database.storage is not None
        self.files.crash()
        self.database.crash(self.database.storage.unsynced_batches())


def write(opened: Opened, state: HardState, *, database: bool, votes: bool) -> None:
    """Write a term and vote, as a turn does, and let the one or the other reach the disk."""
    batch = opened.storage.new_batch()
    put_hard_state(batch, GROUP, state)
    if database:
        opened.storage.write(batch)
    opened.votes.append([VoteRecord(GROUP, state.term, state.vote)])
    if votes:
        opened.votes.sync()


@pytest.mark.parametrize("in_repair", [False, True])
@pytest.mark.parametrize("database", [False, True])
def test_what_a_crash_left_in_one_of_them_is_written_to_the_other(*, database: bool, in_repair: bool) -> None:
    folder = Folder()
    write(folder.open(), NEW, database=database, votes=not database)
    folder.crash()
    if in_repair:
        folder.files.remove(WATERMARK_NAME)
        folder.files.sync_folder()
    folder.open()
    assert folder.database.storage is not None
    folder.files.crash()
    folder.database.crash()
    opened = folder.open()
    assert get_hard_state(opened.storage, GROUP) == NEW
    assert opened.votes.get(GROUP) == NEW

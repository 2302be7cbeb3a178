"""The database of a simulated node: the one in memory, with a shadow and a watcher."""

from __future__ import annotations

from collections.abc import Callable

from quorumlog.chaos.sim.shadow import Shadow, Step, steps_of
from quorumlog.node.errors import StorageBusy
from quorumlog.node.storage.interface import WriteBatch
from quorumlog.node.storage.memory import MemoryStorage, SyncToken

OnWrite = Callable[[list[Step]], None]


class SimStorage(MemoryStorage):
    """A `MemoryStorage` whose every batch is told to `on_write` just before it is there.

    While `refusing`, it pushes every write back.
    """

    def __init__(self, database_id: bytes, on_write: OnWrite) -> None:
        self.shadow = Shadow()
        self.refusing = False
        self._on_write = on_write
        super().__init__(database_id)

    def write(self, batch: WriteBatch) -> None:
        """See Storage."""
        if self.refusing:
            raise StorageBusy("made to push back")
        steps = steps_of(batch.changes)
        before = self.unsynced_batches()
        try:
            super().write(batch)
        finally:
            if self.unsynced_batches() > before:
                if steps:
                    self._on_write(steps)
                self.shadow.wrote(steps)

    def finish_sync(self, token: SyncToken) -> None:
        """See MemoryStorage."""
        super().finish_sync(token)
        self.shadow.synced(self.unsynced_batches())

    def crash(self, keep: int = 0) -> None:
        """See MemoryStorage."""
        super().crash(keep)
        self.refusing = False
        self.shadow.crashed(keep)

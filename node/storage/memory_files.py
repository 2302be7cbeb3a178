"""A data folder in memory that crashes the way disks do, for tests and the simulator."""

from __future__ import annotations

from random import Random

from quorumlog.node.errors import StorageFailed, StorageLocked
from quorumlog.node.storage.files import DurableFile, folder_of, write_replacement

_Write = tuple[int, bytes | None]
"""(offset, data) of a write, or (size, None) of a cut."""


class SimulatedCrash(BaseException):
    """The machine stopped here. Not an Exception, so that no handler on the way mistakes it for a failure."""


def _apply(content: bytearray, write: _Write) -> None:
    offset, data = write
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class _Inode:
    """The bytes of a file: as they are read now, and as the disk holds them."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.synced = bytearray()
        self.unsynced: list[_Write] = []
        self.writes_synced = 0

    def write(self, write: _Write) -> None:
        _apply(self.content, write)
        self.unsynced.append(write)

    def sync_upto(self, writes: int) -> None:
        """Make the first `writes` writes of this file's life durable; fewer than are already is nothing to do."""
        count = max(0, writes - self.writes_synced)
        for write in self.unsynced[:count]:
            _apply(self.synced, write)
        del self.unsynced[:count]
        self.writes_synced += count

    def crash(self, random: Random | None) -> None:
        """Keep what is synced and, of each later write on its own, all, a first part, only its length, or nothing."""
        for write in self.unsynced if random else ():
            assert random is not None
            offset, data = write
            fate = random.choice(("whole", "torn", "zeros", "gone"))
            if fate == "whole" or (data is None and fate != "gone"):
                _apply(self.synced, write)
            elif data is not None and fate == "torn":
                _apply(self.synced, (offset, data[: random.randrange(len(data) + 1)]))
            elif data is not None and fate == "zeros":
                _apply(self.synced, (offset, bytes(len(data))))
        self.writes_synced += len(self.unsynced)
        self.unsynced = []
        self.content = bytearray(self.synced)


SyncToken = tuple[_Inode, int]
"""What `finish_sync` needs of `begin_sync`."""


class _MemoryFile:
    """A handle. It dies with the crash of its file system."""

    def __init__(self, files: MemoryFileSystem, name: str, inode: _Inode) -> None:
        self._files = files
        self._name = name
        self._inode = inode
        self._boot = files.crashes
        self._closed = False
        self._sync_failed = False

    def _usable(self) -> _Inode:
        assert not self._closed, f"{self._name} is closed"
        assert self._boot == self._files.crashes, f"{self._name} was opened before the crash"
        if self._sync_failed:
            raise StorageFailed(f"{self._name}: an earlier sync failed, nothing is known of it; start the node again")
        return self._inode

    def size_bytes(self) -> int:
        return len(self._usable().content)

    def read_all(self) -> bytes:
        return bytes(self._usable().content)

    def append(self, data: bytes) -> None:
        self.write_at(self.size_bytes(), data)

    def write_at(self, offset: int, data: bytes) -> None:
        inode = self._usable()
        self._files.step()
        inode.write((offset, bytes(data)))

    def truncate(self, size_bytes: int) -> None:
        inode = self._usable()
        assert size_bytes <= len(inode.content), f"{self._name} is shorter than {size_bytes} bytes"
        self._files.step()
        inode.write((size_bytes, None))

    def sync(self) -> None:
        inode = self._usable()
        self._files.step()
        if self._files.fail_next_sync:
            self._files.fail_next_sync = False
            self._sync_failed = True
            raise StorageFailed(f"syncing {self._name} failed: made to fail; start the node again")
        inode.sync_upto(inode.writes_synced + len(inode.unsynced))

    def close(self) -> None:
        self._closed = True


class MemoryFileSystem:
    """A data folder in memory.

    `crash()` is a power cut followed by a start: handles and the lock are gone, and unsynced bytes and names are lost
    or kept as the given Random says. With `crash_after_steps` the machine stops by itself: the change after that many
    further ones raises SimulatedCrash, as does everything after it until `crash()`. `steps` counts changes, so a test
    can first count and then stop at every one of them. With `fail_next_sync` the next sync of a file fails once.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.crashes = 0
        self.crash_after_steps: int | None = None
        self.fail_next_sync = False
        self._locked = False
        self._names: dict[str, _Inode] = {}
        self._synced_names: dict[str, _Inode] = {}
        self._unsynced_names: list[dict[str, _Inode | None]] = []

    def step(self) -> None:
        """Count one change, or stop the machine here."""
        if self.crash_after_steps is not None:
            if self.crash_after_steps == 0:
                raise SimulatedCrash
            self.crash_after_steps -= 1
        self.steps += 1

    def crash(self, random: Random | None = None) -> None:
        """Cut the power and start again.

        Args:
            random: says which unsynced writes and names are kept, each on its own; None drops all of them.
        """
        for changes in self._unsynced_names:
            if random is not None and random.random() < 0.5:
                self._change(self._synced_names, changes)
        self._unsynced_names = []
        self._names = dict(self._synced_names)
        for inode in {id(inode): inode for inode in self._names.values()}.values():
            inode.crash(random)
        self.crashes += 1
        self.crash_after_steps = None
        self.fail_next_sync = False
        self._locked = False

    def begin_sync(self, name: str) -> SyncToken:
        """Start a sync of a file whose end comes later in virtual time; it covers the writes made until now."""
        inode = self._names[name]
        return inode, inode.writes_synced + len(inode.unsynced)

    def finish_sync(self, token: SyncToken) -> None:
        """Let the sync of `begin_sync` end."""
        self.step()
        inode, writes = token
        inode.sync_upto(writes)

    def lock(self) -> None:
        """Claim the folder."""
        if self._locked:
            raise StorageLocked("data folder (in memory) is in use: stop that node, or give this one another folder")
        self._locked = True

    def close(self) -> None:
        """Give the lock back."""
        self._locked = False

    def describe(self, name: str = "") -> str:
        """The name, marked as one of a folder in memory."""
        return f"memory:/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file or folder of that name is there."""
        return name in self._names or any(other.startswith(name + "/") for other in self._names)

    def list_names(self, folder: str) -> list[str]:
        """Sorted names in `folder`."""
        prefix = folder + "/" if folder else ""
        return sorted({name[len(prefix) :].split("/")[0] for name in self._names if name.startswith(prefix)})

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""
        inode = self._names.get(name)
        return None if inode is None else bytes(inode.content)

    def create(self, name: str) -> DurableFile:
        """Open a new, empty file."""
        inode = _Inode()
        self._rename_step({name: inode})
        return _MemoryFile(self, name, inode)

    def open(self, name: str) -> DurableFile:
        """Open a file that exists."""
        if name not in self._names:
            raise StorageFailed(f"opening {name} failed: no such file; check the data folder")
        return _MemoryFile(self, name, self._names[name])

    def rename(self, source: str, target: str) -> None:
        """Rename within one folder."""
        assert folder_of(source) == folder_of(target), f"{source} and {target} are in different folders: move() it"
        self._rename_step({source: None, target: self._names[source]})

    def remove(self, name: str) -> None:
        """Remove the name of a file, if it is there."""
        if name in self._names:
            self._rename_step({name: None})

    def sync_folder(self, folder: str = "") -> None:
        """Make every change of names in `folder` durable."""
        self.step()
        self._sync_names({folder})

    def replace(self, name: str, data: bytes) -> None:
        """Let `name` hold exactly `data`, durably."""
        write_replacement(self, name, data)

    def move(self, source: str, target: str) -> None:
        """Move a file or a whole folder, durably: one step that is seen in the new place or in the old one."""
        moved: dict[str, _Inode | None] = {}
        for name, inode in self._names.items():
            if name == source or name.startswith(source + "/"):
                moved[name] = None
                moved[target + name[len(source) :]] = inode
        assert moved, f"{source} is not there"
        self._rename_step(moved)
        self.step()
        self._sync_names({folder_of(source), folder_of(target)}, moved)

    def _rename_step(self, changes: dict[str, _Inode | None]) -> None:
        self.step()
        self._change(self._names, changes)
        self._unsynced_names.append(changes)

    def _sync_names(self, folders: set[str], moved: dict[str, _Inode | None] | None = None) -> None:
        kept = []
        for changes in self._unsynced_names:
            if changes is moved or all(folder_of(name) in folders for name in changes):
                self._change(self._synced_names, changes)
            else:
                kept.append(changes)
        self._unsynced_names = kept

    @staticmethod
    def _change(names: dict[str, _Inode], changes: dict[str, _Inode | None]) -> None:
        for name, inode in changes.items():
            if inode is None:
                names.pop(name, None)
            else:
                names[name] = inode

"""Opening a data folder in memory: every rule of birth, REPAIR and wiping, and every crash point on the way."""

from collections.abc import Callable
from random import Random

import pytest

from quorumlog.node.errors import StorageLocked
from quorumlog.node.storage.database import MemoryDatabase
from quorumlog.node.storage.identity import (
    FormatTooNew,
    Founder,
    Founding,
    IdentityState,
    WrongDataFolder,
    load_identity,
    save_identity,
)
from quorumlog.node.storage.interface import Family, RecoveryMode
from quorumlog.node.storage.memory import MemoryStorage
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash
from quorumlog.node.storage.opened import NodeState, Opened, Severity
from quorumlog.node.storage.opening import CREATING_NAME, open_node
from quorumlog.node.storage.repair import is_whole, mark_whole
from quorumlog.node.storage.votes import VoteRecord, put_hard_state
from quorumlog.node.storage.watermark import NEVER_REPAIRED, NO_DATABASE, WATERMARK_NAME, Watermark
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import HardState, NodeId, Term

NODE = NodeId(1)
CLUSTER = b"c" * 16
GROUP = 7


class Machine:
    """A data folder, its database and a power switch."""

    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        self.files = MemoryFileSystem()
        self.database = MemoryDatabase(self.files, self.random.randbytes)

    def open(self, cluster_id: bytes | None = None) -> Opened:
        return open_node(self.files, self.database, NODE, self.random.randbytes, cluster_id)

    def crash(self, random: Random | None = None) -> None:
        self.files.crash(random)
        self.database.crash()

    @property
    def storage(self) -> MemoryStorage:
        assert self.database.storage is not None
        return self.database.storage

    def quarantine(self) -> list[str]:
        return self.files.list_names("quarantine")

    def reason(self, folder: str) -> str:
        data = self.files.read(f"quarantine/{folder}/reason.txt")
        assert data is not None
        return data.decode()


def found(opened: Opened) -> None:
    """Make the node the only voter of a new cluster."""
    voters = (Founder(NODE, opened.identity.incarnation),)
    save_identity(opened.files, opened.identity.founded(Founding(CLUSTER, voters)))


def work(opened: Opened, key: bytes = b"k", term: int = 3, vote: int = 2) -> None:
    """Write, vote and sync as a replica does, and publish what the sync covers."""
    state = HardState(Term(term), NodeId(vote))
    batch = opened.storage.new_batch()
    batch.put(Family.LOG, key, b"entry")
    put_hard_state(batch, GROUP, state)
    mark_whole(batch, GROUP, opened.repair_id)
    opened.storage.write(batch)
    opened.votes.append([VoteRecord(GROUP, state.term, state.vote)])
    sequence = opened.storage.sequence_number()
    opened.storage.sync()
    opened.votes.sync()
    opened.watermark.publish(sequence)


def member_machine(seed: int = 1) -> Machine:
    """A machine that was a working member until the power was cut."""
    machine = Machine(seed)
    opened = machine.open()
    found(opened)
    work(opened)
    machine.crash()
    return machine


def lose_database_tail(machine: Machine) -> None:
    """An older copy of the database, as after its log was cut: the same id, a lower sequence number."""
    database_id = machine.storage.database_id()
    machine.database.storage = MemoryStorage(database_id)


def lose(machine: Machine, name: str) -> None:
    machine.files.remove(name)
    machine.files.sync_folder()


def damage(machine: Machine, name: str) -> None:
    file = machine.files.open(name)
    file.write_at(0, b"\xff" * file.size_bytes())
    file.sync()


def incarnation_of(machine: Machine) -> bytes:
    identity = load_identity(machine.files)
    assert identity is not None
    return identity.incarnation


def errors(opened: Opened) -> str:
    return "\n".join(f"{find.message} => {find.fix}" for find in opened.findings if find.severity is Severity.ERROR)


# --- birth ------------------------------------------------------------------------------------------------------------


def test_an_empty_folder_makes_a_node_that_waits_and_belongs_to_no_cluster() -> None:
    opened = Machine().open()
    assert opened.state is NodeState.WAITING
    assert opened.identity.state is IdentityState.WAITING
    assert opened.repair_id == NEVER_REPAIRED
    assert opened.findings == ()


def test_a_waiting_node_keeps_its_incarnation_over_restarts() -> None:
    machine = Machine()
    first = machine.open()
    first.close()
    second = machine.open()
    assert second.state is NodeState.WAITING
    assert second.identity == first.identity


def test_two_empty_folders_of_one_node_are_two_incarnations() -> None:
    assert Machine(1).open().identity.incarnation != Machine(2).open().identity.incarnation


def test_a_founded_node_comes_back_whole() -> None:
    machine = member_machine()
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    assert opened.identity.cluster_id == CLUSTER
    assert opened.votes.get(GROUP) == HardState(Term(3), NodeId(2))
    assert opened.findings == ()


def test_a_clean_stop_publishes_the_last_write() -> None:
    machine = Machine()
    opened = machine.open()
    batch = opened.storage.new_batch()
    batch.put(Family.LOG, b"a", b"b")
    opened.storage.write(batch)
    opened.close()
    assert Watermark.open(machine.files).mark.sequence == machine.storage.sequence_number()


def crash_points(run: Callable[[Machine], object], make: Callable[[int], Machine]) -> int:
    """Number of steps that `run` takes on a machine of `make`."""
    machine = make(1)
    before = machine.files.steps
    run(machine)
    return machine.files.steps - before


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_any_step_of_making_a_folder_never_leaves_half_an_identity(seed: int) -> None:
    for stop in range(crash_points(Machine.open, Machine)):
        machine = Machine(seed)
        machine.files.crash_after_steps = stop
        with pytest.raises(SimulatedCrash):
            machine.open()
        machine.crash(Random(seed))
        before = load_identity(machine.files)
        opened = machine.open()
        assert opened.state is NodeState.WAITING, f"seed {seed} stop {stop}"
        assert before is None or opened.identity == before
        assert opened.findings == ()
        assert not machine.files.exists(CREATING_NAME)
        found(opened)
        work(opened)
        machine.crash()
        assert machine.open().state is NodeState.WHOLE


# --- refused, and left as it is ---------------------------------------------------------------------------------------


def test_the_folder_of_another_node_is_refused_and_unlocked() -> None:
    machine = member_machine()
    steps = machine.files.steps
    for _ in range(2):
        with pytest.raises(WrongDataFolder, match="belongs to node 1, but this node is configured as node 2"):
            open_node(machine.files, machine.database, NodeId(2), machine.random.randbytes)
    assert machine.files.steps == steps


def test_the_folder_of_another_cluster_is_refused() -> None:
    machine = member_machine()
    with pytest.raises(WrongDataFolder, match=f"belongs to cluster {CLUSTER.hex()}, not to {(b'x' * 16).hex()}"):
        machine.open(cluster_id=b"x" * 16)
    assert machine.open(cluster_id=CLUSTER).state is NodeState.WHOLE


def test_a_newer_format_is_refused_and_nothing_is_touched() -> None:
    machine = member_machine()
    text = b'{"format_version": 9, "oldest_version": 9}\n'
    machine.files.replace("identity", text + b"crc32c %08x\n" % crc32c(text))
    steps = machine.files.steps
    with pytest.raises(FormatTooNew, match="format version 9"):
        machine.open()
    assert machine.files.steps == steps


def test_a_folder_that_is_open_is_refused() -> None:
    machine = Machine()
    machine.open()
    with pytest.raises(StorageLocked, match="in use"):
        machine.open()


# --- REPAIR -----------------------------------------------------------------------------------------------------------


def in_repair(machine: Machine, why: str) -> Opened:
    """Open, and check all that holds of a node that enters REPAIR."""
    incarnation = incarnation_of(machine)
    opened = machine.open()
    assert opened.state is NodeState.REPAIR
    assert opened.identity.incarnation == incarnation
    assert opened.repair_id != NEVER_REPAIRED
    assert not is_whole(opened.storage, GROUP, opened.repair_id)
    assert why in errors(opened)
    assert "keep the other nodes running" in errors(opened)
    mark = Watermark.open(machine.files).mark
    assert mark.repair_id == opened.repair_id
    assert mark.database_id == opened.storage.database_id()
    assert mark.sequence <= opened.storage.sequence_number()
    return opened


def test_a_database_below_its_mark_enters_repair_and_keeps_what_it_has() -> None:
    machine = member_machine()
    lose_database_tail(machine)
    in_repair(machine, "ends at sequence number 1, but had safely reached 5")
    assert machine.quarantine() == []


def test_a_database_of_another_id_enters_repair_and_is_put_aside() -> None:
    machine = member_machine()
    machine.database.storage = foreign = MemoryStorage(b"f" * 16)
    opened = in_repair(machine, f"has id {(b'f' * 16).hex()}")
    assert opened.storage.database_id() != b"f" * 16
    assert machine.database.moved == {"quarantine/0001-database": foreign}
    assert "nothing in it can be used" in errors(opened)


def test_a_missing_database_enters_repair() -> None:
    machine = member_machine()
    machine.database.storage = None
    in_repair(machine, "the database is missing")


def test_a_database_that_neither_mode_opens_enters_repair_and_is_put_aside() -> None:
    machine = member_machine()
    old = machine.storage
    machine.database.refusing = frozenset(RecoveryMode)
    in_repair(machine, "the database cannot be opened")
    assert machine.database.moved == {"quarantine/0002-database": old}
    assert machine.database.wal_copies == ["quarantine/0001-wal"]
    assert "cannot be opened" in machine.reason("0002-database")


def test_a_database_that_only_the_lenient_mode_opens_is_whole_when_it_is_not_below_its_mark() -> None:
    machine = member_machine()
    machine.database.refusing = frozenset({RecoveryMode.TOLERATE_TAIL})
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    assert machine.database.wal_copies == ["quarantine/0001-wal"]
    (finding,) = opened.findings
    assert finding.severity is Severity.WARNING
    assert "copies are in memory:/quarantine/0001-wal" in finding.message


@pytest.mark.parametrize("fault", [lose, damage])
def test_a_lost_watermark_enters_repair(fault: Callable[[Machine, str], None]) -> None:
    machine = member_machine()
    fault(machine, WATERMARK_NAME)
    in_repair(machine, "nobody knows how far the database had come")


def test_repair_outlives_restarts_until_every_replica_has_proved_itself() -> None:
    machine = member_machine()
    lose(machine, WATERMARK_NAME)
    repair_id = in_repair(machine, "watermark").repair_id
    for _ in range(2):
        machine.crash()
        opened = machine.open()
        assert opened.state is NodeState.REPAIR
        assert opened.repair_id == repair_id
        assert "entered REPAIR at an earlier start" in errors(opened)
        assert "[7]" in errors(opened)
    batch = opened.storage.new_batch()
    mark_whole(batch, GROUP, repair_id)
    opened.storage.write(batch)
    machine.crash()
    assert machine.open().state is NodeState.REPAIR, "the row was not synced"
    batch = machine.storage.new_batch()
    mark_whole(batch, GROUP, repair_id)
    machine.storage.write(batch)
    machine.storage.sync()
    machine.crash()
    assert machine.open().state is NodeState.WHOLE


def test_an_empty_new_database_does_not_look_whole_at_the_next_start() -> None:
    machine = member_machine()
    machine.database.storage = None
    machine.open()
    machine.crash()
    assert machine.open().state is NodeState.REPAIR


def test_a_second_loss_takes_back_what_the_first_repair_had_healed() -> None:
    machine = member_machine()
    lose(machine, WATERMARK_NAME)
    opened = machine.open()
    work(opened)
    assert is_whole(opened.storage, GROUP, opened.repair_id)
    machine.crash()
    lose(machine, WATERMARK_NAME)
    again = machine.open()
    assert again.state is NodeState.REPAIR
    assert not is_whole(again.storage, GROUP, again.repair_id)


def replaced_database(machine: Machine) -> None:
    machine.database.storage = MemoryStorage(b"f" * 16)


FORGETTING: list[Callable[[Machine], None]] = [
    lose_database_tail,
    replaced_database,
    lambda machine: setattr(machine.database, "storage", None),
    lambda machine: setattr(machine.database, "refusing", frozenset(RecoveryMode)),
    lambda machine: lose(machine, WATERMARK_NAME),
]


@pytest.mark.parametrize("forget", FORGETTING)
@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_step_of_entering_repair_still_ends_in_repair(
    forget: Callable[[Machine], None], seed: int
) -> None:
    def forgetful(seed: int) -> Machine:
        machine = member_machine(seed)
        forget(machine)
        return machine

    for stop in range(crash_points(Machine.open, forgetful)):
        machine = forgetful(seed)
        machine.files.crash_after_steps = stop
        with pytest.raises(SimulatedCrash):
            machine.open()
        machine.crash(Random(seed))
        opened = machine.open()
        assert opened.state is NodeState.REPAIR, f"seed {seed} stop {stop}"
        assert not is_whole(opened.storage, GROUP, opened.repair_id)
        assert opened.votes.get(GROUP) == HardState(Term(3), NodeId(2))
        assert opened.watermark.mark.database_id == opened.storage.database_id() != NO_DATABASE


def test_a_new_database_is_never_there_before_a_repair_id_is_durable() -> None:
    def without_database(seed: int) -> Machine:
        machine = member_machine(seed)
        machine.database.refusing = frozenset(RecoveryMode)
        return machine

    seen = 0
    for stop in range(crash_points(Machine.open, without_database)):
        machine = without_database(1)
        old = machine.storage
        machine.files.crash_after_steps = stop
        with pytest.raises(SimulatedCrash):
            machine.open()
        machine.crash()
        if machine.database.storage not in (None, old):
            seen += 1
            mark = Watermark.open(machine.files).mark
            assert mark.repair_id != NEVER_REPAIRED, f"stop {stop}"
            assert mark.database_id in (NO_DATABASE, machine.storage.database_id())
    assert seen > 0


# --- votes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [lose, damage])
def test_lost_votes_beside_a_whole_database_are_made_again_from_it(fault: Callable[[Machine, str], None]) -> None:
    machine = member_machine()
    fault(machine, "votes")
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    assert opened.votes.get(GROUP) == HardState(Term(3), NodeId(2))
    (finding,) = opened.findings
    assert "made again from the database" in finding.message
    machine.crash()
    assert machine.open().votes.get(GROUP) == HardState(Term(3), NodeId(2))


def test_a_vote_that_only_the_database_holds_is_put_into_the_votes_file() -> None:
    machine = member_machine()
    batch = machine.storage.new_batch()
    put_hard_state(batch, GROUP, HardState(Term(9), NodeId(3)))
    machine.storage.write(batch)
    machine.storage.sync()
    assert machine.open().votes.get(GROUP) == HardState(Term(9), NodeId(3))
    machine.crash()
    lose_database_tail(machine)
    assert in_repair(machine, "sequence number").votes.get(GROUP) == HardState(Term(9), NodeId(3))


def test_a_lost_write_ahead_log_forgets_no_vote() -> None:
    machine = member_machine()
    machine.database.storage = MemoryStorage(b"f" * 16)
    assert in_repair(machine, "has id").votes.get(GROUP) == HardState(Term(3), NodeId(2))


# --- wiped ------------------------------------------------------------------------------------------------------------


def wiped(machine: Machine, former: bytes, why: str) -> Opened:
    """Open, and check all that holds of a node that comes back as a new incarnation."""
    opened = machine.open()
    assert opened.state is NodeState.WIPED
    assert opened.identity.state is IdentityState.WAITING
    assert opened.identity.incarnation != former
    assert opened.repair_id == NEVER_REPAIRED
    assert opened.votes.rows() == {}
    assert opened.storage.get(Family.LOG, b"k") is None
    assert why in errors(opened)
    assert opened.identity.incarnation.hex() in errors(opened)
    assert "quarantine/" in errors(opened)
    return opened


@pytest.mark.parametrize("fault", [lose, damage])
def test_a_lost_identity_makes_a_new_incarnation_and_keeps_the_database_in_quarantine(
    fault: Callable[[Machine, str], None],
) -> None:
    machine = member_machine()
    former, database = incarnation_of(machine), machine.storage
    fault(machine, "identity")
    wiped(machine, former, "identity file")
    assert machine.database.moved == {"quarantine/0001-wiped": database}
    assert {"votes", "watermark", "reason.txt"} <= set(machine.files.list_names("quarantine/0001-wiped"))


@pytest.mark.parametrize("fault", [lose, damage])
@pytest.mark.parametrize("forget", FORGETTING)
def test_lost_votes_and_a_database_that_is_not_whole_make_a_new_incarnation(
    fault: Callable[[Machine, str], None], forget: Callable[[Machine], None]
) -> None:
    machine = member_machine()
    former = incarnation_of(machine)
    fault(machine, "votes")
    forget(machine)
    wiped(machine, former, "nobody knows what this node has voted")


def test_after_being_wiped_the_node_waits_as_any_new_one() -> None:
    machine = member_machine()
    lose(machine, "identity")
    identity = machine.open().identity
    machine.crash()
    opened = machine.open()
    assert (opened.state, opened.identity, opened.findings) == (NodeState.WAITING, identity, ())


def test_a_waiting_node_with_a_damaged_database_starts_over() -> None:
    machine = Machine()
    former = machine.open().identity.incarnation
    machine.crash()
    machine.database.storage = None
    wiped(machine, former, "no promise is lost")


def test_the_wiped_folder_of_a_known_node_is_a_stranger_that_waits() -> None:
    former = incarnation_of(member_machine())
    empty = Machine(2).open()
    assert empty.state is NodeState.WAITING
    assert empty.identity.incarnation != former


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_at_any_step_of_being_wiped_never_brings_the_old_incarnation_back_without_its_votes(seed: int) -> None:
    def without_votes(seed: int) -> Machine:
        machine = member_machine(seed)
        lose(machine, "votes")
        lose_database_tail(machine)
        return machine

    for stop in range(crash_points(Machine.open, without_votes)):
        machine = without_votes(seed)
        former = incarnation_of(machine)
        machine.files.crash_after_steps = stop
        with pytest.raises(SimulatedCrash):
            machine.open()
        machine.crash(Random(seed))
        opened = machine.open()
        assert opened.state in (NodeState.WIPED, NodeState.WAITING), f"seed {seed} stop {stop}"
        assert opened.identity.incarnation != former
        assert opened.storage.get(Family.LOG, b"k") is None
        assert len(machine.database.moved) == 1, "the former database is kept, once"
        machine.crash()
        assert machine.open().state is NodeState.WAITING


# --- the watermark's slots --------------------------------------------------------------------------------------------


def test_a_torn_slot_leaves_the_other_one_and_is_told() -> None:
    machine = member_machine()
    file = machine.files.open(WATERMARK_NAME)
    file.write_at(40, b"\xff\xff")
    file.sync()
    opened = machine.open()
    assert opened.state is NodeState.WHOLE
    assert "one of the two slots" in opened.findings[0].message

"""Groups under random trouble: joins, leaves, stuck loops, slow releases, broken streams, lost coordinators.

Every partition is a log that members read from the committed offset on, as consumers do. Then:

- at no moment can two members commit the same partition, tried out with every member and every epoch there ever was;
- nothing below a committed offset was skipped, and a committed offset never goes back, as it would if a former owner's
  commit slipped in;
- what a new coordinator replays is what the old one had;
- when the trouble ends, everything is read to the end, evenly shared.
"""

import random

import pytest

from quorumlog.node.groups.coordinator import GroupCoordinator
from quorumlog.node.groups.session import Session, SessionState
from quorumlog.node.groups.state import GroupChange, GroupsState, Result
from quorumlog.node.groups.topics import TopicPartition
from quorumlog.proto import client_pb2 as pb
from quorumlog.proto import internal_pb2
from tests.node.groups.world import FakeMember, World

LOG_END_OFFSET = 60
TIMEOUT_SECONDS = 2.0
STEPS = 300


class Reader(FakeMember):
    """A member that reads: `working` holds its positions. `mute` makes what it says linger on a half-open stream."""

    def __init__(self, world: World, read: dict[TopicPartition, set[int]], rng: random.Random) -> None:
        super().__init__(world, ("orders", "clicks") if rng.random() < 0.7 else ("orders",))
        self.read = read
        self.rng = rng
        self.left_off: dict[TopicPartition, int] = {}
        self.lingering: list[tuple[GroupCoordinator, Session, pb.GroupRequest]] = []

    def may_speak(self) -> bool:
        """Whether its present session has been welcomed."""
        return self.session is not None and self.session.state is SessionState.JOINED

    def process(self) -> None:
        for partition, position in self.working.items():
            upto = min(LOG_END_OFFSET, position + self.rng.randint(0, 3))
            self.read[partition].update(range(position, upto))
            self.working[partition] = upto

    def take_over(self, assignment: pb.GroupAssignment) -> None:
        before = set(self.working)
        super().take_over(assignment)
        for partition in self.working.keys() - before:
            self.working[partition] = max(self.working[partition], self.left_off.get(partition, 0))

    def release(self, *partitions: TopicPartition) -> None:
        if not self.may_speak():
            return
        mine = [partition for partition in partitions if partition in self.working]
        self.commit(*((partition, self.working[partition]) for partition in mine))
        self.left_off.update((partition, self.working[partition]) for partition in mine)
        super().release(*partitions)

    def leave(self) -> None:
        if self.may_speak():
            super().leave()
            self.forget_everything()

    def commit_some(self) -> None:
        if not self.may_speak():
            return
        chosen = [partition for partition in sorted(self.working) if self.rng.random() < 0.6]
        self.commit(*((partition, self.working[partition]) for partition in chosen))

    def commit_all(self) -> None:
        if self.may_speak():
            self.commit(*sorted(self.working.items()))

    def half_open(self) -> None:
        """The client has lost its stream, the coordinator has not noticed: the last words are still on their way."""
        if not self.may_speak() or self.session is None or self.coordinator is None:
            return
        commit = pb.GroupCommit(member_epoch=self.member_epoch)
        for partition, position in sorted(self.working.items()):
            commit.offsets.add(partition=self.wire(partition), offset=position)
        self.lingering.append((self.coordinator, self.session, pb.GroupRequest(commit=commit)))
        self.session = None

    def deliver_lingering(self) -> None:
        lingering, self.lingering = self.lingering, []
        for coordinator, session, request in lingering:
            coordinator.on_request(session, request, self.world.now)

    def come_back(self) -> None:
        if self.session is not None:
            return
        self.join(timeout_seconds=TIMEOUT_SECONDS)

    def hear(self, response: pb.GroupResponse) -> None:
        super().hear(response)
        if not response.HasField("error"):
            return
        assert response.error.code in (pb.UNKNOWN_MEMBER, pb.NOT_COORDINATOR), response.error
        self.session = None
        if response.error.code == pb.UNKNOWN_MEMBER:
            self.forget_everything()

    def forget_everything(self) -> None:
        self.member_id, self.member_epoch = "", 0
        self.working, self.left_off = {}, {}


class Trouble:
    """One run: the world, its readers, and the checks after every applied command."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(seed, apply_at_once=False)
        self.world.directory.create("orders", 5)
        self.world.directory.create("clicks", 2)
        self.read: dict[TopicPartition, set[int]] = {each: set() for each in self.world.partitions("orders", "clicks")}
        self.committed = dict.fromkeys(self.read, 0)
        self.member_ids: set[str] = set()
        self.applied = 0
        self.readers = [self.new_reader() for _ in range(4)]
        self.world.on_applied = self.check

    def new_reader(self) -> Reader:
        reader = Reader(self.world, self.read, self.rng)
        reader.come_back()
        return reader

    def check(self, command: internal_pb2.GroupCommand, result: Result) -> None:
        if command.HasField("add_member"):
            self.member_ids.add(command.add_member.member_id)
        if command.HasField("commit_offsets") and isinstance(result, GroupChange):
            refused = {partition for partition, _ in result.refused}
            for stored in command.commit_offsets.offsets:
                partition = TopicPartition.of(stored.partition)
                if partition not in refused:
                    assert stored.offset >= self.committed[partition], (
                        f"{partition} goes back: a former owner committed"
                    )
                    assert self.read[partition] >= set(range(stored.offset)), f"{partition}: records were skipped"
                    self.committed[partition] = stored.offset
        self.applied += 1
        if self.applied % 20 == 0:
            self.check_one_committer()

    def check_one_committer(self) -> None:
        """Try every member that ever was, under every epoch that ever was, on a copy."""
        copy = GroupsState()
        copy.restore(self.world.state.snapshot())
        group = copy.groups["billing"]
        committers: dict[TopicPartition, str] = {}
        for member_id in sorted(self.member_ids):
            # Who is gone is refused whatever it says, so one epoch will do.
            first_epoch = 0 if member_id in group.members else group.group_epoch
            for epoch in range(first_epoch, group.group_epoch + 2):
                commit = internal_pb2.CommitOffsets(member_id=member_id, member_epoch=epoch)
                for partition in self.read:
                    commit.offsets.add(partition=partition.stored(), offset=1)
                result = copy.apply(0, internal_pb2.GroupCommand(group="billing", commit_offsets=commit))
                if isinstance(result, GroupChange):
                    for partition in self.read.keys() - {partition for partition, _ in result.refused}:
                        assert committers.setdefault(partition, member_id) == member_id, f"two can commit {partition}"

    def step(self) -> None:
        reader = self.rng.choice(self.readers)
        trouble = self.rng.random()
        if trouble < 0.04:
            reader.break_stream()
        elif trouble < 0.08:
            reader.half_open()
        elif trouble < 0.10:
            reader.leave()
        elif trouble < 0.13:
            reader.loop_runs = not reader.loop_runs
        elif trouble < 0.17:
            reader.releases = not reader.releases
        elif trouble < 0.22:
            reader.come_back()
        elif trouble < 0.24 and len(self.readers) < 7:
            self.readers.append(self.new_reader())
        elif trouble < 0.26:
            self.world.elect(self.rng.randint(0, len(self.world.pending)), from_snapshot=self.rng.random() < 0.5)
        elif trouble < 0.32:
            reader.deliver_lingering()
        elif trouble < 0.40 and reader.revoked:
            reader.release(*reader.revoked)
        elif trouble < 0.60:
            reader.commit_some()
        else:
            reader.process()
        self.world.apply(self.rng.choice([0, 0, 1, 2, 5, None]))
        if self.rng.random() < 0.5:
            self.world.pass_time(self.rng.choice([0.05, 0.2, 0.5]))

    def end(self) -> None:
        """No more trouble: everybody comes back, and what was stuck goes on."""
        world = self.world
        world.elect(len(world.pending))
        world.apply_at_once = True
        for reader in self.readers:
            reader.loop_runs = reader.releases = True
        for _ in range(80):
            for reader in self.readers:
                reader.come_back()
                if reader.revoked:
                    reader.release(*reader.revoked)
                reader.process()
                reader.commit_all()
            world.pass_time(0.2)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_to_a_group_it_reads_everything_under_one_owner_at_a_time(seed: int) -> None:
    print(f"seed {seed}")
    trouble = Trouble(seed)
    for _ in range(STEPS):
        trouble.step()
    trouble.end()
    world, group = trouble.world, trouble.world.state.groups["billing"]
    assert group.describe_state() == "stable"
    assert sorted(group.members) == sorted(reader.member_id for reader in trouble.readers)
    subscribed = {name for reader in trouble.readers for name in reader.topics}
    wanted = world.partitions(*sorted(subscribed))
    assert sorted(partition for reader in trouble.readers for partition in reader.working) == sorted(wanted)
    assert {partition: group.offsets[partition].offset for partition in wanted} == dict.fromkeys(wanted, LOG_END_OFFSET)
    equal = [len(reader.working) for reader in trouble.readers if reader.topics == ("orders", "clicks")]
    assert not equal or max(equal) - min(equal) <= 1
    world.elect()

"""Who a node is, and what it refuses to become."""

import json
from random import Random

import pytest

from quorumlog.node.errors import StorageCorrupt
from quorumlog.node.storage.identity import (
    FormatTooNew,
    Founder,
    Founding,
    FoundingRefused,
    Identity,
    IdentityState,
    WrongDataFolder,
    check_identity,
    decode_identity,
    encode_identity,
    load_identity,
    new_identity,
    save_identity,
)
from quorumlog.node.storage.memory_files import MemoryFileSystem, SimulatedCrash
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import NodeId

CLUSTER = bytes(range(16))
OTHER_CLUSTER = bytes(range(16, 32))
INCARNATION = b"i" * 16


def waiting(node_id: int = 1, incarnation: bytes = INCARNATION) -> Identity:
    return Identity(NodeId(node_id), incarnation)


def founding(*voters: tuple[int, bytes], cluster_id: bytes = CLUSTER) -> Founding:
    named = voters or ((1, INCARNATION), (2, b"j" * 16), (3, b"k" * 16))
    return Founding(cluster_id, tuple(Founder(NodeId(node), incarnation) for node, incarnation in named), b"as it came")


ADMITTED = waiting().admitted(founding((2, b"j" * 16)), Founder(NodeId(1), INCARNATION), 77)


def sealed(text: bytes) -> bytes:
    return text + b"crc32c %08x\n" % crc32c(text)


def test_a_new_identity_waits_and_two_are_never_the_same_incarnation() -> None:
    random = Random(7)
    first, second = (new_identity(NodeId(1), random.randbytes) for _ in range(2))
    assert first.state is IdentityState.WAITING
    assert first.cluster_id is None
    assert first.incarnation != second.incarnation


def test_the_founding_record_makes_a_waiting_node_a_member() -> None:
    member = waiting().founded(founding())
    assert member.state is IdentityState.MEMBER
    assert member.cluster_id == CLUSTER
    assert member.incarnation == INCARNATION
    assert member.founding is not None
    assert member.founding.record == b"as it came"


def test_the_same_founding_record_again_changes_nothing() -> None:
    member = waiting().founded(founding())
    assert member.founded(founding()) is member


def test_a_member_refuses_to_found_another_cluster() -> None:
    member = waiting().founded(founding())
    with pytest.raises(FoundingRefused, match=f"already belongs to cluster {CLUSTER.hex()}.*empty data folder"):
        member.founded(founding(cluster_id=OTHER_CLUSTER))


def test_the_wiped_folder_of_a_founding_node_does_not_become_a_voter_again() -> None:
    wiped = waiting(incarnation=b"new incarnation!")
    with pytest.raises(FoundingRefused, match=f"under incarnation {INCARNATION.hex()}.*bring the folder"):
        wiped.founded(founding())


def test_a_node_that_the_record_does_not_name_is_refused() -> None:
    with pytest.raises(FoundingRefused, match="names node 4 not at all"):
        waiting(node_id=4).founded(founding())


def test_a_node_that_is_admitted_belongs_to_the_cluster_and_knows_that_it_is_no_founder() -> None:
    late = Founder(NodeId(4), b"l" * 16)
    member = waiting(4, late.incarnation).admitted(founding(), late, 77)
    assert member.state is IdentityState.MEMBER
    assert member.founding == founding()
    assert member.admitted_at_index == 77
    assert member.admitted(founding(), late, 77) is member
    with pytest.raises(FoundingRefused, match=f"already belongs to cluster {CLUSTER.hex()}"):
        member.admitted(founding(cluster_id=OTHER_CLUSTER), late, 5)


def test_a_wiped_founder_is_admitted_under_its_new_incarnation_only() -> None:
    wiped = waiting(incarnation=b"new incarnation!")
    with pytest.raises(FoundingRefused, match=INCARNATION.hex()):
        wiped.admitted(founding(), Founder(NodeId(1), INCARNATION), 77)
    with pytest.raises(FoundingRefused, match="node 2"):
        wiped.admitted(founding(), Founder(NodeId(2), wiped.incarnation), 77)
    assert wiped.admitted(founding(), Founder(NodeId(1), wiped.incarnation), 77).admitted_at_index == 77


def test_a_version_that_does_not_know_of_admission_may_not_open_the_folder_of_an_admitted_node() -> None:
    text = encode_identity(ADMITTED)
    assert json.loads(text[: text.rindex(b"crc32c")])["oldest_version"] == 2
    text = encode_identity(waiting().founded(founding()))
    assert json.loads(text[: text.rindex(b"crc32c")])["oldest_version"] == 1


@pytest.mark.parametrize("identity", [waiting(), ADMITTED, waiting().founded(founding())])
def test_an_identity_is_read_back_as_it_was_saved(identity: Identity) -> None:
    files = MemoryFileSystem()
    save_identity(files, identity)
    files.crash()
    assert load_identity(files) == identity


def test_a_folder_without_the_file_has_no_identity() -> None:
    assert load_identity(MemoryFileSystem()) is None


def test_an_operator_can_read_the_file_and_the_version_comes_first() -> None:
    text = encode_identity(waiting().founded(founding()))
    fields = json.loads(text[: text.rindex(b"crc32c")])
    assert next(iter(fields)) == "format_version"
    assert fields["node_id"] == 1
    assert fields["cluster_id"] == CLUSTER.hex()


def test_every_flipped_bit_is_noticed() -> None:
    data = encode_identity(waiting().founded(founding()))
    for at in range(len(data)):
        for bit in range(8):
            flipped = data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
            with pytest.raises(StorageCorrupt, match="identity file here is damaged"):
                decode_identity(flipped, "here")


def test_every_cut_is_noticed() -> None:
    data = encode_identity(waiting())
    for size in range(len(data)):
        with pytest.raises(StorageCorrupt):
            decode_identity(data[:size], "here")


def test_a_folder_that_only_a_newer_version_may_open_is_refused() -> None:
    newer = sealed(b'{"format_version": 9, "oldest_version": 3, "what": "nobody knows"}\n')
    with pytest.raises(
        FormatTooNew, match=r"/data has format version 9 .* version 3 or newer; this program reads version 2"
    ):
        decode_identity(newer, "/data")


def test_a_newer_format_that_this_version_may_open_is_opened() -> None:
    text = encode_identity(waiting())
    fields = json.loads(text[: text.rindex(b"crc32c")]) | {"format_version": 3, "new_field": True}
    identity = decode_identity(sealed(json.dumps(fields).encode() + b"\n"), "here")
    assert (identity.node_id, identity.format_version) == (1, 3)


def test_the_folder_of_another_node_is_refused_by_both_names() -> None:
    with pytest.raises(WrongDataFolder, match="/data belongs to node 1, but this node is configured as node 2: set"):
        check_identity(waiting(), NodeId(2), None, "/data")


def test_the_folder_of_another_cluster_is_refused_by_both_names() -> None:
    member = waiting().founded(founding())
    with pytest.raises(
        WrongDataFolder, match=f"/data belongs to cluster {CLUSTER.hex()}, not to {OTHER_CLUSTER.hex()}"
    ):
        check_identity(member, NodeId(1), OTHER_CLUSTER, "/data")
    check_identity(member, NodeId(1), CLUSTER, "/data")
    check_identity(waiting(), NodeId(1), OTHER_CLUSTER, "/data")


def test_founding_is_whole_or_not_there_at_every_crash_point() -> None:
    for stop in range(6):
        for seed in range(30):
            files = MemoryFileSystem()
            save_identity(files, waiting())
            files.crash_after_steps = stop
            returned = False
            try:
                save_identity(files, waiting().founded(founding()))
                returned = True
            except SimulatedCrash:
                pass
            files.crash(Random(seed))
            found = load_identity(files)
            member = waiting().founded(founding())
            assert found in ((member,) if returned else (waiting(), member)), f"stop {stop} seed {seed}"

"""Who this node is: a small fsynced file beside the database, readable by an operator.

The file is JSON with the format version first, and its CRC-32C as the last line:

    {
      "format_version": 2,        what wrote it
      "oldest_version": 1,        the oldest version that may open this data folder; 2 where the node was admitted later
      "node_id": 1,
      "incarnation": "<32 hex>",  drawn when the data folder was made; another folder is another incarnation
      "cluster_id": "<32 hex>",   null while the node waits
      "founding": {...},          the founding record of the cluster; null while the node waits
      "admitted_at_index": 0      the entry of __cluster that admitted this incarnation; 0: the founding record names it
    }
    crc32c 1a2b3c4d

A node that starts on an empty folder draws a new incarnation and *waits*: it belongs to no cluster, never votes and
founds nothing by itself. It becomes a member by the founding record that names it, or by being admitted later. A
cluster knows its nodes by node id *and* incarnation, so the wiped folder of a known node is a stranger that waits, not
a member that has forgotten its votes. A version that did not know of admission would take an admitted node for a
founder, which votes from the beginning: so it may not open such a folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import cast

from quorumlog.node.errors import NodeError, StorageCorrupt
from quorumlog.node.storage.files import FileSystem
from quorumlog.proto.crc32c import crc32c
from quorumlog.raft.types import NodeId

IDENTITY_NAME = "identity"
FORMAT_VERSION = 2
OLDEST_VERSION = 1
OLDEST_VERSION_ADMITTED = 2
ID_BYTES = 16
"""Length of a cluster id and of an incarnation: 128 random bits, so two are never alike."""


class WrongDataFolder(NodeError):
    """The data folder belongs to another node or another cluster."""


class FormatTooNew(NodeError):
    """The data folder was written by a version whose format this one may not open."""


class FoundingRefused(NodeError):
    """The founding record does not fit this node."""


class IdentityState(Enum):
    """Whether the node belongs to a cluster."""

    WAITING = "waiting"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Founder:
    """One of the nodes that a cluster is founded from, and the incarnation (16 bytes) under which it was chosen."""

    node_id: NodeId
    incarnation: bytes


@dataclass(frozen=True, slots=True)
class Founding:
    """The founding record: made once per cluster, the same on every founder. Founders are sorted by node id.

    `record` is the whole record as it came over the wire, kept as it is to be handed to founders that still wait.
    """

    cluster_id: bytes
    founders: tuple[Founder, ...]
    record: bytes = b""

    def __post_init__(self) -> None:
        ids = [founder.node_id for founder in self.founders]
        assert ids, "somebody must found it"
        assert ids == sorted(set(ids)), f"founders must be sorted and distinct: {ids}"
        assert len(self.cluster_id) == ID_BYTES, "a cluster id is 16 bytes"


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of the identity file. `cluster_id` and `incarnation` are 16 bytes each.

    `admitted_at_index` is 0 for a founder, and otherwise the index of the entry of `__cluster` that admitted this
    incarnation: such a node never votes because of the founding record.
    """

    node_id: NodeId
    incarnation: bytes
    cluster_id: bytes | None = None
    founding: Founding | None = None
    admitted_at_index: int = 0
    format_version: int = FORMAT_VERSION
    oldest_version: int = OLDEST_VERSION

    def __post_init__(self) -> None:
        assert self.node_id > 0, "node ids begin at 1"
        assert len(self.incarnation) == ID_BYTES, "an incarnation is 16 bytes"
        assert self.founding is None or self.founding.cluster_id == self.cluster_id, "founded as another cluster"

    @property
    def state(self) -> IdentityState:
        """WAITING until a cluster has taken the node in."""
        return IdentityState.WAITING if self.cluster_id is None else IdentityState.MEMBER

    def founded(self, founding: Founding) -> Identity:
        """Return the identity of this node as one of the founders; unchanged when it holds this record already.

        Raises FoundingRefused when the record does not name this node under this incarnation, or when the node
        belongs to another cluster or was founded by another record.
        """
        if self.founding == founding:
            return self
        if self.cluster_id is not None:
            raise FoundingRefused(
                f"node {self.node_id} already belongs to cluster {self.cluster_id.hex()}: it cannot found "
                f"{founding.cluster_id.hex()}; use an empty data folder for a new cluster"
            )
        if Founder(self.node_id, self.incarnation) not in founding.founders:
            named = [founder.incarnation.hex() for founder in founding.founders if founder.node_id == self.node_id]
            reason = f"under incarnation {named[0]}" if named else "not at all"
            raise FoundingRefused(
                f"the founding record of cluster {founding.cluster_id.hex()} names node {self.node_id} {reason}, but "
                f"its incarnation is {self.incarnation.hex()}: bring the folder of that incarnation back, or wait "
                "until the cluster has admitted this one"
            )
        return replace(self, cluster_id=founding.cluster_id, founding=founding)

    def admitted(self, founding: Founding, member: Founder, admitted_at_index: int) -> Identity:
        """Return the identity of this node as one that was admitted later; unchanged when it is a member already.

        Args:
            founding: the founding record of the cluster.
            member: whom the cluster has admitted.
            admitted_at_index: the index of the entry of `__cluster` that did.

        Raises FoundingRefused when that is another node or incarnation, or this node belongs to another cluster.
        """
        assert admitted_at_index > 0, "a founder is not admitted"
        if self.cluster_id not in (None, founding.cluster_id):
            assert self.cluster_id is not None
            raise FoundingRefused(
                f"node {self.node_id} already belongs to cluster {self.cluster_id.hex()}: it cannot join "
                f"{founding.cluster_id.hex()}; use an empty data folder for another cluster"
            )
        if member != Founder(self.node_id, self.incarnation):
            raise FoundingRefused(
                f"cluster {founding.cluster_id.hex()} has admitted node {member.node_id} under incarnation "
                f"{member.incarnation.hex()}, but this is node {self.node_id} with incarnation {self.incarnation.hex()}"
            )
        if self.cluster_id is not None:
            return self
        return replace(
            self,
            cluster_id=founding.cluster_id,
            founding=founding,
            admitted_at_index=admitted_at_index,
            oldest_version=OLDEST_VERSION_ADMITTED,
        )


def new_identity(node_id: NodeId, draw: Callable[[int], bytes]) -> Identity:
    """Return the identity of a node that waits.

    Args:
        node_id: from the node's configuration.
        draw: returns that many random bytes.
    """
    return Identity(node_id, draw(ID_BYTES))


def check_identity(identity: Identity, node_id: NodeId, cluster_id: bytes | None, where: str) -> None:
    """Compare the identity found in folder `where` with what the configuration says.

    Args:
        identity: what the folder holds.
        node_id: the configured node id.
        cluster_id: the cluster the node is told to belong to, 16 bytes; None when it is not told.
        where: the data folder, for the message.

    Raises WrongDataFolder.
    """
    if identity.node_id != node_id:
        raise WrongDataFolder(
            f"data folder {where} belongs to node {identity.node_id}, but this node is configured as node {node_id}: "
            f"set the data folder of node {node_id}, or node_id = {identity.node_id}"
        )
    if cluster_id is not None and identity.cluster_id not in (None, cluster_id):
        raise _other_cluster(identity, cluster_id, f"data folder {where}")


def _other_cluster(identity: Identity, cluster_id: bytes, what: str) -> WrongDataFolder:
    assert identity.cluster_id is not None
    return WrongDataFolder(
        f"{what} belongs to cluster {identity.cluster_id.hex()}, not to {cluster_id.hex()}: point the node at the data "
        "folder of this cluster, or at an empty one"
    )


def encode_identity(identity: Identity) -> bytes:
    """Return the bytes of the identity file. They are written in this version's format, whatever they were read in."""
    founding = identity.founding and {
        "cluster_id": identity.founding.cluster_id.hex(),
        "founders": [
            {"node_id": founder.node_id, "incarnation": founder.incarnation.hex()}
            for founder in identity.founding.founders
        ],
        "record": identity.founding.record.hex(),
    }
    fields = {
        "format_version": FORMAT_VERSION,
        "oldest_version": OLDEST_VERSION_ADMITTED if identity.admitted_at_index else OLDEST_VERSION,
        "node_id": identity.node_id,
        "incarnation": identity.incarnation.hex(),
        "cluster_id": identity.cluster_id and identity.cluster_id.hex(),
        "founding": founding,
        "admitted_at_index": identity.admitted_at_index,
    }
    text = json.dumps(fields, indent=2).encode("ascii") + b"\n"
    return text + b"crc32c %08x\n" % crc32c(text)


def decode_identity(data: bytes, where: str) -> Identity:
    """Return what the bytes of the identity file say; `where` names the file in messages.

    Raises StorageCorrupt when a check fails, FormatTooNew when only a newer version may open the folder.
    """
    text, mark, check = data.rpartition(b"crc32c ")
    if not mark or check != b"%08x\n" % crc32c(text):
        raise StorageCorrupt(f"identity file {where} is damaged: its CRC-32C does not fit its content")
    fields = cast("Mapping[str, object]", json.loads(text))
    oldest = fields["oldest_version"]
    if not isinstance(oldest, int) or oldest > FORMAT_VERSION:
        raise FormatTooNew(
            f"{where} has format version {fields['format_version']} and may be opened by version {oldest} or newer; "
            f"this program reads version {FORMAT_VERSION}: start the newer program again"
        )
    return Identity(
        node_id=NodeId(cast("int", fields["node_id"])),
        incarnation=bytes.fromhex(cast("str", fields["incarnation"])),
        cluster_id=_optional_id(fields["cluster_id"]),
        founding=_decode_founding(fields["founding"]),
        admitted_at_index=cast("int", fields.get("admitted_at_index", 0)),
        format_version=cast("int", fields["format_version"]),
        oldest_version=oldest,
    )


def _optional_id(field: object) -> bytes | None:
    return None if field is None else bytes.fromhex(cast("str", field))


def _decode_founding(field: object) -> Founding | None:
    if field is None:
        return None
    fields = cast("Mapping[str, object]", field)
    founders = cast("list[Mapping[str, object]]", fields["founders"])
    return Founding(
        cluster_id=bytes.fromhex(cast("str", fields["cluster_id"])),
        founders=tuple(
            Founder(NodeId(cast("int", founder["node_id"])), bytes.fromhex(cast("str", founder["incarnation"])))
            for founder in founders
        ),
        record=bytes.fromhex(cast("str", fields["record"])),
    )


def load_identity(files: FileSystem) -> Identity | None:
    """Return the identity of the data folder, None when it has none.

    Raises StorageCorrupt when the file is damaged, FormatTooNew, StorageFailed.
    """
    data = files.read(IDENTITY_NAME)
    return None if data is None else decode_identity(data, files.describe(IDENTITY_NAME))


def save_identity(files: FileSystem, identity: Identity) -> None:
    """Replace the identity file; durable on return, and after a crash it is the old one or the new one. Blocks.

    Raises StorageFailed.
    """
    files.replace(IDENTITY_NAME, encode_identity(identity))

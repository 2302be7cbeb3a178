"""Asking every node that can be found how it is, and why one cannot be asked."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from quorumlog.aio.channels import Connection, diagnose
from quorumlog.aio.client import bootstrap_addresses
from quorumlog.aio.cluster import Cluster
from quorumlog.cli.arguments import CLIENT_ID
from quorumlog.errors import ConnectionFailed, QuorumlogError, TimedOut
from quorumlog.proto import client_pb2 as pb

ATTEMPT_SECONDS: Final = 5.0
SEVERITIES: Final = ("PROBLEM", "WARNING", "INFO")
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing to know. `address` and `stage` are for what cannot be reached."""

    severity: str
    subject: str
    message: str
    fix: str
    address: str = ""
    stage: str = ""


@dataclass(slots=True)
class Examination:
    """What was found: answers by address asked, failures by address."""

    answers: dict[str, pb.StatusResponse] = field(default_factory=dict)
    failures: dict[str, QuorumlogError] = field(default_factory=dict)


async def examine(bootstrap: str | Sequence[str] | None) -> Examination:
    """Ask the bootstrap addresses, and every node that an answer names.

    Each is asked for itself, without the metadata of a healthy cluster: any node that still answers names the others.

    Raises:
        InvalidRequest: `bootstrap` is no address.
    """
    addresses = bootstrap_addresses(bootstrap)
    cluster = Cluster(addresses, CLIENT_ID, random.Random())
    found = Examination()
    try:
        wave = list(dict.fromkeys(addresses))
        while wave:
            await asyncio.gather(*(_ask(cluster, address, found) for address in wave))
            # The same node may be named in two ways; what it answered once is enough.
            met = {answer.node_id for answer in found.answers.values()}
            named = {node.address: node.node_id for answer in found.answers.values() for node in answer.nodes}
            asked = {*found.answers, *found.failures}
            wave = [address for address, node_id in named.items() if address not in asked and node_id not in met]
    finally:
        await cluster.close()
    return found


async def _ask(cluster: Cluster, address: str, found: Examination) -> None:
    async def call(connection: Connection, seconds: float) -> pb.StatusResponse:
        return await connection.admin.Status(pb.StatusRequest(), timeout=seconds)

    try:
        found.answers[address] = await cluster.ask(address, call, ATTEMPT_SECONDS)
    except (ConnectionFailed, TimedOut):
        found.failures[address] = await diagnose(address)
    except QuorumlogError as error:
        found.failures[address] = error


def judge(found: Examination) -> list[Diagnosis]:
    """Return what there is to know, the worst first, each thing once."""
    diagnoses = [*_unreachable(found), *_cluster(found.answers.values())]
    for answer in found.answers.values():
        diagnoses += (
            Diagnosis(_severity(finding.severity), finding.subject, finding.message, finding.fix)
            for finding in answer.findings
        )
    return sorted(dict.fromkeys(diagnoses), key=lambda diagnosis: _rank(diagnosis.severity))


def _unreachable(found: Examination) -> Iterable[Diagnosis]:
    names = {node.address: node.node_id for answer in found.answers.values() for node in answer.nodes}
    for address, error in found.failures.items():
        subject = f"node {names[address]}" if address in names else address
        stage = error.stage if isinstance(error, ConnectionFailed) else "protocol"
        yield Diagnosis("PROBLEM", subject, error.message, error.hint, address, stage)


def _cluster(answers: Iterable[pb.StatusResponse]) -> Iterable[Diagnosis]:
    """What no node can see by itself."""
    members = [answer for answer in answers if answer.cluster_id]
    clusters = sorted({answer.cluster_id.hex() for answer in members})
    if len(clusters) > 1:
        yield Diagnosis(
            "PROBLEM",
            "bootstrap",
            f"the addresses belong to different clusters: {', '.join(clusters)}",
            "name nodes of one cluster with -b",
        )
    elif members:
        count = max(len(answer.nodes) for answer in members)
        yield Diagnosis(
            "INFO",
            "cluster",
            f"its {count} nodes are those it was founded with, and the voters of its metadata are fixed",
            "nothing to do; adding and replacing nodes is not in this release",
        )
    versions = sorted({answer.version for answer in members if answer.version})
    if len(versions) > 1:
        yield Diagnosis(
            "WARNING",
            "cluster",
            f"its nodes run different releases: {', '.join(versions)}",
            "finish the upgrade",
        )


def _severity(number: int) -> str:
    known = pb.Severity.DESCRIPTOR.values_by_number.get(number)
    return str(known.name) if known is not None else "PROBLEM"  # newer than this program: better too loud


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)

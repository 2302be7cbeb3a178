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
from quorumlog.cli.causes import Diagnosis, by_cause
from quorumlog.errors import ConnectionFailed, QuorumlogError, TimedOut
from quorumlog.proto import client_pb2 as pb

ATTEMPT_SECONDS: Final = 5.0
SEVERITIES: Final = ("PROBLEM", "WARNING", "INFO")
"""The worst first."""


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
    """Return what there is to know, the worst first, one for each cause."""
    told = (
        Diagnosis(_severity(finding.severity), finding.subject, finding.message, finding.fix)
        for answer in found.answers.values()
        for finding in answer.findings
    )
    diagnoses = [*by_cause(_unreachable(found), told), *_cluster(found.answers.values())]
    return sorted(diagnoses, key=lambda diagnosis: _rank(diagnosis.severity))


def _unreachable(found: Examination) -> dict[str, Diagnosis]:
    """By subject: who does not answer."""
    names = {node.address: node.node_id for answer in found.answers.values() for node in answer.nodes}
    unreachable = {}
    for address, error in found.failures.items():
        subject = f"node {names[address]}" if address in names else address
        if subject in unreachable:
            subject = address  # two nodes tell different addresses of a third
        stage = error.stage if isinstance(error, ConnectionFailed) else "protocol"
        unreachable[subject] = Diagnosis("PROBLEM", subject, error.message, error.hint, address, stage)
    return unreachable


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

"""What a node answers to `Status`: a member by its broker and its links, a node that waits by what it was told."""

from __future__ import annotations

from collections.abc import Iterator

from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.findings import findings_of_opening
from quorumlog.node.founding import FoundingDesk, wiped_fix
from quorumlog.node.rpc.links import PeerLink, PeerLinks
from quorumlog.node.storage.opened import NodeState, Opened
from quorumlog.proto import client_pb2


def member_status(broker: Broker, links: PeerLinks) -> client_pb2.StatusResponse:
    """The state of a member. What a peer says for itself stands instead of the guess that it is silent."""
    told = {link.node_id: tuple(_link_findings(broker.node_id, link)) for link in links.all}
    response = broker.reporting.status(speaking=[node_id for node_id, findings in told.items() if findings])
    for findings in told.values():
        response.findings.extend(findings)
    return response


def _link_findings(node_id: int, link: PeerLink) -> Iterator[client_pb2.Finding]:
    subject = f"node {link.node_id}"
    if link.stranger is not None:
        yield client_pb2.Finding(
            severity=client_pb2.PROBLEM, subject=subject, message=link.stranger, fix=wiped_fix(link.node_id)
        )
    elif link.refusal is not None and link.refusal.final:
        yield client_pb2.Finding(
            severity=client_pb2.PROBLEM,
            subject=subject,
            message=f"it turns node {node_id} away: {link.refusal.message}",
            fix="do what the message says, on the node that it blames",
        )
    elif link.refusal is not None:
        yield client_pb2.Finding(
            severity=client_pb2.WARNING,
            subject=subject,
            message=f"it waits, and has not taken the founding record from node {node_id} yet",
            fix="nothing at first: it is handed the record again and again; if it stays so, see the log of the node",
        )


def waiting_status(opened: Opened, desk: FoundingDesk) -> client_pb2.StatusResponse:
    """The state of a node that belongs to no cluster."""
    identity = opened.identity
    response = client_pb2.StatusResponse(node_id=identity.node_id, incarnation=identity.incarnation, state="waiting")
    subject = f"node {identity.node_id}"
    response.findings.extend(findings_of_opening(opened, subject))
    severity, fix = client_pb2.INFO, ""
    message = "it belongs to no cluster and waits"
    if desk.wiped is not None:
        severity, message, fix = client_pb2.PROBLEM, desk.wiped, wiped_fix(identity.node_id)
    elif opened.state is NodeState.WIPED:
        severity, fix = client_pb2.PROBLEM, wiped_fix(identity.node_id)
        message = "it belongs to no cluster any more and waits: it was another incarnation before this start"
    elif desk.greeted_by is not None:
        hello = desk.greeted_by
        message += f", but node {hello.node_id} of cluster {hello.cluster_id.hex()} takes it for one of its own"
        fix = "nothing at first: it is about to be handed the founding record; if it stays so, see the log of that node"
    else:
        fix = (
            "found a cluster with `quorumlog cluster init`, if there is none; have it added to one that there is with "
            "`quorumlog cluster add PEER_ADDRESS`, asked of that cluster"
        )
    response.findings.add(severity=severity, subject=subject, message=message, fix=fix)
    return response

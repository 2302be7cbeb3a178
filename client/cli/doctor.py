"""`quorumlog doctor`."""

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence

from quorumlog.cli.arguments import add_bootstrap, add_output
from quorumlog.cli.causes import Diagnosis
from quorumlog.cli.errors import FAILED
from quorumlog.cli.examine import SEVERITIES, Examination, examine, judge
from quorumlog.cli.output import print_json


def doctor(parser: argparse.ArgumentParser) -> None:
    """Say what is wrong with the cluster and what to do; exit code 1 if there is a problem."""
    add_bootstrap(parser)
    add_output(parser)
    parser.set_defaults(run=run_doctor)


def run_doctor(arguments: argparse.Namespace) -> int:
    """Ask every node that can be found."""
    found = asyncio.run(examine(arguments.bootstrap))
    diagnoses = judge(found)
    if arguments.output == "json":
        print_json(report_json(found, diagnoses))
    else:
        print(report(found, diagnoses))
    return FAILED if any(diagnosis.severity == "PROBLEM" for diagnosis in diagnoses) else 0


def report(found: Examination, diagnoses: Sequence[Diagnosis]) -> str:
    """Return the report for people; of a healthy cluster one line."""
    nodes = len({answer.node_id for answer in found.answers.values()})
    replicas = sum(len(answer.replicas) for answer in found.answers.values())
    if not diagnoses:
        return f"healthy: the {nodes} nodes of the cluster and their {replicas} replicas are well"
    lines = []
    for diagnosis in diagnoses:
        stage = f" (failed at: {diagnosis.stage})" if diagnosis.stage else ""
        lines += [
            f"{diagnosis.severity:8} {diagnosis.subject}: {diagnosis.message}{stage}",
            f"{'':8} fix: {diagnosis.fix}",
        ]
    count = Counter(diagnosis.severity for diagnosis in diagnoses)
    summary = ", ".join(f"{severity} {count[severity]}" for severity in SEVERITIES)
    lines.append(
        f"{summary}; {nodes} node{'s' * (nodes != 1)} with {replicas} replicas answered, {len(found.failures)} did not"
    )
    return "\n".join(lines)


def report_json(found: Examination, diagnoses: Sequence[Diagnosis]) -> dict[str, object]:
    """Return the report with stable keys; `address` and `stage` are null but for what cannot be reached."""
    return {
        "healthy": not any(diagnosis.severity == "PROBLEM" for diagnosis in diagnoses),
        "nodes": [
            {"address": address, "node_id": answer.node_id, "state": answer.state, "version": answer.version}
            for address, answer in sorted(found.answers.items(), key=lambda entry: (entry[1].node_id, entry[0]))
        ],
        "unreachable": sorted(found.failures),
        "findings": [
            {
                "severity": diagnosis.severity,
                "subject": diagnosis.subject,
                "message": diagnosis.message,
                "fix": diagnosis.fix,
                "address": diagnosis.address or None,
                "stage": diagnosis.stage or None,
            }
            for diagnosis in diagnoses
        ],
    }

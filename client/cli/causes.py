"""Laying together what several nodes say about the same cause, so that an operator reads one line for each cause."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_NODES: Final = re.compile(r"nodes? (\d+(?:, \d+)*)")
_SILENCE: Final = "not heard of by"
"""So begins what a node says of one that it does not hear of. Where nothing else follows from it, it adds nothing to
"does not answer"."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing to know. `address` and `stage` are for what cannot be reached."""

    severity: str
    subject: str
    message: str
    fix: str
    address: str = ""
    stage: str = ""


def by_cause(unreachable: Mapping[str, Diagnosis], told: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return one diagnosis for each cause.

    Args:
        unreachable: what does not answer, by subject (`node 3`, or an address).
        told: what nodes have found. Where that is about nodes that do not answer, it is what follows from it.
    """
    causes = {subject: {subject} for subject in unreachable}
    consequences: list[tuple[str, Diagnosis]] = []
    standing: list[Diagnosis] = []
    for diagnosis in dict.fromkeys(told):
        culprits = _culprits(diagnosis.subject)
        if not culprits <= unreachable.keys():
            standing.append(diagnosis)
            continue
        whole = set().union(*(causes[culprit] for culprit in culprits))
        for culprit in whole:
            causes[culprit] = whole
        if diagnosis.severity == "PROBLEM" or not diagnosis.message.startswith(_SILENCE):
            consequences.append((min(culprits), diagnosis))
    merged = []
    for whole in _distinct(causes.values()):
        roots = [unreachable[subject] for subject in unreachable if subject in whole]
        merged.append(_explained(roots, [one for culprit, one in consequences if culprit in whole]))
    return [*merged, *_laid_together(standing)]


def _culprits(subject: str) -> set[str]:
    match = _NODES.fullmatch(subject)
    return {f"node {number}" for number in match[1].split(", ")} if match else {subject}


def _distinct(sets: Iterable[set[str]]) -> list[set[str]]:
    return list({id(one): one for one in sets}.values())


def _explained(roots: list[Diagnosis], consequences: list[Diagnosis]) -> Diagnosis:
    """What does not answer, and what follows from it."""
    if len(roots) == 1:
        subject = roots[0].subject
    else:
        subject = f"nodes {', '.join(sorted((root.subject.removeprefix('node ') for root in roots), key=int))}"
    return Diagnosis(
        "PROBLEM",
        subject,
        _joined(diagnosis.message for diagnosis in (*roots, *consequences)),
        _joined(root.fix for root in roots),
        ", ".join(root.address for root in roots),
        ", ".join(dict.fromkeys(root.stage for root in roots)),
    )


def _laid_together(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Those of the same subject with the same fix are one."""
    same: dict[tuple[str, str, str], list[str]] = {}
    for diagnosis in diagnoses:
        same.setdefault((diagnosis.severity, diagnosis.subject, diagnosis.fix), []).append(diagnosis.message)
    return [Diagnosis(severity, subject, _joined(messages), fix) for (severity, subject, fix), messages in same.items()]


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(parts))

"""Every code is raised by what breaks its rule, and by nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from quorumlog.chaos.checkers.all import CHECKERS
from quorumlog.chaos.judge import judge_history
from tests.chaos import breaking_groups, breaking_logs
from tests.chaos.model import MS, World
from tests.chaos.model_groups import lawful
from tests.chaos.tape import Tape

Breaker = Callable[[Tape], bool]

BREAKERS: list[Breaker] = [
    told
    for module in (breaking_logs, breaking_groups)
    for name, told in sorted(vars(module).items())
    if name.startswith("k") and name[1:2].isdigit()
]
SEEDS = 40
TIMES = 3
"""How often each is tried with success."""


@cache
def world(seed: int) -> World:
    return lawful(seed, 150 * MS)


def code_of(breaker: Breaker) -> str:
    return breaker.__name__.split("_")[0].upper()


def test_every_code_is_broken() -> None:
    assert {code_of(breaker) for breaker in BREAKERS} == set(CHECKERS)


@pytest.mark.parametrize("breaker", BREAKERS, ids=lambda breaker: breaker.__name__)
def test_a_broken_history_raises_its_code_alone(breaker: Breaker) -> None:
    times = 0
    for seed in range(SEEDS):
        tape = Tape(world(seed), seed)
        if not breaker(tape):
            continue
        verdict = judge_history(tape.history())
        assert set(verdict.counts) == {code_of(breaker)}, f"seed {seed}: {verdict.to_text()}"
        assert all(one.explanation and one.operations for one in verdict.anomalies)
        times += 1
        if times == TIMES:
            return
    pytest.fail(f"{times} of {SEEDS} histories could be broken")

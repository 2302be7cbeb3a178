"""How the cluster of a run comes up, and what is said when it does not."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from quorumlog.chaos import site
from quorumlog.chaos.nodes import NodeFailed


def test_nodes_that_end_at_once_are_named_with_their_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(site.SETTINGS, "no_such_setting", 1)

    async def up() -> None:
        async with site.serving_cluster(tmp_path, 1, random.Random(1)):
            raise AssertionError("it serves")

    with pytest.raises(NodeFailed, match=r"node 1 ended 3 times \(2\): .*unknown setting 'no_such_setting'"):
        asyncio.run(up())

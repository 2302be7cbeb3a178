import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# The helpers beside the tests are imported as tests.integration.*, the name under which mypy knows them. Behind
# everything else, so that the top-level folders do not hide a package.
sys.path.append(str(Path(__file__).parents[2]))

from tests.integration.cluster import LocalCluster

MakeCluster = Callable[..., LocalCluster]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes for every test that leaves them alive; each test makes topics and groups of its own."""
    cluster = LocalCluster(tmp_path_factory.mktemp("shared"))
    try:
        yield cluster.up()
    finally:
        cluster.clean_up()
    assert cluster.bugs() == []


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters that the test may break; nothing of them is started yet."""
    made: list[LocalCluster] = []

    def make(**arguments: Any) -> LocalCluster:
        made.append(LocalCluster(tmp_path / f"cluster-{len(made) + 1}", **arguments))
        return made[-1]

    try:
        yield make
    finally:
        for cluster in made:
            cluster.clean_up()
    assert [bug for cluster in made for bug in cluster.bugs()] == []


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> LocalCluster:
    """Three nodes that the test may break."""
    return make_cluster().up()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for running in LocalCluster.running:
            report.sections.extend(running.logs())
    return report

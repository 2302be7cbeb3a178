"""What the tests of groups share."""

import pytest

from tests.node.groups.world import World


@pytest.fixture
def world() -> World:
    """A coordinator over one topic, `orders`, with six partitions."""
    world = World()
    world.directory.create("orders", 6)
    return world

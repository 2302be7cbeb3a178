"""Processes that die, stop, sleep and lose their sense of time."""

from __future__ import annotations

import random
from typing import Final

from quorumlog.chaos.sim.field import Field
from quorumlog.chaos.sim.node import SimNode

CLEAN_STOP_SECONDS: Final = 1.0
"""A node that stops has this long to hand over what it leads."""


def kill(field: Field, rng: random.Random) -> bool:
    """Any node loses its power, and what was not synced."""
    return crash(field, field.running(rng), rng.uniform(0.01, 4.0))


def kill_leader(field: Field, rng: random.Random) -> bool:
    """The same for a node that leads something."""
    return crash(field, field.leader(rng), rng.uniform(0.01, 4.0))


def power_cut(field: Field, rng: random.Random) -> bool:
    """The power goes for all nodes at once."""
    field.tell("the power goes everywhere")
    struck = [crash(field, node, rng.uniform(0.01, 3.0)) for node in field.nodes()]
    return any(struck)


def restart_in_repair(field: Field, rng: random.Random) -> bool:
    """A node that is healing loses its power."""
    healing = [
        node
        for node in field.nodes()
        if node.broker is not None and any(not replica.counting for replica in node.broker.multi.replicas.values())
    ]
    return crash(field, rng.choice(healing), rng.uniform(0.01, 1.0)) if healing else False


def stop(field: Field, rng: random.Random) -> bool:
    """A node stops cleanly: it hands over, then it ends."""
    node = field.running(rng)
    if node is None or node.sync_held:
        return False
    broker = node.broker
    assert broker is not None
    field.tell(f"node {node.node_id} begins to stop")
    node.enter(broker.begin_stop)
    seconds = rng.uniform(0.01, 3.0)

    def end() -> None:
        if node.broker is broker:
            if node.paused or node.storage.refusing:
                field.world.after(0.5, end)
                return
            node.stop()
            field.world.start_later(node, seconds)

    field.world.after(CLEAN_STOP_SECONDS, end)
    return True


def pause(field: Field, rng: random.Random) -> bool:
    """A process is stopped for a while, and then goes on where it was."""
    return _pause(field, rng, field.running(rng))


def pause_leader(field: Field, rng: random.Random) -> bool:
    """The same for one that leads something."""
    return _pause(field, rng, field.leader(rng))


def clock_rate(field: Field, rng: random.Random) -> bool:
    """A clock runs too fast or too slow."""
    node = field.any_node(rng)
    rate = rng.choice([0.5, 0.8, 0.95, 1.05, 1.3, 2.0])
    field.tell(f"the clock of node {node.node_id} runs at {rate}")
    node.clock.set_rate(rate)
    node.on_clock_changed()

    def right() -> None:
        node.clock.set_rate(1.0)
        node.on_clock_changed()

    field.later(rng.uniform(2.0, 20.0), right)
    return True


def clock_leap(field: Field, rng: random.Random) -> bool:
    """A monotonic clock leaps ahead, as after a machine was suspended."""
    node = field.any_node(rng)
    seconds = rng.choice([0.5, 3.0, 30.0])
    field.tell(f"the clock of node {node.node_id} leaps {seconds} s ahead")
    node.clock.leap(seconds)
    node.on_clock_changed()
    return True


def wall_jump(field: Field, rng: random.Random) -> bool:
    """A node takes another time of day for right."""
    node = field.any_node(rng)
    seconds = rng.choice([-86400.0, -60.0, -1.0, 1.0, 60.0, 86400.0, 0.0])
    field.tell(f"the wall clock of node {node.node_id} is {seconds:+.0f} s off")
    node.clock.set_wall_offset(seconds)
    return True


def crash(field: Field, node: SimNode | None, down_seconds: float) -> bool:
    """A node loses its power and is started again later."""
    if node is None or node.opened is None:
        return False
    node.crash()
    field.world.start_later(node, down_seconds)
    return True


def _pause(field: Field, rng: random.Random, node: SimNode | None) -> bool:
    if node is None:
        return False
    seconds = rng.choice([rng.uniform(0.05, 1.0), rng.uniform(1.0, 8.0)])
    session_id = node.session_id
    field.tell(f"node {node.node_id} is stopped for {seconds:.1f} s")
    node.pause()

    def go_on() -> None:
        if node.paused and node.session_id == session_id:
            node.resume()

    field.later(seconds, go_on)
    return True

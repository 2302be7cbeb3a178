"""The way between clients and nodes: calls that may be lost, late or cut short, and streams that break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quorumlog.chaos.sim.node import SimNode
from quorumlog.chaos.sim.world import World
from quorumlog.node.broker.broker import Broker
from quorumlog.node.broker.groups import MemberStream
from quorumlog.proto import client_pb2 as pb

PATIENCE_SECONDS = 0.4
"""After this long a client learns that something it sent, or the answer, went missing."""

CLIENTS = 0
"""Stands for all clients in `World.cut`: (CLIENTS, node) and (node, CLIENTS)."""

Send = Callable[[Broker, Callable[[Any], None]], None]


class Call:
    """One request of a client and its answers. It ends once: with the last answer, or lost."""

    def __init__(
        self, world: World, node: SimNode, answers: int, on_answer: Callable[[Any], None], on_lost: Callable[[], None]
    ) -> None:
        self.world = world
        self.node = node
        self.over = False
        self.sent_at = world.clock.now()
        self._left = self._missing = answers
        self._on_answer = on_answer
        self._on_lost = on_lost

    def begin(self, send: Send, arrives_in: float) -> None:
        """Send it; `send` hands it to the broker when it arrives."""
        world, node = self.world, self.node
        session_id = node.session_id
        draw = world.rng.random()
        if draw < world.faults.client_loss:
            world.after(PATIENCE_SECONDS, self.lose)
            return
        if draw < world.faults.client_loss + world.faults.late:
            # The client gives it up, and then it arrives.
            world.after(arrives_in, self.lose)
            arrives_in += world.rng.uniform(0.0, 3 * PATIENCE_SECONDS)

        def arrive() -> None:
            broker = node.broker
            if broker is None or node.session_id != session_id:
                self.lose()
            elif (CLIENTS, node.node_id) in world.cut:
                world.after(PATIENCE_SECONDS, self.lose)
            else:
                node.calls.append(self)
                node.enter(lambda: send(broker, self._answer))

        world.after(arrives_in, arrive)

    def _answer(self, answer: Any) -> None:
        world, node = self.world, self.node
        self._left -= 1
        if self._left == 0 and self in node.calls:
            node.calls.remove(self)
        if world.rng.random() < world.faults.client_loss or (node.node_id, CLIENTS) in world.cut:
            world.after(PATIENCE_SECONDS, self.lose)
            return

        def arrive() -> None:
            if not self.over:
                self._missing -= 1
                self.over = self._missing == 0
                self._on_answer(answer)

        world.after(delay(world), arrive)

    def lose(self) -> None:
        """No answer will come."""
        if not self.over:
            self.over = True
            if self in self.node.calls:
                self.node.calls.remove(self)
            self._on_lost()


def delay(world: World) -> float:
    """Seconds on the way."""
    return world.rng.uniform(world.faults.delay_min, world.faults.delay_max)


class Channel:
    """One client's connections. Requests of one client to one node arrive in the order they were sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._last_arrival: dict[str, float] = {}

    def anyone(self) -> str:
        """The address of any node."""
        return self.world.rng.choice(list(self.world.nodes.values())).address

    def ask(
        self,
        address: str,
        send: Send,
        on_answer: Callable[[Any], None],
        on_lost: Callable[[], None],
        answers: int = 1,
    ) -> None:
        """Send a request; `send` hands it to the broker when it arrives."""
        now = self.world.clock.now()
        arrival = max(now + delay(self.world), self._last_arrival.get(address, 0.0))
        self._last_arrival[address] = arrival
        Call(self.world, self.world.node_at(address), answers, on_answer, on_lost).begin(send, arrival - now)

    def stream(
        self, address: str, on_message: Callable[[pb.GroupResponse], None], on_end: Callable[[], None]
    ) -> GroupStream:
        """Open a group session."""
        return GroupStream(self.world, self.world.node_at(address), on_message, on_end)


class GroupStream:
    """A stream between a member and a node, in order both ways. A message that is lost breaks it."""

    def __init__(
        self,
        world: World,
        node: SimNode,
        on_message: Callable[[pb.GroupResponse], None],
        on_end: Callable[[], None],
    ) -> None:
        self.world = world
        self.node = node
        self.open = True
        self.sent_at = world.clock.now()
        self._on_message = on_message
        self._on_end = on_end
        self._session_id = node.session_id
        self._up = self._down = 0.0
        self._session: MemberStream | None = None
        node.streams.append(self)

    def write(self, request: pb.GroupRequest) -> None:
        """Send to the node."""
        world = self.world
        if not self.open:
            return
        if world.rng.random() < world.faults.client_loss or (CLIENTS, self.node.node_id) in world.cut:
            self.break_off()
            return
        self._up = max(self._up, world.clock.now() + delay(world))
        world.at(self._up, lambda: self._arrive(request))

    def _arrive(self, request: pb.GroupRequest) -> None:
        broker = self._broker()
        if broker is None or not self.open:
            return
        if self._session is None:
            self._session = MemberStream(self._send, self._close)
        session = self._session
        self.node.enter(lambda: broker.groups.on_request(session, request))

    def _broker(self) -> Broker | None:
        return self.node.broker if self.node.session_id == self._session_id else None

    def _send(self, response: pb.GroupResponse) -> None:
        world = self.world
        if not self.open:
            return
        if world.rng.random() < world.faults.client_loss or (self.node.node_id, CLIENTS) in world.cut:
            world.after(0.0, self.break_off)
            return
        copy = pb.GroupResponse()
        copy.CopyFrom(response)
        self._down = max(self._down, world.clock.now() + delay(world))

        def arrive() -> None:
            if self.open:
                self._on_message(copy)

        world.at(self._down, arrive)

    def _close(self) -> None:
        """The node ends it."""
        self._down = max(self._down, self.world.clock.now() + delay(self.world))
        self.world.at(self._down, self.lose)

    def break_off(self) -> None:
        """Cut it: each side learns of it after its patience."""
        if not self.open:
            return
        self.open = False
        self.node.streams.remove(self)
        world = self.world
        world.after(world.rng.uniform(0.0, PATIENCE_SECONDS), self._on_end)
        world.after(world.rng.uniform(0.0, PATIENCE_SECONDS), self._tell_node)

    def _tell_node(self) -> None:
        broker, session = self._broker(), self._session
        if broker is not None and session is not None:
            self.node.enter(lambda: broker.groups.on_session_closed(session))

    def lose(self) -> None:
        """The process at the other end is gone, or has ended the stream."""
        if self.open:
            self.open = False
            if self in self.node.streams:
                self.node.streams.remove(self)
            self._tell_node()
            self.world.after(delay(self.world), self._on_end)

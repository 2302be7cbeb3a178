"""How the demo's processes are told to finish, and how they say how far they are."""

import asyncio
import json
import signal
import sys


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


def report(**fields: object) -> None:
    """Say something to the process that started this one: an object of JSON on a line of its own."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()

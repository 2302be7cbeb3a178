"""The coordination plane: who is up, who leads what, how loaded every node is, advisory locks - all of it in memory.

Everything here can be rebuilt: each node says its whole state again every few seconds, what is not said again expires,
and a plane that fails throws its engine away and starts empty. Nothing here is trusted for safety. Every durable action
is fenced by a term or an epoch of the log plane, so a plane that is stopped, late or lying costs a detour, no record.

    view.py       what the rest of the node asks (import this), and `NoCoordination`, which answers nothing
    plane.py      `CoordinationPlane`: the drivable whole, `on_message`, `tick`, `announce`, `try_lock`
    directory.py  the replicated state: announcements by node, leader hints, expiry
    locks.py      the replicated state: advisory locks
    commands.py   the bytes of a replicated command
    wire.py       the bytes between two planes: envelope and messages; no pickle
    transport.py  at most once, in order, only from the present session, epoch and term
    engine.py     PySyncObj, with the parts replaced that pickle, read a clock or trust a late message
    snapshot.py   what a peer that is far behind gets

Importing this package, or `view`, does not load PySyncObj.
"""

"""What the plane keeps away from: sockets, files, processes, pickles; and PySyncObj where nobody needs it."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

WATCHED_RUN = """
import os, sys
watched = []
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "pickle.")) or writes:
        watched.append((event, repr(arguments)))
sys.dont_write_bytecode = True
sys.addaudithook(hook)

from tests.node.coordination.links import Network
network = Network(5)
for node_id in network.member_ids:
    network.announce(node_id, {node_id: 1})
network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
network.kill(2)
network.run(400)  # long enough for the log to be cut, and for a snapshot to be sent to the node that comes back
network.start(2)
network.announce(2, {2: 2})
network.run_until(lambda: all(network.everyone_sees(node_id) for node_id in network.member_ids))
for descriptor in os.scandir("/proc/self/fd"):
    try:
        name = os.readlink(descriptor.path)
    except FileNotFoundError:  # the one that lists the others
        continue
    if name.startswith("socket:"):
        watched.append(("descriptor", name))
import threading
watched += [("thread", thread.name) for thread in threading.enumerate() if thread is not threading.main_thread()]
assert not watched, watched
"""


TRACED_RUN = """
import hashlib
from tests.node.coordination.links import Network
network = Network(7, seed=3)
for node_id in network.member_ids:
    network.announce(node_id, {node_id: 1})
network.run(20)
network.kill(2)
network.run(20)
print(len(network.history), hashlib.sha256(repr(network.history).encode()).hexdigest())
"""


def run(program: str, hash_seed: str = "random") -> str:
    """Run `program` in a new interpreter in the repository; return what it prints, fail if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_messages_are_the_same_in_every_process() -> None:
    traces = {run(TRACED_RUN, hash_seed) for hash_seed in ("1", "2")}
    assert len(traces) == 1
    assert int(traces.pop().split()[0]) > 100


def test_from_import_to_snapshot_nothing_opens_a_socket_a_file_a_process_a_thread_or_a_pickle() -> None:
    run(WATCHED_RUN)


def test_asking_for_the_view_does_not_load_pysyncobj() -> None:
    run("import quorumlog.node.coordination.view, sys; assert 'pysyncobj' not in sys.modules")


def test_another_user_of_pysyncobj_in_this_process_keeps_its_clock() -> None:
    run(
        "import pysyncobj.syncobj as theirs, quorumlog.node.coordination.engine as ours; "
        "assert theirs.monotonicTime != ours.ENGINE_TIME.read; "
        "assert not issubclass(ours.CoordinationEngine, theirs.SyncObj)"
    )

"""How the program ends when the process around it is not as usual: a process, its streams, its exit code."""

import os
import subprocess
import sys

import pytest

SECONDS = 60.0
HELP = ["-m", "quorumlog", "--help"]


def run(*command: str, redirected: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python with its standard streams redirected as a shell would."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )


@pytest.mark.parametrize(("redirected", "reason"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize("command", [HELP, ["-m", "quorumlog"], ["-m", "quorumlog", "doctor", "-b", "127.0.0.1:1"]])
def test_an_output_that_cannot_be_written_is_named(command: list[str], redirected: str, reason: str) -> None:
    done = run(*command, redirected=redirected)
    assert done.stderr.splitlines() == [
        f"quorumlog: cannot write to standard output: {reason}",
        "hint: redirect it to a file where there is room, or to /dev/null",
    ]
    assert done.returncode == 1


@pytest.mark.parametrize("redirected", [">&-", "<&-", "<&- >&-", "2>&-", ">/dev/full"])
def test_a_stream_that_is_not_needed_may_be_closed(redirected: str) -> None:
    done = run("-m", "quorumlog", "topic", "list", "-b", "127.0.0.1:1", redirected=redirected)
    told = [] if "2>&-" in redirected else ["quorumlog: cannot connect to 127.0.0.1:1: Connection refused"]
    assert (done.returncode, done.stderr.splitlines()[:1]) == (1, told)


CTRL_C_WHILE_IT_LOADS = """
import signal, sys

class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Pressed())
from quorumlog.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("module", ["quorumlog.cli.program", "quorumlog.errors", "google.protobuf", "grpc"])
def test_ctrl_c_while_the_program_is_loaded_ends_it_like_any_other(module: str) -> None:
    done = run("-c", CTRL_C_WHILE_IT_LOADS.replace("MODULE", repr(module)), "topic", "list", "-b", "127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")

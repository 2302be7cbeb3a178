"""How the program finds a verb and how it ends."""

import argparse
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from quorumlog.cli import program
from quorumlog.cli.errors import CommandFailed, UsageError
from quorumlog.cli.main import main
from quorumlog.errors import InvalidRequest, NoLeader, UnknownTopic

Outcome = int | BaseException


class Loaded(EntryPoint):
    """An entry point that is loaded already."""

    _verb: Callable[[argparse.ArgumentParser], None]

    def load(self) -> object:
        return self._verb

    def __init__(self, name: str, verb: Callable[[argparse.ArgumentParser], None]) -> None:
        vars(self).update(_verb=verb)
        super().__init__(name, "tests:verb", program.GROUP)


def verb_that(ends: Outcome) -> EntryPoint:
    """The entry point of a verb that ends so."""

    def run(arguments: argparse.Namespace) -> int:
        if isinstance(ends, BaseException):
            raise ends
        return ends

    def verb(parser: argparse.ArgumentParser) -> None:
        parser.set_defaults(run=run)

    return Loaded("spin", verb)


def use(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    monkeypatch.setattr(program, "entry_points", lambda *, group: [point for point in points if point.group == group])


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (0, 0, ""),
        (3, 3, ""),
        (
            UnknownTopic("no topic 'x'", hint="create it", code="UNKNOWN_TOPIC"),
            1,
            "quorumlog: no topic 'x'\nhint: create it\n",
        ),
        (NoLeader("nobody leads"), 1, "quorumlog: nobody leads\n"),
        (
            InvalidRequest("no bootstrap address", hint="give one"),
            2,
            "quorumlog: no bootstrap address\nhint: give one\n",
        ),
        (InvalidRequest("5 replicas", code="INVALID_REPLICATION"), 1, "quorumlog: 5 replicas\n"),
        (UsageError("nothing to change", "give -c"), 2, "quorumlog: nothing to change\nhint: give -c\n"),
        (CommandFailed("line 3: too large"), 1, "quorumlog: line 3: too large\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_end_has_its_exit_code_and_its_words(
    ends: Outcome, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, verb_that(ends))
    assert main(["spin"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_bug_is_not_dressed_up_as_an_error_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, verb_that(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["spin"])


@pytest.mark.parametrize("verb", ["node", "dev"])
def test_a_verb_that_is_not_installed_says_what_to_install(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch)
    assert main([verb, "--config", "x"]) == 2
    assert capsys.readouterr().err == f"quorumlog: {verb} needs: pip install 'quorumlog[node]'\n"


def test_a_verb_whose_packages_are_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, EntryPoint("node", "a_package_that_is_not_there:node", program.GROUP))
    assert main(["node"]) == 2
    assert "needs: pip install 'quorumlog[node]'" in capsys.readouterr().err


def test_a_part_of_the_package_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, EntryPoint("node", "quorumlog.not_there:node", program.GROUP))
    with pytest.raises(ModuleNotFoundError):
        main(["node"])


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["topic"], "the following arguments are required: COMMAND", "see quorumlog topic --help"),
        (["topik"], "invalid choice: 'topik'", "see quorumlog --help"),
        (
            ["topic", "create", "x", "-p", "0"],
            "argument -p/--partitions: '0' is not a whole number of at least 1",
            "see",
        ),
        (
            ["topic", "create", "x", "-p", "99999999999"],
            "-p/--partitions: '99999999999' is not a whole number below",
            "see",
        ),
        (
            ["topic", "create", "x", "-r", "99999999999"],
            "-r/--replicas: '99999999999' is not a whole number below",
            "see",
        ),
        (["produce", "x", "-p", "99999999999"], "-p/--partition: '99999999999' is not a whole number below", "see"),
        (["consume", "x", "-o", "9" * 19], f"--offset: '{'9' * 19}' is not a whole number below", "see"),
        (["consume", "x", "-o", "9" * 5000], "--offset: ", "see quorumlog consume --help"),
        (["group", "reset", "g", "-t", "x", "--to", "9" * 19], "--to: ", "see quorumlog group reset --help"),
        (["cluster", "transfer", "x", "0", "--to", "99999999999"], "--to: '99999999999' is not", "see"),
        (
            ["cluster", "init", "--node", "99999999999=b:1"],
            "'99999999999' is not a node_id",
            "write --node 1=HOST:PORT",
        ),
        (["bench", "produce", "-p", "99999999999"], "-p/--partitions: '99999999999' is not", "see"),
        (["topic", "create", "x", "-c", "k"], "'k' is not key=value", "see quorumlog topic create --help"),
        (["topic", "alter", "x"], "nothing to change", "give -c KEY=VALUE or --reset KEY"),
        (["consume", "x", "-g", "g", "-o", "5"], "a group decides itself", "quorumlog group reset"),
        (["consume", "x", "--until", "start"], "--until start would consume nothing", "--until end"),
        (["consume", "x", "--format", "%q"], "--format has %q", "use %k"),
        (["produce", "x", "-K", ""], "-K needs a delimiter", "for example -K :"),
        (["cluster", "drain", "three"], "NODE_ID: 'three' is not a whole number", "see quorumlog cluster drain --help"),
        (["cluster", "reassign"], "what shall move?", "--balance"),
        (["cluster", "reassign", "x", "0", "--to", "1", "--balance"], "what shall move?", "give one of"),
        (["cluster", "reassign", "x", "--to", "1"], "named by all three", "reassign TOPIC PARTITION --to 1,2,3"),
        (["cluster", "reassign", "x", "0", "--to", "1,b"], "--to: 'b' is not", "see quorumlog cluster reassign --help"),
        (["cluster", "reassign", "--file", "/nowhere.json"], "cannot read /nowhere.json", "give the path"),
        (["cluster", "init", "--node", "a=b:1"], "'a' is not a node_id", "write --node 1=HOST:PORT"),
        (["cluster", "init", "--node", "1=b:1", "--node", "1=c:1"], "--node 1 is given twice", "of its own"),
        (["topic", "list", "-b", ","], "no bootstrap address", "host:port"),
        (["bench", "produce", "--seconds", "0"], "'0' is not a number of seconds", "see quorumlog bench --help"),
    ],
)
def test_wrong_usage_is_named_with_what_to_write_instead(
    arguments: list[str], message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert code == 2
    assert out == ""
    assert first.startswith("quorumlog: ")
    assert message in first
    assert second.startswith("hint: ")
    assert hint in second


NO_UTF8 = os.fsdecode(b"a=\xff")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["produce", NO_UTF8], "argument topic"),
        (["produce", "x", "-H", NO_UTF8], "argument -H/--header"),
        (["produce", "x", "-K", NO_UTF8], "argument -K/--key-delimiter"),
        (["consume", "x", "--format", NO_UTF8], "argument --format"),
        (["consume", "x", "-g", NO_UTF8], "argument -g/--group"),
        (["group", "describe", NO_UTF8], "argument group"),
        (["topic", "create", "x", "-c", NO_UTF8], "argument -c/--config"),
        (["topic", "alter", "x", "--reset", NO_UTF8], "argument --reset"),
        (["topic", "list", "-b", NO_UTF8], "argument -b/--bootstrap"),
    ],
)
def test_an_argument_that_is_not_utf8_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    first, second = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert first == f"quorumlog: {named}: b'a=\\xff' is not UTF-8: write it in UTF-8"
    assert second.startswith("hint: see quorumlog ")


def test_a_cluster_that_is_not_there_is_named_with_the_stage_and_the_fix(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topic", "list", "-b", "127.0.0.1:1", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().err.splitlines()[0].startswith("quorumlog: cannot connect to 127.0.0.1:1")


def test_without_a_verb_it_shows_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"    {verb} " in shown for verb in ("topic", "produce", "consume", "group", "cluster", "doctor", "dev"))


def test_it_knows_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("quorumlog ")

"""The house: what is packaged, what is written down, nothing left lying about."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("chaos", "client", "node", "proto", "raft")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]

TRACKED = [
    Path(name)
    for name in subprocess.run(
        ["git", "ls-files", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if (ROOT / name).exists()
]
MARKDOWN = [path for path in TRACKED if path.suffix == ".md"]


def test_every_folder_with_python_is_a_package_of_the_wheel() -> None:
    places = {SETUPTOOLS["package-dir"][package]: package for package in SETUPTOOLS["package-dir"]}
    packages = set()
    for path in TRACKED:
        if path.parts[0] in FOLDERS and path.suffix == ".py":
            folder = path.parent
            packages.add(".".join([places[folder.parts[0]], *folder.parts[1:]]))
    assert packages == set(SETUPTOOLS["packages"]), "add it to [tool.setuptools] packages"


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in TRACKED if path.parts[0] in FOLDERS and path.suffix == ".py"}
    assert {folder for folder in folders if not (ROOT / folder / "__init__.py").exists()} == set()


def test_the_plain_client_needs_the_wire_alone() -> None:
    names = {re.split("[><=]", dependency)[0] for dependency in PROJECT["project"]["dependencies"]}
    assert names == {"grpcio", "protobuf"}


def test_the_lock_file_names_no_registry_and_hashes_everything() -> None:
    lock = (ROOT / "requirements-dev.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"^\s*--(index|extra|find|trusted)", lock, re.MULTILINE)
    pinned = re.findall(r"^[a-z0-9-]+==\S+ \\\n    --hash=", lock, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[a-z]", lock, re.MULTILINE)) > 20


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"])
def test_what_a_reader_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_architecture_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {path.parts[0] for path in TRACKED if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    assert {folder for folder in folders if f"{folder}/" not in text} == set()


@pytest.mark.parametrize("path", MARKDOWN, ids=str)
def test_a_page_has_one_title(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / path).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_nothing_is_left_to_be_done_later() -> None:
    marks = re.compile("|".join(word + mark for word, mark in (("FIX", "ME"), ("TO", "DO"), ("X" * 2, "X"))))
    found = []
    for path in TRACKED:
        if path.suffix in {".py", ".proto", ".md", ".toml", ".sh", ""} and path.name != "LICENSE":
            text = (ROOT / path).read_text()
            found += [f"{path}:{number}" for number, line in enumerate(text.splitlines(), 1) if marks.search(line)]
    assert found == []

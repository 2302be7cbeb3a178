"""Small unified diffs, applied by what stands in them: line numbers may be off, the lines may not.

A hunk applies where its context and its removed lines stand one behind the other, once in the whole file. So a patch
survives edits elsewhere in the file, and can never land in another place than the one that it was made for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple


class DoesNotApply(Exception):
    """The tree is no longer what the patch was made for."""


class Hunk(NamedTuple):
    """Lines `old` of the file `path` become `new`."""

    path: str
    old: str
    new: str


def hunks_of(text: str) -> list[Hunk]:
    """The hunks of a patch; what stands before the first `---` is its header."""
    hunks: list[Hunk] = []
    path = ""
    old: list[str] = []
    new: list[str] = []

    def close() -> None:
        if old or new:
            hunks.append(Hunk(path, "".join(old), "".join(new)))
            old.clear()
            new.clear()

    for line in text.splitlines(keepends=True):
        if line.startswith("--- a/"):
            close()
            path = ""
        elif line.startswith("+++ b/"):
            path = line[len("+++ b/") :].strip()
        elif line.startswith("@@"):
            close()
        elif path and line[0] in " -+\n":
            body = line[1:] if line != "\n" else line  # editors strip the blank that stands for an empty line
            if line[0] != "+":
                old.append(body)
            if line[0] != "-":
                new.append(body)
    close()
    return hunks


def apply(text: str, root: Path) -> list[Path]:
    """Apply a patch to the tree under `root`; the files changed. Raises DoesNotApply, and then nothing has changed."""
    changed: dict[Path, str] = {}
    for hunk in hunks_of(text):
        file = root / hunk.path
        if not file.is_file():
            raise DoesNotApply(f"{hunk.path} is gone")
        content = changed.get(file) or file.read_text()
        places = [match.start() for match in re.finditer(f"^(?={re.escape(hunk.old)})", content, re.MULTILINE)]
        if len(places) != 1:
            raise DoesNotApply(f"{hunk.path} has {len(places)} places like this:\n{hunk.old}")
        changed[file] = content[: places[0]] + hunk.new + content[places[0] + len(hunk.old) :]
    if not changed:
        raise DoesNotApply("it changes nothing")
    for file, content in changed.items():
        file.write_text(content)
    return list(changed)

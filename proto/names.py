"""Names of topics and groups. The rules are Kafka's, so a name is also good there, in a path and in a metric."""

import re
from typing import Final

NAME_CHARACTERS_MAX: Final = 249
INTERNAL_PREFIX: Final = "__"
"""Topics whose names begin so belong to the cluster itself."""

_ALLOWED: Final = re.compile(r"[a-zA-Z0-9._-]+")
_NOT_ALLOWED: Final = re.compile(r"[^a-zA-Z0-9._-]")


class NameInvalid(ValueError):
    """A name breaks the rules: `message` names it and what is wrong, `hint` the fix."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def is_internal(topic: str) -> bool:
    """True for topics of the cluster itself."""
    return topic.startswith(INTERNAL_PREFIX)


def check_topic_name(name: str) -> None:
    """Raise NameInvalid unless a user may create a topic called `name`."""
    _check("topic", name)
    if is_internal(name):
        raise NameInvalid(
            f"topic name {name!r} begins with {INTERNAL_PREFIX!r}, which is reserved for internal topics",
            f"use {name.lstrip('_') or 'another name'}",
        )


def check_group_name(name: str) -> None:
    """Raise NameInvalid unless a consumer group may be called `name`."""
    _check("group", name)


def _check(what: str, name: str) -> None:
    if not name:
        raise NameInvalid(f"the {what} name is empty", f"give the {what} a name")
    if len(name) > NAME_CHARACTERS_MAX:
        raise NameInvalid(
            f"{what} name {name[:20]!r}... has {len(name)} characters",
            f"use at most {NAME_CHARACTERS_MAX}",
        )
    if not _ALLOWED.fullmatch(name):
        wrong = "".join(sorted(set(_NOT_ALLOWED.findall(name))))
        raise NameInvalid(f"{what} name {name!r} contains {wrong!r}", "use only a-z A-Z 0-9 . _ -")
    if name in (".", ".."):
        raise NameInvalid(f"{what} name {name!r} is the name of a folder", "use a longer name")

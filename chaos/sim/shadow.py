"""What a database holds of every log and every vote: as it is read now, and as it would survive the power.

Kept from the batches as they are written and synced, apart from the code that writes them, so that a promise can be
held against the disk itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from struct import Struct
from typing import Final, NamedTuple

from quorumlog.node.storage.interface import Change, ChangeKind, Family
from quorumlog.node.storage.keys import MetaRow, group_and_row_of_meta_key
from quorumlog.node.storage.votes import decode_hard_state

_LOG_KEY: Final = Struct(">BQQ")
_LOG_KEY_BYTES: Final = 17
_ENTRY_KIND_AND_TERM: Final = Struct(">xBxxxxxxxxxxxxxxxxxxQ")
_PREFIX_INDEX: Final = Struct(">xxxxxxxxQ")
"""Of a PREFIX row: the term of the entry before the first retained one, and the index of that one."""


class Did(Enum):
    """What a batch did to a group."""

    PUT = 0
    CUT = 1
    BEGIN = 2
    HARD = 3
    GONE = 4


class Step(NamedTuple):
    """One change of one group: an entry put (index, term), a range cut (from, to), a new beginning of the log (first
    index), a hard state (term, vote), everything gone.
    """

    what: Did
    group_id: int
    one: int = 0
    two: int = 0
    data: bytes = b""


class GroupShadow:
    """One group's log and hard state. `first` is the first index retained."""

    __slots__ = ("first", "last", "term", "terms", "vote")

    def __init__(self) -> None:
        self.terms: dict[int, int] = {}
        self.first = 1
        self.last = 0
        self.term = 0
        self.vote = 0

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is here, or was and is part of what the log begins behind."""
        return index < self.first or self.terms.get(index) == term

    @property
    def gapless(self) -> bool:
        """Whether the entries here are those from the first to the last, and no others, as far as their number and the
        two ends tell.
        """
        terms, first, last = self.terms, self.first, self.last
        return len(terms) == last - first + 1 and (not terms or (first in terms and last in terms))

    def take(self, step: Step) -> None:
        """Carry a step out."""
        if step.what is Did.PUT:
            self.terms[step.one] = step.two
            self.last = max(self.last, step.one)
        elif step.what is Did.CUT:
            if step.two > self.last + 1:
                self.terms = {index: term for index, term in self.terms.items() if index < step.one}
            else:
                for index in range(step.one, step.two):
                    self.terms.pop(index, None)
            if step.two > max(self.last, self.first):  # else it is a prefix, and the new beginning is known already
                self.last = min(self.last, step.one - 1)
        elif step.what is Did.BEGIN:
            self.first = step.one
            self.last = max(self.last, step.one - 1)
        elif step.what is Did.HARD:
            self.term, self.vote = step.one, step.two


class Shadow:
    """Both views of one database."""

    def __init__(self) -> None:
        self.visible: dict[int, GroupShadow] = {}
        self.durable: dict[int, GroupShadow] = {}
        self._unsynced: deque[list[Step]] = deque()
        self._deleted: dict[int, list[GroupShadow]] = {}

    def ever_held(self, group_id: int, index: int, term: int) -> bool:
        """Whether an entry is durable here, or was until the group was deleted."""
        durable = self.durable.get(group_id)
        if durable is not None and durable.holds(index, term):
            return True
        return any(group.holds(index, term) for group in self._deleted.get(group_id, ()))

    def _keep(self, steps: Sequence[Step]) -> None:
        """Make steps durable."""
        for step in steps:  # before any of them is carried out: the entries go first
            if step.what is Did.GONE and step.group_id in self.durable:
                self._deleted.setdefault(step.group_id, []).append(_copy(self.durable[step.group_id]))
        _take(self.durable, steps)

    def wrote(self, steps: list[Step]) -> None:
        """A batch that does this is visible."""
        _take(self.visible, steps)
        self._unsynced.append(steps)

    def synced(self, left: int) -> None:
        """All batches but the last `left` are durable."""
        while len(self._unsynced) > left:
            self._keep(self._unsynced.popleft())

    def crashed(self, keep: int) -> None:
        """Of the batches that were not synced, the first `keep` are left, and nothing else is seen any more."""
        for _ in range(min(keep, len(self._unsynced))):
            self._keep(self._unsynced.popleft())
        self._unsynced.clear()
        self.visible = {group_id: _copy(group) for group_id, group in self.durable.items()}


def steps_of(changes: Sequence[Change]) -> list[Step]:
    """What a batch does to logs and hard states."""
    steps = []
    for kind, family, key, value in changes:
        if family is Family.LOG:
            if kind is ChangeKind.PUT:
                _, group_id, index = _LOG_KEY.unpack(key)
                _, term = _ENTRY_KIND_AND_TERM.unpack_from(value)
                steps.append(Step(Did.PUT, group_id, index, term, value))
            elif kind is ChangeKind.DELETE_RANGE:
                group_id = int.from_bytes(key[1:9], "big")
                if len(key) < _LOG_KEY_BYTES:
                    steps.append(Step(Did.CUT, group_id, 0, 1 << 63))
                else:
                    steps.append(Step(Did.CUT, group_id, _index(key), _index(value)))
        elif family is Family.META:
            if kind is ChangeKind.PUT:
                group_id, row = group_and_row_of_meta_key(key)
                if row == MetaRow.HARD_STATE:
                    state = decode_hard_state(value, group_id)
                    steps.append(Step(Did.HARD, group_id, state.term, state.vote))
                elif row == MetaRow.PREFIX:
                    steps.append(Step(Did.BEGIN, group_id, *_PREFIX_INDEX.unpack_from(value)))
            elif kind is ChangeKind.DELETE:
                group_id, row = group_and_row_of_meta_key(key)
                if row == MetaRow.PREFIX:
                    steps.append(Step(Did.BEGIN, group_id, 1))
            elif len(key) < 10:
                steps.append(Step(Did.GONE, int.from_bytes(key[1:9], "big")))
    return steps


def kind_of(data: bytes) -> int:
    """The kind of a stored entry."""
    return data[1]


def _index(key: bytes) -> int:
    return int.from_bytes(key[9:17], "big")


def _take(groups: dict[int, GroupShadow], steps: Sequence[Step]) -> None:
    for step in steps:
        if step.what is Did.GONE:
            groups.pop(step.group_id, None)
            continue
        group = groups.get(step.group_id)
        if group is None:
            group = groups[step.group_id] = GroupShadow()
        group.take(step)


def _copy(group: GroupShadow) -> GroupShadow:
    copy = GroupShadow()
    copy.terms = dict(group.terms)
    copy.first, copy.last, copy.term, copy.vote = group.first, group.last, group.term, group.vote
    return copy

"""A schedule that makes a seed fail, with everything left out that is not needed for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def shrink(strokes: Sequence[int], fails: Callable[[Sequence[int]], bool]) -> list[int]:
    """Return as few of the strokes as still fail when they are alone, in order.

    Delta debugging (Zeller and Hildebrandt, 2002): leave out halves, quarters, and so on down to single strokes, as
    long as what is left still fails. With fewer strokes everything after them happens otherwise, so what remains may
    fail for another cause of the same class; it is a failure all the same.
    """
    left = list(strokes)
    parts = 2
    while left:
        size = -(-len(left) // parts)
        for begin in range(0, len(left), size):
            rest = left[:begin] + left[begin + size :]
            if fails(rest):
                left = rest
                parts = max(parts - 1, 2)
                break
        else:
            if size == 1:
                return left
            parts = min(parts * 2, len(left))
    return left

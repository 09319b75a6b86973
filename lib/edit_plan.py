"""Which edits are made of an image: the directions it has, at strengths, alone or combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lib.records import Discovered
from lib.shift import Shift

EditPlan = Callable[[Discovered], Sequence[Shift]]
"""The edits of one image, in the order in which they are stored."""


def every_strength(strengths: Sequence[float]) -> EditPlan:
    """Every direction at every strength."""
    return lambda discovered: [Shift(d, s) for d in discovered.directions for s in strengths]

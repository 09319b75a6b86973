"""Which edits are made of an image: the directions it has, at strengths, alone or combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lib.direction import Direction
from lib.directions.edit_query import Candidate, Choice, Entry, enumerated, sampled
from lib.editors.learned_editor import LearnedEditor
from lib.records import Discovered
from lib.shift import Shift

EditPlan = Callable[[Discovered], Sequence[Shift]]
"""The edits of one image, in the order in which they are stored."""


def every_strength(strengths: Sequence[float]) -> EditPlan:
    """Every direction at every strength."""
    return lambda discovered: [Shift(d, s) for d in discovered.applicable for s in strengths]


def planned(entries: Sequence[Entry], sample: int | None) -> EditPlan:
    """What the entries select of an image's directions; of that, `sample` edits by its seed, or
    all with None.
    """
    return partial(_planned, tuple(entries), sample)


def _planned(
    entries: tuple[Entry, ...], sample: int | None, discovered: Discovered
) -> list[Shift]:  # fmt: skip
    directions = discovered.applicable
    choices = enumerated(entries, [candidate(direction) for direction in directions])
    seed = discovered.segmented.inverted.sample.seed
    return [_shift(directions, choice) for choice in sampled(choices, sample, seed)]


def candidate(direction: Direction | LearnedEditor) -> Candidate:
    """What a plan can ask of a direction or learned editor."""
    scores = direction.scores if isinstance(direction, Direction) else None
    return Candidate(
        region=direction.region,
        rank=direction.rank,
        method=direction.method,
        id=direction.id,
        label=direction.label,
        score=None if scores is None else scores.score,
        roir=None if scores is None else scores.roir,
    )


def _shift(directions: Sequence[Direction | LearnedEditor], choice: Choice) -> Shift:
    first, *added = (Shift(directions[position], strength) for position, strength in choice)
    return Shift(first.direction, first.strength, tuple(added))

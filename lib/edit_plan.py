"""Which edits are made of an image: the directions it has, at strengths, alone or combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lib.direction import Direction
from lib.edit_query import Candidate, Choice, Entry, enumerated, sampled
from lib.records import Discovered
from lib.shift import Shift

EditPlan = Callable[[Discovered], Sequence[Shift]]
"""The edits of one image, in the order in which they are stored."""


def every_strength(strengths: Sequence[float]) -> EditPlan:
    """Every direction at every strength."""
    return lambda discovered: [Shift(d, s) for d in discovered.directions for s in strengths]


def plain(_direction: Direction) -> float:
    """Strengths are in units of the model's mean norm of h, whatever the direction."""
    return 1.0


def solved(direction: Direction) -> float:
    """The strength at which a direction does what it was found for, its parameter `strength`."""
    return float(direction.parameters["strength"])


def planned(
    entries: Sequence[Entry], sample: int | None, unit: Callable[[Direction], float] = plain
) -> EditPlan:
    """What the entries select of an image's directions; of that, `sample` edits by its seed, or
    all with None. `unit` is what an entry's strength of 1 means for a direction.
    """
    return partial(_planned, tuple(entries), sample, unit)


def _planned(
    entries: tuple[Entry, ...],
    sample: int | None,
    unit: Callable[[Direction], float],
    discovered: Discovered,
) -> list[Shift]:
    directions = discovered.directions
    choices = enumerated(entries, [candidate(direction) for direction in directions])
    seed = discovered.segmented.inverted.sample.seed
    return [_shift(directions, choice, unit) for choice in sampled(choices, sample, seed)]


def candidate(direction: Direction) -> Candidate:
    """What a plan can ask of a direction."""
    scores = direction.scores
    return Candidate(
        region=direction.region,
        rank=direction.rank,
        method=direction.method,
        id=direction.id,
        label=direction.label,
        score=None if scores is None else scores.score,
        roir=None if scores is None else scores.roir,
    )


def _shift(
    directions: Sequence[Direction], choice: Choice, unit: Callable[[Direction], float]
) -> Shift:
    first, *added = (
        Shift(directions[position], strength * unit(directions[position]))
        for position, strength in choice
    )
    return Shift(first.direction, first.strength, tuple(added))

"""Which edits a plan means, counted on what is known of directions: no torch, so that `plan` counts
with the same code that a run edits with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from lib.region_names import WHOLE

Choice = tuple[tuple[int, float], ...]
"""One edit: the positions of its directions among the candidates, each with its strength."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a selection can ask of a direction."""

    region: str
    rank: int
    method: str
    id: str | None = None
    """None: not known before the direction is found."""
    label: str | None = None
    score: float | None = None
    roir: float | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of the directions; what is empty or None asks nothing."""

    ids: tuple[str, ...] = ()
    """Their first digits."""
    regions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    max_rank: int | None = None
    """Only the first so many directions of every region."""
    min_score: float | None = None
    max_roir: float | None = None

    def matches(self, direction: Candidate) -> bool:
        """Whether the direction is one of them; one without a score or ROIR passes no limit."""
        return (
            (not self.ids or any((direction.id or "").startswith(start) for start in self.ids))
            and (not self.regions or direction.region in self.regions)
            and (not self.labels or direction.label in self.labels)
            and (not self.methods or direction.method in self.methods)
            and (not self.ranks or direction.rank in self.ranks)
            and (self.max_rank is None or direction.rank < self.max_rank)
            and (
                self.min_score is None
                or (direction.score is not None and direction.score >= self.min_score)
            )
            and (
                self.max_roir is None
                or (direction.roir is not None and direction.roir <= self.max_roir)
            )
        )


@dataclass(frozen=True, slots=True)
class Term:
    """Directions, each at each of the strengths."""

    selection: Selection
    strengths: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One term: an edit for each direction and strength. Several: edits that combine one of each,
    in every way.
    """

    terms: tuple[Term, ...]
    same_region: bool = False
    """Whether a combination may add directions of one region, or a direction to itself.
    Directions of the whole image belong to no region.
    """


def enumerated(entries: Sequence[Entry], candidates: Sequence[Candidate]) -> list[Choice]:
    """All edits in the order of the entries, within one in the order of the directions, then of
    the strengths; what two entries mean alike is there once.
    """
    found: dict[frozenset[tuple[int, float]] | Choice, Choice] = {}
    for entry in entries:
        for choice in _choices(entry, candidates):
            distinct = frozenset(choice)
            # A direction added to itself at one strength is no set of two.
            found.setdefault(distinct if len(distinct) == len(choice) else choice, choice)
    return list(found.values())


def _choices(entry: Entry, candidates: Sequence[Candidate]) -> Iterator[Choice]:
    sides = [
        [
            (position, strength)
            for position, candidate in enumerate(candidates)
            if term.selection.matches(candidate)
            for strength in term.strengths
        ]
        for term in entry.terms
    ]
    for choice in product(*sides):
        if entry.same_region or _apart([candidates[position] for position, _ in choice], choice):
            yield choice


def _apart(directions: Sequence[Candidate], choice: Choice) -> bool:
    """Whether no two are one direction, or of one region."""
    tied = [direction.region for direction in directions if direction.region != WHOLE]
    positions = {position for position, _ in choice}
    return len(set(tied)) == len(tied) and len(positions) == len(choice)


def sampled(choices: Sequence[Choice], count: int | None, seed: int) -> list[Choice]:
    """`count` of the choices by the image's seed, in their order; all where there are no more, or
    with None.

    By hashes of their positions and not by a library's generator, so that every release of it
    chooses the same.
    """
    if count is None or count >= len(choices):
        return list(choices)

    def lot(position: int) -> bytes:
        return hashlib.sha256(f"{seed}/{position}".encode()).digest()

    return [choices[i] for i in sorted(sorted(range(len(choices)), key=lot)[:count])]

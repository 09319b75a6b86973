"""What is kept of edits of one face, and what it says over faces.

Shape suffix: S strengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DIAL = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)
"""Of the strength that changes a region by about 0.15: the useful range."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One direction on one face."""

    face: int
    region: str
    factor: str
    """The factor of the region that moves most between - and + the full strength."""
    change_S: tuple[float, ...]
    """Of that factor, at the strengths of DIAL."""
    in_change: dict[int, float]
    """Number of steps -> mean |change| in the region, over - and + the full strength."""
    factor_change: dict[int, float]
    """Number of steps -> half the difference of the factor between + and -."""
    roir: float
    """Mean over - and + the full strength."""
    guarded_roir: float
    guarded_in_change: float
    """Of what the region changed by without the guard."""

    @property
    def correlation(self) -> float:
        """Of the factor's change with the strength, whichever way + goes."""
        return abs(_correlation(self.change_S))

    @property
    def opposite(self) -> bool:
        """Whether + and - move the factor in opposite directions."""
        return self.change_S[0] * self.change_S[-1] < 0


@dataclass(frozen=True, slots=True)
class Composition:
    """Two directions of different regions in one decode, seen in one of the regions."""

    face: int
    region: str
    other: str
    alone: float
    """|Change| of the region's factor by its direction."""
    together: float
    """Change by both, counted the same way."""
    change_ratio: float
    """Mean |edited - reconstruction| in the region: together / alone."""
    difference: float
    """Mean |together - alone| in the region, of the mean |alone - reconstruction| there."""


def mean_correlation(effects: Sequence[Effect]) -> float:
    """Of the mean change over faces with the strength, + taken the way the factor rises."""
    rows = [np.array(e.change_S) * (1 if e.change_S[-1] > e.change_S[0] else -1) for e in effects]
    return _correlation(np.mean(rows, axis=0).tolist())


def _correlation(change_S: Sequence[float]) -> float:
    return float(np.corrcoef([*DIAL, 0.0], [*change_S, 0.0])[0, 1])


def kept(compositions: Sequence[Composition]) -> float:
    """Change of the regions' factors together / alone, over all of them: 1 where a direction does
    beside another what it does alone.
    """
    return sum(c.together for c in compositions) / sum(c.alone for c in compositions)

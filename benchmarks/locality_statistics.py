"""Statistics of paired edits: every method is compared with the plain masked Jacobian on the same
face, because faces differ more than methods do.

Shape suffixes: N faces, P bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.locality_edits import Row
from benchmarks.locality_methods import REGIONS

PLAIN = "jacobian"


@dataclass(frozen=True, slots=True)
class Paired:
    """Ratios of a method to the plain one, over faces."""

    median: float
    low: float
    high: float
    """The bootstrap interval of the median."""
    worst: float
    better: int
    """Faces with a ratio below 1."""
    count: int


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> Paired:
    """Face by face `values` / `base`, lower is better.

    Raises:
        ValueError: they are not of the same faces.
    """
    if sorted(values) != sorted(base) or not values:
        raise ValueError(
            f"a paired ratio needs the same faces on both sides, got {sorted(values)} and"
            f" {sorted(base)}"
        )
    ratios = [values[face] / base[face] for face in sorted(values)]
    low, high = bootstrap_median(ratios)
    better = sum(r < 1 for r in ratios)
    return Paired(median(ratios), low, high, max(ratios), better, len(ratios))


def bootstrap_median(
    values: Sequence[float], *, level: float = 0.95, draws: int = 9999, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median (Efron 1979)."""
    generator = np.random.default_rng(seed)
    pick_PN = generator.integers(0, len(values), (draws, len(values)))
    median_P = np.median(np.asarray(values)[pick_PN], axis=1)
    low, high = np.quantile(median_P, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summed_roir(rows: Sequence[Row], method: str) -> dict[int, float]:
    """Face -> sum of ROIR over the regions.

    Raises:
        ValueError: a face has not every region exactly once.
    """
    by_face: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.method == method:
            regions = by_face.setdefault(row.face, {})
            if row.region in regions:
                raise ValueError(f"face {row.face} has {method} on {row.region} twice")
            regions[row.region] = row.roir
    for face, regions in by_face.items():
        if sorted(regions) != sorted(REGIONS):
            raise ValueError(f"face {face} has {method} on {sorted(regions)}, not on all regions")
    return {face: sum(own[name] for name in REGIONS) for face, own in by_face.items()}


@dataclass(frozen=True, slots=True)
class Line:
    """One method under one condition; medians over faces, in the order of REGIONS."""

    method: str
    roir: tuple[float, ...]
    ratio: Paired
    own_change: tuple[float, ...]
    other_change: tuple[float, ...]
    strength: tuple[float, ...]
    reached: float
    """Share of edits within the tolerance of the wanted change."""


def line(rows: Sequence[Row], method: str) -> Line:
    """Of the rows of one condition and target."""
    own = [row for row in rows if row.method == method]

    def medians(name: str) -> tuple[float, ...]:
        return tuple(
            median(abs(getattr(row, name)) for row in own if row.region == region)
            for region in REGIONS
        )

    return Line(
        method,
        medians("roir"),
        paired(summed_roir(rows, method), summed_roir(rows, PLAIN)),
        medians("own_change"),
        medians("other_change"),
        medians("strength"),
        sum(row.reached for row in own) / len(own),
    )

"""Medians with their bootstrap intervals: exact, so the values themselves are kept (four bytes
each), and shards are merged by joining them.

Shape suffixes: N values, I images, R replicates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import REPLICATES, Floats, interval, weights
from lib.metrics.sums import Figure

_AT_ONCE = 25
"""Replicates: what bounds memory."""


@dataclass(slots=True)
class Values:
    """All values of a metric in a scope, with the seeds of their images."""

    parts: list[npt.NDArray[np.float32]] = field(default_factory=list)
    seeds: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, values_N: npt.NDArray[np.float32], seeds_N: npt.NDArray[np.uint64]) -> None:
        """Values that are not NaN count; infinity is a value (of a ratio)."""
        known_N = ~np.isnan(values_N)
        self.parts.append(values_N[known_N])
        self.seeds.append(seeds_N[known_N])

    def median(self) -> Figure:
        """The median with its interval; the same whatever the order of the values."""
        if not self.parts or not (count := sum(map(len, self.parts))):
            return Figure(math.nan, math.nan, math.nan, 0)
        values_N, seeds_N = np.concatenate(self.parts), np.concatenate(self.seeds)
        images, image_N = np.unique(seeds_N, return_inverse=True)
        order_N = np.lexsort((seeds_N, values_N))
        medians_R = _medians(values_N[order_N], image_N[order_N], images)
        return Figure(float(np.median(values_N.astype(np.float64))), *interval(medians_R), count)


def _medians(
    sorted_N: npt.NDArray[np.float32],
    image_N: npt.NDArray[np.intp],
    seeds_I: npt.NDArray[np.uint64],
) -> Floats:
    """Weighted (lower) median in every replicate."""
    found: list[float] = []
    for first in range(0, REPLICATES, _AT_ONCE):
        for weight_I in weights(seeds_I, first, min(_AT_ONCE, REPLICATES - first)).T:
            below_N = np.cumsum(weight_I[image_N], dtype=np.int64)
            half = below_N[-1] / 2
            place = int(np.searchsorted(below_N, half)) if half else 0
            found.append(float(sorted_N[place]) if half else math.nan)
    return np.array(found)

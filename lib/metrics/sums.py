"""Means of metrics as sums that can be added: over the rows of an image, over images, over shards.

Shape suffixes: N rows, I images, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import Floats, interval

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A number of a whole set with its 95 % interval; NaN where it cannot be known."""

    value: float
    low: float
    high: float
    count: int
    """Rows or images that it comes from."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Count, sum and sum of squares of some values, in all and in every bootstrap replicate."""

    count: int
    total: float
    squares: float
    weight_R: Floats
    """Values in each replicate, counted as often as their image is."""
    total_R: Floats
    """Their sum."""

    def __add__(self, other: Self) -> Moments:
        """Of both sets; they may share images, which then count as one in the bootstrap."""
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.weight_R + other.weight_R,
            self.total_R + other.total_R,
        )

    @property
    def mean(self) -> float:
        """NaN without values."""
        return self.total / self.count if self.count else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation of the values themselves (not of their mean)."""
        if self.count < 2:
            return math.nan
        variance = (self.squares - self.total**2 / self.count) / (self.count - 1)
        return math.sqrt(max(0.0, variance))

    @property
    def means(self) -> Floats:
        """(R,): the mean in every replicate; NaN in those that draw none of the images."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.total_R / np.where(self.weight_R > 0, self.weight_R, np.nan)

    def figure(self) -> Figure:
        """The mean with its interval."""
        return Figure(self.mean, *interval(self.means), self.count)


def moments(
    values_N: npt.ArrayLike, image_N: npt.NDArray[np.intp], weights_IR: npt.ArrayLike
) -> Moments:
    """Of the finite values among `values_N`; `image_N` says in which row of `weights_IR`
    (`bootstrap.weights`) the image of each lies.
    """
    given_N = np.asarray(values_N, np.float64)
    known_N = np.isfinite(given_N)
    values, image = given_N[known_N], image_N[known_N]
    weights = np.asarray(weights_IR, np.float64)
    count_I = np.bincount(image, minlength=len(weights)).astype(np.float64)
    total_I = np.bincount(image, values, minlength=len(weights))
    return Moments(
        len(values),
        float(values.sum()),
        float(np.square(values).sum()),
        count_I @ weights,
        total_I @ weights,
    )


def add_into(sums: dict[K, Moments], more: Mapping[K, Moments]) -> None:
    """Add to each entry of `sums` the one of the same key."""
    for key, found in more.items():
        sums[key] = sums[key] + found if key in sums else found

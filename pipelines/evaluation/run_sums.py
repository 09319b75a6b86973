"""All that is added up over the shards of a run: means, medians, effects and dials, by scope.

A scope is `all`, a region, or region/name: a direction or a combination of directions.

Shape suffix: N edits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from lib.metrics.columns import RECONSTRUCTION
from lib.metrics.disentanglement import Effects, effects
from lib.metrics.edit_rows import EditRows
from lib.metrics.linearity import Dials, Sources, dials, journeys
from lib.metrics.medians import Values
from lib.metrics.sums import Moments, add_into, moments

ALL = "all"
MOST_NAMES = 400
"""Directions with figures of their own, in the order of shards: the replicates of each take 8 kB a
metric.
"""
MEDIANS = ("roir", "roir_original")
"""Ratios, whose mean is ruled by the smallest divisors."""


@dataclass(slots=True)
class RunSums:
    """Grows shard by shard; the order does not matter beyond rounding."""

    sources: Sources
    images: int = 0
    names: set[str] = field(default_factory=set)
    """Of directions that have figures of their own."""
    means: dict[tuple[str, str], Moments] = field(default_factory=dict)
    """(scope, metric) -> moments."""
    medians: dict[tuple[str, str], Values] = field(default_factory=dict)
    effects: Effects = field(default_factory=dict)
    dials: Dials = field(default_factory=dict)
    journeys: Dials = field(default_factory=dict)
    edits: Counter[str] = field(default_factory=Counter)
    """Scope -> edits."""
    filtered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(scope, rule) -> edits that break it first."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rule -> edits that are not among the rows because they break it first."""

    def add(self, rows: EditRows) -> None:
        """The rows of one shard more."""
        if not len(rows.name):
            return
        rows = self._within_bounds(rows)
        self.images += len(rows.index_I)
        _, first_N = np.unique(rows.image_N, return_index=True)
        for metric in RECONSTRUCTION:  # the same for all edits of an image, which counts once
            if metric in rows.metrics:
                found = moments(
                    rows.metrics[metric][first_N], rows.image_N[first_N], rows.weights_IR
                )
                add_into(self.means, {(ALL, metric): found})
        for scope, chosen_N in scopes(rows):
            self.edits[scope] += int(chosen_N.sum())
            self.filtered.update((scope, r) for r in rows.filtered[chosen_N] if r is not None)
            image_N, seeds_N = rows.image_N[chosen_N], rows.seeds_I[rows.image_N[chosen_N]]
            for metric, values_N in rows.metrics.items():
                if metric in RECONSTRUCTION:
                    continue
                if metric in MEDIANS:
                    kept = self.medians.setdefault((scope, metric), Values())
                    kept.add(values_N[chosen_N], seeds_N)
                    continue
                found = moments(values_N[chosen_N], image_N, rows.weights_IR)
                add_into(self.means, {(scope, metric): found})
        add_into(self.effects, effects(rows))
        add_into(self.dials, dials(rows))
        add_into(self.journeys, journeys(rows, self.sources))

    def _within_bounds(self, rows: EditRows) -> EditRows:
        """The rows, those of directions beyond the first so many called `others`."""
        names = set(rows.name.tolist())
        for name in sorted(names - self.names):
            if len(self.names) < MOST_NAMES:
                self.names.add(name)
        if names <= self.names:
            return rows
        known_N = np.array([name in self.names for name in rows.name])
        name = np.where(known_N, rows.name, rows.region + "/others")
        return replace(rows, name=name)

    @property
    def scopes(self) -> list[str]:
        """`all`, then the regions with what is in them."""
        return sorted(self.edits, key=lambda scope: (scope != ALL, scope))


def scopes(rows: EditRows) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Every scope of the rows, and which of them are in it; rows without a region are in `all`
    alone, and a region of that name has no line of its own.
    """
    yield ALL, np.ones(len(rows.name), bool)
    for column in (rows.region, rows.name):
        for scope in sorted(set(column[rows.region != ""].tolist()) - {ALL}):
            yield scope, column == scope

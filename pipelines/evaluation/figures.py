"""The figures of a run as rows: scope, metric, value with its 95 % interval, count, unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lib.metrics.disentanglement import Row, mean_share
from lib.metrics.linearity import BALANCE, LINEARITY, SYMMETRY, transfer
from lib.metrics.sums import Figure, Moments
from pipelines.evaluation.run_sums import ALL, RunSums

_UNITS: Mapping[str, str] = {
    "in_change": "mean abs, images in [-1, 1]",
    "out_change": "mean abs, images in [-1, 1]",
    "in_l2": "mean square, images in [-1, 1]",
    "out_l2": "mean square, images in [-1, 1]",
    "reconstruction_l1": "mean abs, images in [-1, 1]",
    "reconstruction_l2": "mean square, images in [-1, 1]",
    "l1": "mean abs, images in [-1, 1]",
    "l2": "mean square, images in [-1, 1]",
    "psnr": "dB",
    "roir": "ratio, median",
    "roir_original": "ratio, median",
    "transfer": "ratio",
    BALANCE: "ratio",
    LINEARITY: "correlation",
    SYMMETRY: "cosine",
    "diagonal_share": "share",
    "edits": "edits",
    "images": "images",
    "kernel_distance": "squared MMD",
    "frechet_distance": "squared distance",
}
TRANSFER, SHARE = "transfer", "diagonal_share"
FILTERED, DROPPED = "filtered", "dropped"
"""Edits that break a rule and are there, or are not."""


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One row of figures.parquet."""

    scope: str
    metric: str
    figure: Figure

    @property
    def unit(self) -> str:
        """Of value and interval; empty for numbers without one."""
        if self.metric.startswith((FILTERED, DROPPED)):
            return "edits"
        return _UNITS.get(self.metric, "")


def figure_rows(sums: RunSums, matrix: list[Row]) -> Iterator[FigureRow]:
    """All figures, scope by scope in the order of `sums.scopes`."""
    dials = _in_all_scopes(sums)
    moved = transfer(sums.journeys)
    shares = {row.edit: row.share for row in matrix}
    for scope in {ALL, *(row.edit.rpartition("/")[0] for row in matrix)} if matrix else ():
        own = [row for row in matrix if scope in (ALL, row.edit.rpartition("/")[0])]
        shares[scope] = Figure(mean_share(own), math.nan, math.nan, len(own))
    for scope in sums.scopes:
        yield FigureRow(scope, "edits", _count(sums.edits[scope]))
        if scope == ALL:
            yield FigureRow(scope, "images", _count(sums.images))
            if sums.dropped:
                yield FigureRow(scope, DROPPED, _count(sums.dropped.total()))
            for rule, count in sorted(sums.dropped.items()):
                yield FigureRow(scope, f"{DROPPED}: {rule}", _count(count))
        rules = sorted(rule for at, rule in sums.filtered if at == scope)
        broken = sum(sums.filtered[scope, rule] for rule in rules)
        yield FigureRow(scope, FILTERED, _count(broken))
        for rule in rules:
            yield FigureRow(scope, f"{FILTERED}: {rule}", _count(sums.filtered[scope, rule]))
        found = {m: s.figure() for (at, m), s in sums.means.items() if at == scope}
        found |= {m: v.median() for (at, m), v in sums.medians.items() if at == scope}
        found |= {m: s.figure() for (at, m), s in dials.items() if at == scope}
        if scope in moved:
            found[TRANSFER] = moved[scope]
        if scope in shares:
            found[SHARE] = shares[scope]
        for metric in sorted(found):
            if found[metric].count:
                yield FigureRow(scope, metric, found[metric])


def _in_all_scopes(sums: RunSums) -> dict[tuple[str, str], Moments]:
    """Linearity, symmetry and balance of every edit, region, and of all; those of attributes stand
    in the matrix.
    """
    found: dict[tuple[str, str], Moments] = {}
    for (name, what), moments in sorted(sums.dials.items()):
        if what not in (LINEARITY, SYMMETRY, BALANCE):
            continue
        for scope in dict.fromkeys((name, name.rpartition("/")[0], ALL)):
            key = (scope, what)
            found[key] = found[key] + moments if key in found else moments
    return found


def _count(value: int) -> Figure:
    return Figure(float(value), math.nan, math.nan, value)

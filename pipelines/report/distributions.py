"""What the page's charts are drawn from: histograms of every measure by region (or learned editor),
the change over the strength, and change inside against change outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.report.groups import Ints
from pipelines.report.measures import Measure
from pipelines.report.numbers import Floats, RunNumbers, spread

UNIT = "mean norms of h"
"""Of strengths along directions."""
MAX_REGIONS = 8
"""More could not be told apart by colour."""

_FEWEST_BINS, _MOST_BINS = 10, 36
_MAX_POINTS = 1500
_TAILS = (0.3, 99.7)
_QUARTILES = (25, 50, 75)


def charts(numbers: RunNumbers) -> dict[str, Any]:
    """Data of all charts, {} where there is no edit."""
    if not numbers.keys:
        return {}
    series, region_N = numbers.series()
    left_out = len(series) - MAX_REGIONS
    series = series[:MAX_REGIONS]
    names = series_names(series)
    noisy = any(key.noise >= 0 for key in numbers.keys)
    found = {
        "regions": names,
        "regionsLeftOut": max(0, left_out),
        "histograms": [
            histogram
            for measure in numbers.measures
            if (histogram := _histogram(numbers, measure, region_N, len(names))) is not None
        ],
        "strengthOf": _strength_unit(series, noisy=noisy),
    }
    known = {measure.name for measure in numbers.measures}
    if "in_change" in known:
        found["linearity"] = _linearity(numbers, series)
    if {"in_change", "out_change"} <= known:
        found["locality"] = _locality(numbers, region_N, len(names))
    return found


def series_names(series: Sequence[tuple[str, str]]) -> list[str]:
    """What the lines of charts are called: learned editors by name, others by region."""
    regions = {region for learned, region in series if not learned}
    return [
        (f"{learned} (learned)" if learned in regions else learned) if learned else region
        for learned, region in series
    ]


def _strength_unit(series: Sequence[tuple[str, str]], *, noisy: bool) -> str:
    if noisy:
        return "standard deviation of the noise"
    if not any(learned for learned, _ in series):
        return UNIT
    return f"{UNIT}; learned: own unit" if not all(n for n, _ in series) else "own unit"


def _histogram(
    numbers: RunNumbers, measure: Measure, region_N: Ints, regions: int
) -> dict[str, Any] | None:
    """Edits of each region by bins of a measure; None where all values are one and the same."""
    value_N = numbers.column(measure.name)
    usable_N = np.isfinite(value_N) & (region_N < regions)
    log = measure.log and bool(value_N[usable_N].size) and float(value_N[usable_N].max()) > 0
    if log:
        usable_N &= value_N > 0
    if not usable_N.any():
        return None
    low, high = (float(edge) for edge in np.percentile(value_N[usable_N], _TAILS))
    if not high > low:
        return None
    fewest = min(np.bincount(region_N[usable_N]).tolist(), key=lambda n: n or usable_N.size)
    bins = int(np.clip(2 * np.sqrt(fewest), _FEWEST_BINS, _MOST_BINS))
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    clipped_N = np.clip(value_N, low, high)
    counts = [
        np.histogram(clipped_N[usable_N & (region_N == r)], edges)[0].tolist()
        for r in range(regions)
    ]
    medians = [_middle(value_N[usable_N & (region_N == r)]) for r in range(regions)]
    return {
        "name": measure.name, "label": measure.label, "meaning": measure.meaning,
        "better": measure.better, "log": log, "low": low, "high": high, "counts": counts,
        "medians": medians,
    }  # fmt: skip


def _linearity(numbers: RunNumbers, series: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Quartiles of the change in the region at every strength, of directions alone."""
    change_N = numbers.column("in_change")
    lines = []
    for place, each in enumerate(series):
        groups: dict[float, list[int]] = {}
        for number, key in enumerate(numbers.keys):
            if key.series == each and not key.added:
                groups.setdefault(key.strength, []).append(number)
        points = []
        for strength in sorted(groups):
            values = change_N[np.isin(numbers.group_N, groups[strength])]
            known = values[np.isfinite(values)]
            if known.size:
                points.append([strength, *np.percentile(known, _QUARTILES).tolist()])
        if points:
            lines.append({"region": place, "points": points})
    return lines


def _locality(numbers: RunNumbers, region_N: Ints, regions: int) -> dict[str, Any]:
    """A point an edit, evenly chosen where there are too many."""
    inside_N, outside_N = numbers.column("in_change"), numbers.column("out_change")
    usable_N = (inside_N > 0) & (outside_N > 0) & (region_N < regions)
    rows = spread(np.flatnonzero(usable_N).tolist(), _MAX_POINTS)
    return {
        "x": _short(inside_N[rows]),
        "y": _short(outside_N[rows]),
        "region": region_N[rows].tolist(),
        "edits": int(usable_N.sum()),
    }


def _short(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _middle(values: Floats) -> float | None:
    return float(np.median(values)) if values.size else None

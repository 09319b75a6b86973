"""Plots of medians with the middle half of the data: spectra by rank, changes by strength.

Shape suffixes: N images, K ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lib.plots.style import (
    MAX_LINES,
    FileKind,
    Scheme,
    SchemeName,
    Values,
    drawn,
    printable,
    signed,
)

Points = Sequence[tuple[float, Values]]
"""(where, the values there), ascending."""
_QUARTILES = (25, 50, 75)
_MOST_TICKS = 7
_MOST_RANK_TICKS = 10
_TICKS, _FINE_TICKS = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_DECADE = 10
_MARKERS = "osD^vPXd"

UNIT = "mean norms of h"
"""Of strengths along directions."""


def singular_values(
    spectra: Mapping[str, Points], scheme: SchemeName, kind: FileKind = "svg"
) -> bytes:
    """Singular values over their rank from 1, a line a region, on a log axis: how fast a region's
    answer falls off.

    `spectra` maps a region to (rank from 0, the values of all images at that rank).
    """

    def draw(axes: Any, colours: Scheme) -> None:
        shifted = {
            name: [(rank + 1, values[values > 0]) for rank, values in points]
            for name, points in spectra.items()
        }
        _bands(axes, colours, shifted)
        axes.set_yscale("log")
        bottom, top = axes.get_ylim()
        ticks = _TICKS if top / bottom > _DECADE else _FINE_TICKS
        axes.yaxis.set_major_locator(LogLocator(subs=ticks, numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        last = max((points[-1][0] for points in shifted.values() if points), default=1)
        axes.set_xlim(0.6, last + 0.4)
        axes.set_xticks(range(1, int(last) + 1, -(-int(last) // _MOST_RANK_TICKS)))
        axes.set_xlabel("rank")
        axes.set_ylabel("singular value")

    return drawn(draw, scheme, kind)


def against_strength(
    series: Mapping[str, Points],
    scheme: SchemeName,
    kind: FileKind = "svg",
    *,
    measured: str,
    unit: str = UNIT,
) -> bytes:
    """What an edit changes over its strength, a line a region, through zero at strength 0 where
    nothing is edited: a dial is a straight line.

    `series` maps a region to (strength, the values of all its edits there); `measured` says what
    they are, `unit` what a strength is in.
    """

    def draw(axes: Any, colours: Scheme) -> None:
        _bands(axes, colours, {name: _with_zero(points) for name, points in series.items()})
        values = [v for points in series.values() for _, at in points for v in at.tolist()]
        if values and min(values) >= 0:
            axes.set_ylim(bottom=0)
        else:
            axes.axhline(0, color=colours.muted, linewidth=0.8, zorder=1)
        axes.set_xlabel(f"strength ({unit})")
        axes.set_ylabel(printable(measured))
        ticks = sorted({0.0, *(strength for points in series.values() for strength, _ in points)})
        if len(ticks) <= _MOST_TICKS:
            axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed(round(value, 9))))

    return drawn(draw, scheme, kind)


def _with_zero(points: Points) -> Points:
    """Without an edit there is no change."""
    at = [strength for strength, _ in points]
    if not at or 0.0 in at:
        return points
    place = int(np.searchsorted(at, 0.0))
    return [*points[:place], (0.0, np.zeros(1)), *points[place:]]


def _bands(axes: Any, colours: Scheme, series: Mapping[str, Points]) -> None:
    shown = list(series.items())[:MAX_LINES]
    for (name, points), colour, marker in zip(shown, colours.lines, _MARKERS, strict=False):
        known = [(at, values[np.isfinite(values)]) for at, values in points]
        known = [(at, values) for at, values in known if values.size]
        if not known:
            continue
        places = [at for at, _ in known]
        low, middle, high = np.array([np.percentile(v, _QUARTILES) for _, v in known]).T
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            places, middle, color=colour, linewidth=1.6, marker=marker, markersize=3.6,
            label=printable(name),
        )  # fmt: skip

"""The plots of a library's page: how local its directions are, over how good and how strong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lib.plots.style import MAX_LINES, Scheme, SchemeName, drawn

Row = Mapping[str, Any]


def score_against_roir(rows: Sequence[Row], scheme: SchemeName) -> bytes:
    """A point a direction: score over ROIR on a log axis, as SVG."""

    def draw(axes: Any, colours: Scheme) -> None:
        _points(axes, colours, rows, "roir", "score")
        _log(axes.xaxis, axes.set_xscale)
        axes.set_xlabel("ROIR: change outside / inside (smaller is more local)")
        axes.set_ylabel("score")
        axes.set_ylim(bottom=0)

    return drawn(draw, scheme)


def roir_against_strength(rows: Sequence[Row], scheme: SchemeName) -> bytes:
    """A point a direction: ROIR over the strength that makes the wanted change, both log, as SVG.

    Directions to the left need little to do much; those to the right act through everything.
    """

    def draw(axes: Any, colours: Scheme) -> None:
        _points(axes, colours, rows, "strength", "roir")
        _log(axes.xaxis, axes.set_xscale)
        _log(axes.yaxis, axes.set_yscale)
        axes.set_xlabel("strength that makes the change (in mean norms of h)")
        axes.set_ylabel("ROIR")

    return drawn(draw, scheme)


def plotted(rows: Sequence[Row]) -> list[Row]:
    """The rows that a plot can show: scored, with a region, the change reached."""
    return [
        row
        for row in rows
        if row["score"] is not None
        and row["scored_images"]
        and all(isfinite(row[name]) and row[name] > 0 for name in ("roir", "strength"))
    ]


def _points(axes: Any, colours: Scheme, rows: Sequence[Row], x: str, y: str) -> None:
    regions = sorted({row["region"] for row in rows})[:MAX_LINES]
    for region, colour in zip(regions, colours.lines, strict=False):
        own = [row for row in rows if row["region"] == region]
        axes.scatter(
            [row[x] for row in own],
            [row[y] for row in own],
            s=26,
            color=colour,
            alpha=0.75,
            linewidths=0,
            label=region,
        )
    axes.margins(0.08)


def _log(axis: Any, set_scale: Any) -> None:
    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())

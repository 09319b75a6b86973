"""The report's plots as small SVG files, one for each colour scheme; no text becomes outlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pipelines.number_texts import signed

Values = npt.NDArray[np.float32]
MAX_LINES = 8
"""Regions that a plot shows; more could not be told apart."""

_MOST_BINS = 40
_MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Scheme:
    """Colours of a plot."""

    text: str
    grid: str
    lines: tuple[str, ...]


SCHEMES = {
    "light": Scheme(
        "#3f4652",
        "#dfe3ea",
        ("#2458d3", "#c2410c", "#12805c", "#8b2fc9", "#b0005b", "#6b7280", "#8a6d00", "#007c91"),
    ),
    "dark": Scheme(
        "#c3cad6",
        "#333b49",
        ("#7ba7ff", "#ff9a5c", "#4fd1a1", "#c996ff", "#ff7fb6", "#a3adba", "#e3c341", "#5fd3e6"),
    ),
}
"""`prefers-color-scheme` -> colours on a transparent ground."""

_FIGURE_SETTINGS: Any = {
    "svg.hashsalt": "deltah",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
}


def roir_histogram(roir: Mapping[str, Values], scheme: str) -> bytes:
    """How local the edits of each region are: shares of edits over ROIR on a log axis, as SVG."""
    shown = {name: _usable(values) for name, values in list(roir.items())[:MAX_LINES]}
    shown = {name: values for name, values in shown.items() if values.size}
    everything = np.concatenate(list(shown.values())) if shown else np.array([0.1, 1.0])
    low, high = np.percentile(everything, (0.2, 99.8))
    fewest = min((values.size for values in shown.values()), default=0)
    bins = int(np.clip(2 * np.sqrt(fewest), 8, _MOST_BINS))
    edges = np.geomspace(low / 1.15, high * 1.15, bins + 1)

    def draw(axes: Any, colours: Scheme) -> None:
        for (name, values), colour in zip(shown.items(), colours.lines, strict=False):
            counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
            share = counts / values.size
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.16)
            axes.stairs(share, edges, color=colour, linewidth=1.5, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("ROIR: change outside / change inside (smaller is more local)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_ylabel("share of the region's edits")

    return svg(draw, scheme)


def change_against_strength(
    changes: Mapping[str, Sequence[tuple[float, Values]]], scheme: str, *, of: str
) -> bytes:
    """In-region change (median, with the middle half of the edits) over strength, as SVG.

    `changes` maps a region to (strength, in_change of its edits) in ascending order of strength;
    `of` says what a strength measures.
    """

    def draw(axes: Any, colours: Scheme) -> None:
        for (name, points), colour in zip(changes.items(), colours.lines, strict=False):
            strengths = [strength for strength, _ in points]
            quartiles = np.array([np.percentile(values, (25, 50, 75)) for _, values in points])
            # Without an edit there is no change: the line passes through (0, 0).
            at = int(np.searchsorted(strengths, 0.0))
            strengths.insert(at, 0.0)
            quartiles = np.insert(quartiles, at, 0.0, axis=0)
            axes.fill_between(
                strengths, quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.16, linewidth=0
            )
            axes.plot(
                strengths, quartiles[:, 1], color=colour, linewidth=1.5, marker="o", markersize=4,
                label=name,
            )  # fmt: skip
        axes.set_xlabel(f"strength ({of})")
        axes.set_ylabel("change inside the region")
        axes.set_ylim(bottom=0)
        ticks = sorted({0.0, *(s for points in changes.values() for s, _ in points)})
        if len(ticks) <= _MOST_TICKS:
            axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: signed(value) if value else "0")
        )

    return svg(draw, scheme)


def _usable(values: Values) -> Values:
    return values[np.isfinite(values) & (values > 0)]


def svg(draw: Callable[[Any, Scheme], None], scheme: str) -> bytes:
    """What `draw(axes, colours)` draws, as SVG in one of SCHEMES; the same bytes every time."""
    colours = SCHEMES[scheme]
    with mpl.rc_context(_FIGURE_SETTINGS):
        figure = Figure(figsize=(4.8, 3.1), layout="constrained")
        axes = figure.add_subplot()
        draw(axes, colours)
        axes.grid(color=colours.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=colours.text, length=0)
        axes.xaxis.label.set_color(colours.text)
        axes.yaxis.label.set_color(colours.text)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(colours.grid)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, labelcolor=colours.text)
        file = BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()

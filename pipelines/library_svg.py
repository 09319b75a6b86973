"""Plots of the library's page as small SVG files, one for each colour scheme; no text becomes
outlines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

MAX_LINES = 8
"""Regions that a plot shows; more could not be told apart."""


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

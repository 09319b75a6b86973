"""How all plots look, in light and in dark, and how a drawing becomes bytes: the same every time,
without dates, and with text that stays text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

Values = npt.NDArray[np.floating[Any]]
SchemeName = Literal["light", "dark"]
FileKind = Literal["svg", "pdf"]
MAX_LINES = 8
"""Regions that a plot shows; more could not be told apart."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """Colours of a plot, on a transparent ground."""

    text: str
    muted: str
    grid: str
    lines: tuple[str, ...]
    page: str
    """What the transparent ground is expected to be laid on."""


SCHEMES: Mapping[SchemeName, Scheme] = MappingProxyType(
    {
        "light": Scheme(
            "#3f4652", "#6b7280", "#dfe3ea",
            ("#2458d3", "#c2410c", "#12805c", "#8b2fc9", "#b0005b", "#6b7280", "#8a6d00",
             "#007c91"),
            "#ffffff",
        ),
        "dark": Scheme(
            "#c3cad6", "#98a2b3", "#333b49",
            ("#7ba7ff", "#ff9a5c", "#4fd1a1", "#c996ff", "#ff7fb6", "#a3adba", "#e3c341",
             "#5fd3e6"),
            "#14181f",
        ),
    }
)  # fmt: skip
"""`prefers-color-scheme` -> colours."""

_SETTINGS: Any = {
    "svg.hashsalt": "deltah",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.size": 9,
    "axes.unicode_minus": True,
}
_WITHOUT: Mapping[FileKind, tuple[str, ...]] = {
    "svg": ("Date", "Creator", "Format", "Type"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}


def drawn(
    draw: Callable[[Any, Scheme], None],
    scheme: SchemeName,
    kind: FileKind = "svg",
    *,
    size: tuple[float, float] = (4.8, 3.1),
) -> bytes:
    """What `draw(axes, colours)` draws, with a legend beside it where anything has a label; `size`
    in inches.
    """
    colours = SCHEMES[scheme]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        axes: Any = figure.add_subplot()
        axes.grid(color=colours.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        draw(axes, colours)
        axes.tick_params(which="both", colors=colours.text, length=0)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(colours.text)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(colours.grid)
        handles, names = axes.get_legend_handles_labels()
        if len(names) > 1:
            legend: Any = figure.legend(
                handles, names, loc="outside right upper", frameon=False,
                labelcolor=colours.text, handlelength=1.4, borderaxespad=0.2,
            )  # fmt: skip
            for handle in legend.legend_handles:
                handle.set_alpha(1)
        file = BytesIO()
        nothing: Any = dict.fromkeys(_WITHOUT[kind])
        figure.savefig(file, format=kind, transparent=True, metadata=nothing)
    return file.getvalue()


def printable(text: str) -> str:
    """A name from data as a label: without what would break a line or an XML file."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def signed(value: float) -> str:
    """A number with its sign, a real minus, and no sign for zero."""
    return f"{value:+g}".replace("-", "\N{MINUS SIGN}") if value else "0"

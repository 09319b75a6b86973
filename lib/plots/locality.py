"""The locality scatter: what edits change outside their region over what they change inside.

Shape suffixes: N edits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lib.plots.style import MAX_LINES, FileKind, Scheme, SchemeName, Values, drawn, printable

_RATIOS = (0.03, 0.1, 0.3, 1.0)
"""ROIR of the lines."""
_MOST_POINTS = 2400
"""Of all regions together: more are drawn in every so-manieth."""


def locality(
    changes: Mapping[str, tuple[Values, Values]], scheme: SchemeName, kind: FileKind = "svg"
) -> bytes:
    """A point an edit, a colour a region, both axes logarithmic, with lines of equal ROIR: the
    further below its line of 1, the more local.

    `changes` maps a region to (in_change_N, out_change_N); edits without a change or without an
    outside are left out.
    """
    shown = {name: _usable(*values) for name, values in list(changes.items())[:MAX_LINES]}
    shown = {name: pair for name, pair in shown.items() if pair[0].size}
    total = sum(inside_N.size for inside_N, _ in shown.values())
    every = max(1, -(-total // _MOST_POINTS))

    def draw(axes: Any, colours: Scheme) -> None:
        for (name, (inside_N, outside_N)), colour in zip(
            shown.items(), colours.lines, strict=False
        ):
            axes.scatter(
                inside_N[::every], outside_N[::every], s=9, color=colour, alpha=0.5,
                linewidths=0, label="_",
            )  # fmt: skip
            axes.plot([], [], "o", color=colour, markersize=5, label=printable(name))
        axes.set_xscale("log")
        axes.set_yscale("log")
        if shown:
            _set_limits(axes, shown)
        _ratio_lines(axes, colours)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("change inside the region")
        axes.set_ylabel("change outside")

    return drawn(draw, scheme, kind, size=(5.2, 3.6))


def _set_limits(axes: Any, shown: Mapping[str, tuple[Values, Values]]) -> None:
    for column, set_limits in enumerate((axes.set_xlim, axes.set_ylim)):
        values = np.concatenate([pair[column] for pair in shown.values()])
        low, high = np.percentile(values, (0.5, 99.8))
        set_limits(low / 1.4, high * 1.6)


def _ratio_lines(axes: Any, colours: Scheme) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for ratio in _RATIOS:
        begin, end = max(left, bottom / ratio), min(right, top / ratio)
        if end <= begin:
            continue
        axes.plot(
            [begin, end], [begin * ratio, end * ratio],
            color=colours.muted, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1,
        )  # fmt: skip
        axes.annotate(
            f"ROIR {ratio:g}", (end, end * ratio), xytext=(0, 2), textcoords="offset points",
            ha="right", va="bottom", annotation_clip=False, fontsize=7.5, color=colours.muted,
        )  # fmt: skip


def _usable(inside_N: Values, outside_N: Values) -> tuple[Values, Values]:
    known_N = np.isfinite(inside_N) & np.isfinite(outside_N) & (inside_N > 0) & (outside_N > 0)
    return inside_N[known_N], outside_N[known_N]

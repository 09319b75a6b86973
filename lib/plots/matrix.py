"""The disentanglement matrix as an annotated heat map.

Shape suffixes: E kinds of edits, A attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.patches import Rectangle

from lib.plots.style import FileKind, Scheme, SchemeName, Values, drawn, printable

_MOST_ROWS = 24
_NAME_CHARS = 24
_CELL, _LOW_CELL = (0.52, 0.27)
"""Inches."""
_MARGIN, _LETTER = 0.4, 0.078
_INKS = ("#14181f", "#ffffff")


def disentanglement(
    effect_EA: Values,
    edits: Sequence[str],
    attributes: Sequence[str],
    targets: Sequence[str],
    scheme: SchemeName,
    kind: FileKind = "svg",
) -> bytes:
    """What every kind of edit (row) does to every attribute (column): the signed effect in numbers
    and colour, the attribute that each is meant to change framed. NaN is an empty cell; the
    first 24 rows are shown.
    """
    effect_EA = np.asarray(effect_EA, np.float64)[:_MOST_ROWS]
    edits, targets = edits[:_MOST_ROWS], targets[:_MOST_ROWS]
    known = effect_EA[np.isfinite(effect_EA)]
    largest = float(np.abs(known).max()) if known.size and known.any() else 1.0

    def draw(axes: Any, colours: Scheme) -> None:
        negative, positive = colours.lines[1], colours.lines[0]
        shades = LinearSegmentedColormap.from_list(
            "effects", [negative, colours.page, positive], N=255
        )
        scale = Normalize(-largest, largest)
        axes.imshow(np.ma.masked_invalid(effect_EA), cmap=shades, norm=scale, aspect="auto")
        for row, column in np.ndindex(*effect_EA.shape):
            value = effect_EA[row, column]
            if np.isfinite(value):
                text, ink = _number(float(value), largest), _ink(shades(scale(value)))
                axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=ink)
            if attributes[column] == targets[row]:
                axes.add_patch(_frame(column, row, colours))
        axes.set_xticks(range(len(attributes)), [_short(name) for name in attributes])
        axes.set_yticks(range(len(edits)), [_short(name) for name in edits])
        axes.tick_params(axis="x", labelrotation=45, top=True, labeltop=True, labelbottom=False)
        for label in axes.get_xticklabels():
            label.set(ha="left", rotation_mode="anchor")
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_linewidth(0)

    left, top = (
        _MARGIN + _LETTER * max((len(_short(name)) for name in names), default=0)
        for names in (edits, attributes)
    )
    size = (left + _CELL * len(attributes), 0.75 * top + _LOW_CELL * max(1, len(edits)))
    return drawn(draw, scheme, kind, size=size)


def _number(value: float, largest: float) -> str:
    """Two digits or so of the largest, a real minus, no sign on what rounds to zero."""
    digits = int(np.clip(1 - np.floor(np.log10(largest)), 1, 4))
    digits = max(digits, 2) if largest < 10 else digits
    text = f"{value:.{digits}f}"
    if not text.strip("-0."):
        return text.removeprefix("-")
    return text.replace("-", "\N{MINUS SIGN}")


def _ink(shade: Sequence[float]) -> str:
    """Black or white, whichever stands out (contrast of WCAG 2)."""

    def luminance(colour: Sequence[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    def contrast(ink: str) -> float:
        dark, light = sorted((luminance(to_rgb(ink)), luminance(shade)))
        return (light + 0.05) / (dark + 0.05)

    return max(_INKS, key=contrast)


def _frame(column: int, row: int, colours: Scheme) -> Rectangle:
    return Rectangle(
        (column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colours.text, linewidth=1.2
    )


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…"

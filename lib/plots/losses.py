"""How a loss fell while something was trained: its values and their running mean over the steps.

Shape suffix: S steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from lib.plots.style import FileKind, Scheme, SchemeName, Values, drawn, printable

_SMOOTHED = 20
"""The running mean is over a part in so many of the steps."""
_MOST_POINTS = 1000
"""Steps that are drawn one by one; of more the range within each of so many parts."""


def running_mean(values_S: Values, width: int) -> Values:
    """The mean over the last `width` values at every step, over all there are before that."""
    sum_S = np.cumsum(values_S, dtype=np.float64)
    step_S = np.arange(1, len(values_S) + 1)
    before_S = np.concatenate((np.zeros(width), sum_S))[: len(values_S)]
    return np.asarray((sum_S - before_S) / np.minimum(step_S, width), np.float64)


def loss_curve(
    values_S: Values, scheme: SchemeName, kind: FileKind = "svg", *, measured: str
) -> bytes:
    """A loss over the steps from 1, with its running mean; `measured` says which loss it is."""

    def draw(axes: Any, colours: Scheme) -> None:
        steps = len(values_S)
        parts = np.array_split(np.arange(steps), min(steps, _MOST_POINTS))
        last = np.array([part[-1] for part in parts])
        width = max(1, steps // _SMOOTHED)
        if steps > _MOST_POINTS:
            low = [values_S[part].min() for part in parts]
            high = [values_S[part].max() for part in parts]
            axes.fill_between(last + 1, low, high, color=colours.lines[0], alpha=0.2, linewidth=0)
        else:
            axes.plot(last + 1, values_S, color=colours.lines[0], alpha=0.35, linewidth=0.8)
        mean_S = running_mean(values_S, width)
        axes.plot(last + 1, mean_S[last], color=colours.lines[0], linewidth=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        axes.set_xlabel("step")
        axes.set_ylabel(printable(measured))

    return drawn(draw, scheme, kind)

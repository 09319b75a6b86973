"""In which timesteps a labelled direction should be applied, and which way is up: both measured.

A difference of means is useless or points the wrong way at some timesteps and edits cleanly at
others, and which those are differs from label to label. So a direction is tried in a few windows,
both ways, at equal change of the image, and what a reader of the label says decides.

Shape suffixes: N images, F factors that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RAISES_LABEL = "raises_label"
"""+ raises what is read as the label, measured on images: the sign rule of `chosen_window`."""

NOISE = 0.02
"""Mean |change| of other factors that even a perfect edit is read to have, for factors in [-1, 1]:
below it windows do not differ.
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a direction does in one window, added with one sign."""

    window: tuple[int, int]
    """Highest and lowest timestep."""
    sign: float
    """+1.0 where the direction was added, -1.0 where it was subtracted."""
    change_NF: Tensor
    """Change of every factor in every image."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The window and sign of a direction, and what speaks for them."""

    window: tuple[int, int]
    sign: float
    """Factor on the direction that makes + raise the label."""
    change: float
    """Mean change of the label's factor, towards the sign of the edit; never negative."""
    others: float
    """Mean |change| of all other factors."""
    agreement: float
    """Share of edits that move the factor the way of most."""
    merit: float


def chosen_window(trials: Sequence[Trial], factor: int, *, noise: float = NOISE) -> Choice:
    """The window whose edits move `factor` most relative to the others, with the sign measured
    there; of equal ones, the first given.

    merit = (2 agreement - 1) |mean change| / (mean |change| of the others + noise), over images and
    both signs, where a change is counted towards the sign of its edit. The trials must be edits of
    equal change of the image, or a window wins by being strong. A direction that moves nothing
    anywhere keeps its sign.

    Raises:
        ValueError: there is no trial, a change is not finite, a trial has no image or another sign
            than +-1, or `factor` is none of the at least two factors.
    """
    if not trials:
        raise ValueError("choosing a window needs at least one trial, got none")
    for trial in trials:
        images, factors = trial.change_NF.shape
        if images < 1 or factors < 2 or not 0 <= factor < factors:
            raise ValueError(
                f"expected changes of at least one image and two factors, with factor {factor}"
                f" among them, got {images} x {factors}"
            )
        if trial.sign not in (-1.0, 1.0):
            raise ValueError(f"the sign of a trial is 1.0 or -1.0, got {trial.sign}")
        if not bool(trial.change_NF.isfinite().all()):
            raise ValueError(f"a change measured in window {trial.window} is NaN or infinite")
    windows = dict.fromkeys(trial.window for trial in trials)
    choices = [
        _judged([trial for trial in trials if trial.window == window], factor, noise)
        for window in windows
    ]
    return max(choices, key=lambda choice: choice.merit)


def _judged(trials: Sequence[Trial], factor: int, noise: float) -> Choice:
    own_N = torch.cat([t.sign * t.change_NF[:, factor].double() for t in trials])
    size_NF = torch.cat([t.change_NF.double().abs() for t in trials])
    others = float((size_NF.sum(1) - size_NF[:, factor]).mean()) / (size_NF.shape[1] - 1)
    mean = float(own_N.mean())
    sign = -1.0 if mean < 0 else 1.0
    agreement = float((sign * own_N > 0).double().mean())
    merit = max(0.0, 2 * agreement - 1) * abs(mean) / (others + noise)
    return Choice(trials[0].window, sign, abs(mean), others, agreement, merit)

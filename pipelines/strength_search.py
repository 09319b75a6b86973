"""The strength at which a direction changes its region by a wanted amount: only edits of equal
effect can be compared.

Shape suffixes: C, H, W of the image; L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from torch import Tensor

from lib.direction import Direction
from lib.pixels import as_floats, change
from lib.sampling.sampler import Latent
from lib.shift import Shift
from tasks.edit import Editor

_SLOPES = (0.3, 3.0)
"""Of log change over log strength; outside of them a secant is rounding or saturation."""
_LONGEST_STEP = 1.5
"""In log strength: a factor of 4.5 a round."""
_LEAST_CHANGE = 1e-6


@dataclass(frozen=True, slots=True)
class Matched:
    """An edit whose strength was searched until the region changed as much as was asked."""

    image_CHW: Tensor
    """float32 in [-1, 1]."""
    reconstruction_CHW: Tensor
    strength: float
    """Signed, in units of the model's mean norm of h."""
    in_change: float
    """Mean |edited - reconstruction| in the region, images in [-1, 1]."""
    roir: float
    """The same outside the region / inside it."""
    reached: bool
    """Whether `in_change` is within the tolerance of what was asked."""


def matched(
    editor: Editor,
    latent: Latent,
    directions: Sequence[Direction],
    mask_HWs: Sequence[Tensor],
    *,
    target: float,
    first: float | Sequence[float] = 0.1,
    sign: float = 1.0,
    rounds: int = 8,
    tolerance: float = 0.05,
) -> list[Matched]:
    """Every direction at the strength that changes its region by `target` (mean |change|, [-1, 1]).

    Secant search on log strength against log change from the strength `first` (one for all, or one
    a direction), all directions of the image in one batch; the best try is kept where |log(change /
    target)| stays above `tolerance`.

    Raises:
        ArithmeticError: the network gave NaN or infinity.
    """
    tries: list[list[Matched]] = [[] for _ in directions]
    strengths = [first] * len(directions) if isinstance(first, float) else list(first)
    open_ = list(range(len(directions)))
    for _ in range(rounds):
        shifts = [Shift(directions[i], sign * strengths[i]) for i in open_]
        images_BCHW = editor.decode(latent, shifts)
        if images_BCHW is None:
            raise ArithmeticError("the network gave NaN or infinity while this image was edited")
        floats_BCHW = as_floats(images_BCHW)
        for row, i in enumerate(open_, 1):
            inside, outside = change(floats_BCHW[row, None], floats_BCHW[:1], mask_HWs[i])
            found = Matched(
                floats_BCHW[row],
                floats_BCHW[0],
                sign * strengths[i],
                float(inside),
                float(outside / inside.clamp_min(1e-9)),
                _distance(float(inside), target) <= tolerance,
            )
            tries[i].append(found)
            strengths[i] = _next_strength(tries[i], target)
        open_ = [i for i in open_ if not any(found.reached for found in tries[i])]
        if not open_:
            break
    return [min(found, key=lambda edit: _distance(edit.in_change, target)) for found in tries]


def _distance(in_change: float, target: float) -> float:
    return abs(log(max(in_change, _LEAST_CHANGE) / target))


def _next_strength(tries: Sequence[Matched], target: float) -> float:
    points = sorted(
        {(log(abs(t.strength)), log(max(t.in_change, _LEAST_CHANGE))) for t in tries},
        key=lambda p: abs(p[1] - log(target)),
    )
    slope = 1.0
    if len(points) > 1 and points[0][0] != points[1][0]:
        slope = (points[0][1] - points[1][1]) / (points[0][0] - points[1][0])
    slope = min(max(slope, _SLOPES[0]), _SLOPES[1])
    step = (log(target) - points[0][1]) / slope
    return exp(points[0][0] + min(max(step, -_LONGEST_STEP), _LONGEST_STEP))

"""Where, which way and how strongly to apply directions whose label can be read from an image: each
is tried in a few windows, both ways, at equal change of the whole image.

Shape suffixes: K edits, F factors; L, Y, X of the latent; C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.direction import Direction, negated
from lib.discovery.window_choice import RAISES_LABEL, Choice, Trial, chosen_window
from lib.pixels import as_floats
from lib.sampling.sampler import Latent
from lib.shift import Shift
from pipelines.direction_effects import Factors
from tasks.edit import Editor

FIRST_STRENGTH = 0.3
_LARGEST_FACTOR = 8.0
"""Between a strength and the next: beyond, the change is not proportional any more."""
_LEAST_CHANGE = 1e-4


@dataclass(frozen=True, slots=True)
class Place:
    """A window to try."""

    editor: Editor
    latents: Sequence[Latent]
    """x_t of every image at the highest timestep of the editor's window."""

    @property
    def window(self) -> tuple[int, int]:
        """Highest and lowest timestep at which it shifts h."""
        return self.editor.edited_timesteps


@dataclass(frozen=True, slots=True)
class Placed:
    """A direction with its window, + raising its label."""

    direction: Direction
    strength: float
    """That makes the wanted change of the whole image, in units of the mean norm of h."""
    choice: Choice
    change_F: Tensor
    """Mean change of every factor in its window, towards the sign of the edit."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What the edits of one image do to it."""

    whole_K: Tensor
    """Mean |edited - reconstruction|, images in [-1, 1]."""
    change_KF: Tensor
    """Change of every factor as it is read."""


def effect(editor: Editor, latent: Latent, shifts: Sequence[Shift], read: Factors) -> Effect:
    """Edit one image and read its factors.

    Raises:
        ArithmeticError: the network gave NaN or infinity.
    """
    images_BCHW = editor.decode(latent, shifts)
    if images_BCHW is None:
        raise ArithmeticError("the network gave NaN or infinity while this image was edited")
    floats_BCHW = as_floats(images_BCHW)
    factors_BF = read(floats_BCHW)
    whole_K = (floats_BCHW[1:] - floats_BCHW[:1]).abs().mean((1, 2, 3))
    return Effect(whole_K, factors_BF[1:] - factors_BF[:1])


def placed(
    directions: Sequence[Direction],
    factors: Sequence[int],
    places: Sequence[Place],
    read: Factors,
    *,
    change: float,
    pilots: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Placed]:
    """Every direction in the window and with the sign that `chosen_window` takes for its factor
    (column of what `read` gives), at the strength that changes the whole image by `change` (mean
    |change|, images in [-1, 1]).

    The first `pilots` images of a place give its strengths, on the others is measured: use images
    that nothing else will be judged on. `advance` is called after every image of a place.

    Raises:
        ValueError: there is not one factor for every direction, or no image beside the pilots.
        ArithmeticError: the network gave NaN or infinity.
    """
    if len(factors) != len(directions):
        raise ValueError(f"expected a factor for each of {len(directions)}, got {len(factors)}")
    if not places or any(not 1 <= pilots < len(place.latents) for place in places):
        raise ValueError(f"expected windows with more images than the {pilots} for strengths")
    trials: list[list[Trial]] = [[] for _ in directions]
    strengths: list[dict[tuple[int, int], float]] = [{} for _ in directions]
    for place in places:
        tried_K = torch.full((len(directions),), FIRST_STRENGTH)
        whole_NK = []
        for latent in place.latents[:pilots]:
            shifts = _shifts(directions, tried_K)
            whole_NK.append(effect(place.editor, latent, shifts, read).whole_K)
            advance()
        tried_K = _rescaled(tried_K, torch.stack(whole_NK), change)
        whole_NK, plus, minus = [], [], []
        for latent in place.latents[pilots:]:
            shifts = [*_shifts(directions, tried_K), *_shifts(directions, -tried_K)]
            found = effect(place.editor, latent, shifts, read)
            whole_NK += list(found.whole_K.chunk(2))
            up_KF, down_KF = found.change_KF.chunk(2)
            plus.append(up_KF)
            minus.append(down_KF)
            advance()
        final_K = _rescaled(tried_K, torch.stack(whole_NK), change)
        plus_KNF, minus_KNF = torch.stack(plus, dim=1), torch.stack(minus, dim=1)
        for k in range(len(directions)):
            trials[k].append(Trial(place.window, 1.0, plus_KNF[k]))
            trials[k].append(Trial(place.window, -1.0, minus_KNF[k]))
            strengths[k][place.window] = float(final_K[k])
    results = []
    for k, direction in enumerate(directions):
        choice = chosen_window(trials[k], factors[k])
        there = [trial for trial in trials[k] if trial.window == choice.window]
        change_F = torch.stack([choice.sign * t.sign * t.change_NF.mean(0) for t in there]).mean(0)
        strength = strengths[k][choice.window]
        results.append(Placed(_turned(direction, choice), strength, choice, change_F))
    return results


def _shifts(directions: Sequence[Direction], strength_K: Tensor) -> list[Shift]:
    return [Shift(d, s) for d, s in zip(directions, strength_K.tolist(), strict=True)]


def _rescaled(strength_K: Tensor, whole_NK: Tensor, change: float) -> Tensor:
    """The strengths at which the change would be as wanted if it were proportional."""
    factor_K = change / whole_NK.mean(0).clamp_min(_LEAST_CHANGE)
    return strength_K * factor_K.clamp(1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _turned(direction: Direction, choice: Choice) -> Direction:
    """Negated where that raises the label; still of the method that found it."""
    turned = direction if choice.sign > 0 else negated(direction)
    return replace(
        turned, method=direction.method, window=choice.window, sign_rule=RAISES_LABEL, scores=None
    )

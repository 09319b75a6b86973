"""What directions do to images, measured at equal in-region change, and the one number that ranks
them.

Shape suffixes: B images, C colours, H, W of the image, P, P of a region's portrait; F factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from lib.direction import WHOLE, Scores
from lib.pixels import as_floats, quantised
from lib.records import Segmented
from lib.shift import Shift
from pipelines.effects import Effect, Effects, Measured
from pipelines.heat_maps import Pixels
from pipelines.library_sheets import MOST_ROWS, SheetRow
from pipelines.strength_search import matched
from tasks.edit import Editor

_PORTRAIT = 32
"""Pixels a side of what consistency compares."""

Factors = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) float32 in [-1, 1] -> factors (B, F)."""


def measure(
    editor: Editor,
    image: Segmented,
    before: Sequence[Effects],
    *,
    change: float,
    factors: Factors | None,
) -> list[Measured | None]:
    """Every direction on one image at the strength that changes its region by `change` (mean
    |change|, images in [-1, 1]), at half of it and at minus it, all decoded together.

    `before` holds the directions with what they did to the images before this one: where the search
    begins, and whether the sheet needs another row. None for a direction that gives NaN in this
    image: it does not reach the change there.
    """
    masks = {region.name: region.mask_HW for region in image.regions}
    side = image.inverted.sample.image_CHW.shape[1:]
    mask_HWs = [masks.get(b.direction.region, torch.ones(side)) for b in before]
    directions = [b.direction for b in before]
    latent = image.inverted.latent
    try:
        edits = matched(
            editor,
            latent,
            directions,
            mask_HWs,
            target=change,
            first=[b.first for b in before],
        )
        pairs = list(zip(directions, edits, strict=True))
        halves = [Shift(direction, edit.strength / 2) for direction, edit in pairs]
        opposites = [Shift(direction, -edit.strength) for direction, edit in pairs]
        others_BCHW = editor.decode(latent, [*halves, *opposites])
        if others_BCHW is None:
            raise ArithmeticError("the network gave NaN or infinity at the opposite strength")
    except ArithmeticError:
        if len(before) == 1:
            return [None]
        alone = []  # which of them it was: alone, it spoils no other
        for one in before:
            alone += measure(editor, image, [one], change=change, factors=factors)
        return alone
    floats_BCHW = as_floats(others_BCHW)
    reconstruction_CHW = floats_BCHW[0]
    full_BCHW = torch.stack([edit.image_CHW for edit in edits])
    half_BCHW, minus_BCHW = floats_BCHW[1:].chunk(2)
    moved_BCHW = full_BCHW - reconstruction_CHW
    symmetry_B = -_cosine(minus_BCHW - reconstruction_CHW, moved_BCHW)
    factors_BF = torch.empty(len(edits), 0)
    if factors is not None:
        read_BF = factors(torch.cat([reconstruction_CHW[None], full_BCHW]))
        factors_BF = read_BF[1:] - read_BF[0]
    measured: list[Measured | None] = []
    for i, (earlier, edit) in enumerate(zip(before, edits, strict=True)):
        whole = earlier.direction.region == WHOLE
        effect = Effect(
            edit.reached,
            edit.strength,
            edit.in_change,
            nan if whole else edit.roir,
            linearity(half_BCHW[i] - reconstruction_CHW, moved_BCHW[i], mask_HWs[i]),
            float(symmetry_B[i]),
            factors_BF[i],
        )
        inside_CPP = portrait(moved_BCHW[i], mask_HWs[i])
        row = None
        if len(earlier.found) < MOST_ROWS:
            row = SheetRow(
                _pixels(minus_BCHW[i]),
                _pixels(reconstruction_CHW),
                _pixels(full_BCHW[i]),
                None if whole else (mask_HWs[i] > 0.5).numpy(),
                edit.reached,
            )
        unit_CPP = inside_CPP / inside_CPP.norm() if edit.reached else torch.zeros_like(inside_CPP)
        measured.append(Measured(effect, unit_CPP, row))
    return measured


def linearity(half_CHW: Tensor, full_CHW: Tensor, mask_HW: Tensor) -> float:
    """1 - |full - 2 half| / |full| in the region, not below 0, of the changes at half and at full
    strength: 1 for a dial, 0 for a switch that does nothing, or all of it, at half strength.

    The cosine between the two would not see that: it does not know how large they are.
    """
    half, full = (half_CHW * mask_HW).double(), (full_CHW * mask_HW).double()
    return max(0.0, 1 - float((full - 2 * half).norm() / full.norm().clamp_min(1e-12)))


def summary(effects: Effects) -> Scores:
    """Medians over the images in which the change was reached (over all, where it never was).

    score = reached * (1 + consistency) / 2 * linearity / (1 + ROIR), each factor in [0, 1]:
    `reached`, the share of images that the direction changes as asked at all; (1 + consistency) /
    2, it does the same to different images (1/2: unrelated things); `linearity`, its strength is a
    dial and not a switch; 1 / (1 + ROIR) = inside / (inside + outside), it
    stays in its region, 1 where the region is the whole image. A product, because each is
    worthless without the others, and free of units, so that regions and models compare. Symmetry
    is left out: an eye that is open can close, but not open by as much. Factors are left out: few
    models have a regressor.
    """
    reached = [effect for effect in effects.found if effect.reached]
    used = reached or effects.found
    consistency = _mean_cosine(effects.inside_CPP, len(reached))
    roir = _median([effect.roir for effect in used])
    dial = _median([effect.linearity for effect in used])
    score = 0.0
    if len(reached) >= 2:
        locality = 1 / (1 + (0.0 if isnan(roir) else roir))
        share = len(reached) / effects.tried
        score = share * (1 + consistency) / 2 * dial * locality
    return Scores(
        images=len(reached),
        strength=_median([effect.strength for effect in used]),
        in_change=_median([effect.in_change for effect in used]),
        roir=roir,
        consistency=consistency,
        linearity=dial,
        symmetry=_median([effect.symmetry for effect in used]),
        score=score,
    )


def strongest_factor(
    effects: Effects, names: Sequence[str]
) -> tuple[str, float, float] | tuple[None, None, None]:
    """(the factor whose median change is largest, that change, median over the images of the mean
    |change| of all others); three None without factors.
    """
    used = [e for e in effects.found if e.reached] or effects.found
    if not used or not names:
        return None, None, None
    factors_BF = torch.stack([effect.factors_F for effect in used])
    median_F = factors_BF.quantile(0.5, dim=0)
    main = int(median_F.abs().argmax())
    others_BF = torch.cat([factors_BF[:, :main], factors_BF[:, main + 1 :]], dim=1).abs()
    return names[main], float(median_F[main]), float(others_BF.mean(1).quantile(0.5))


def portrait(moved_CHW: Tensor, mask_HW: Tensor) -> Tensor:
    """The masked change, cut out along the box around the mask and brought to one size, so that
    images in which the region lies elsewhere or is larger can be compared: (C, P, P).
    """
    ys, xs = torch.nonzero(mask_HW > 0.5 * mask_HW.max(), as_tuple=True)
    box = (slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1))
    inside_CHW = (moved_CHW * mask_HW)[:, box[0], box[1]]
    return interpolate(
        inside_CHW[None], size=(_PORTRAIT, _PORTRAIT), mode="bilinear", antialias=True
    )[0]


def _mean_cosine(sum_CPP: Tensor, count: int) -> float:
    """Mean over pairs of the cosine of `count` unit vectors, from their sum: |sum|^2 = count + 2
    (sum over pairs). NaN for fewer than two.
    """
    if count < 2:
        return nan
    return (float(sum_CPP.double().square().sum()) - count) / (count * (count - 1))


def _cosine(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    return cosine_similarity(a_BCHW.flatten(1).double(), b_BCHW.flatten(1).double())


def _median(values: Sequence[float]) -> float:
    return median(values) if values else nan


def _pixels(image_CHW: Tensor) -> Pixels:
    return quantised(image_CHW).permute(1, 2, 0).contiguous().numpy()

"""How far an edit goes inside its region and outside: L1, L2, SSIM and ROIR without any model.

Shape suffixes: B edits of one image, C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan

from torch import Tensor

from lib.metrics.similarity import ssim, ssim_map
from lib.pixels import psnr

_LEAST = 1e-9
"""Below it an edit changes nothing in its region, and ROIR is out of all bounds."""


def edit_changes(
    edited_BCHW: Tensor, reconstruction_CHW: Tensor, original_CHW: Tensor, mask_BHW: Tensor
) -> list[dict[str, float]]:
    """The columns `lib.metrics.columns.EDIT` of every edit, from images float32 in [-1, 1] and
    coverage masks in [0, 1].

    ROIR is our own definition (the formula of Kouzelis et al. 2024 is not published): the mean
    absolute change outside the region over that inside, so normalised by area. Against the original
    image it counts as change what the reconstruction has lost, too. A mask that covers all has no
    outside: its change there is 0, its SSIM and ROIR are NaN.
    """
    before_BCHW = reconstruction_CHW.expand_as(edited_BCHW)
    moved_BCHW = edited_BCHW - reconstruction_CHW
    in_l1_B, out_l1_B = split_mean(moved_BCHW.abs().mean(1), mask_BHW)
    in_l2_B, out_l2_B = split_mean(moved_BCHW.square().mean(1), mask_BHW)
    in_ssim_B, out_ssim_B = split_mean(ssim_map(edited_BCHW, before_BCHW), mask_BHW)
    in_off_B, out_off_B = split_mean((edited_BCHW - original_CHW).abs().mean(1), mask_BHW)
    whole_B = (mask_BHW == 1).flatten(1).all(1)
    columns = {
        "in_change": in_l1_B,
        "out_change": out_l1_B,
        "in_l2": in_l2_B,
        "out_l2": out_l2_B,
        "in_ssim": in_ssim_B,
        "out_ssim": out_ssim_B.masked_fill(whole_B, nan),
        "roir": _ratio(out_l1_B, in_l1_B).masked_fill(whole_B, nan),
        "roir_original": _ratio(out_off_B, in_off_B).masked_fill(whole_B, nan),
    }
    values = {name: value_B.tolist() for name, value_B in columns.items()}
    return [{name: of[row] for name, of in values.items()} for row in range(len(edited_BCHW))]


def fidelity(reconstruction_CHW: Tensor, original_CHW: Tensor) -> Mapping[str, float]:
    """The columns `lib.metrics.columns.RECONSTRUCTION` that need no network, from images float32 in
    [-1, 1].
    """
    lost_CHW = reconstruction_CHW - original_CHW
    return {
        "psnr": psnr(reconstruction_CHW, original_CHW),
        "reconstruction_l1": float(lost_CHW.abs().mean()),
        "reconstruction_l2": float(lost_CHW.square().mean()),
        "reconstruction_ssim": float(ssim(reconstruction_CHW[None], original_CHW[None])),
    }


def split_mean(map_BHW: Tensor, mask_BHW: Tensor) -> tuple[Tensor, Tensor]:
    """Means of a map inside and outside the masks, (B,) each, weighted by coverage; 0 where a mask
    leaves no inside or no outside.
    """

    def mean(weight_BHW: Tensor) -> Tensor:
        total_B = weight_BHW.sum((1, 2))
        return (map_BHW * weight_BHW).sum((1, 2)) / total_B.clamp_min(1e-6)

    return mean(mask_BHW), mean(1 - mask_BHW)


def _ratio(outside_B: Tensor, inside_B: Tensor) -> Tensor:
    return outside_B / inside_B.clamp_min(_LEAST)

"""Keeps an edit out of the rest of the image: after every step, x_t away from the region is the
reconstruction's again.

Off unless asked for, because it hides what a direction does instead of choosing one that does
little there.

Shape suffixes: S states of the sampler, B edits; H, W of the image; the rest as in `denoiser`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad


@dataclass(frozen=True, slots=True)
class RegionGuard:
    """How far around its region an edit may reach; fractions of the image's side."""

    dilation: float
    """The edit is free up to here."""
    feather: float
    """Over which it fades, linearly, further out."""

    def mask(self, region_HW: Tensor, latent_shape: tuple[int, int, int]) -> Tensor:
        """(Y, X) float32 in [0, 1]: 1 where the edit is kept. 1 on every pixel that the region
        covers at all, falling with the distance from it, carried to latent size by area.
        """
        side = max(region_HW.shape)
        free, fade = self.dilation * side, self.feather * side
        distance_HW = distance(region_HW > 0, math.ceil(free + fade) + 1)
        kept_HW = (distance_HW <= free).float()
        if fade > 0:
            kept_HW = (1 - (distance_HW - free) / fade).clamp(0, 1)
        return adaptive_avg_pool2d(kept_HW[None, None], latent_shape[1:])[0, 0]


def distance(inside_HW: Tensor, limit: int) -> Tensor:
    """Euclidean distance in pixels to the nearest true pixel, float32; infinite beyond `limit`
    along either axis.

    Squared distances are minima over columns of minima over rows (Felzenszwalb & Huttenlocher
    2012), here by trying all offsets up to the limit.
    """
    squared_HW = torch.where(inside_HW, 0.0, math.inf)
    for axis in (0, 1):
        margin = (0, 0, limit, limit) if axis == 0 else (limit, limit, 0, 0)
        wide_HW = pad(squared_HW, margin, value=math.inf)
        length = squared_HW.shape[axis]
        for offset in range(2 * limit + 1):
            step = float((offset - limit) ** 2)
            squared_HW = torch.minimum(squared_HW, wide_HW.narrow(axis, offset, length) + step)
    return squared_HW.sqrt()


def guarded(states_SBLYX: Tensor, lead_S1LYX: Tensor, mask_BYX: Tensor) -> Tensor:
    """x' = m x + (1 - m) x_reconstruction, for every state of the sampler; exactly the one where m
    is 1 and the other where it is 0.
    """
    mask_B1YX = mask_BYX[:, None].to(states_SBLYX)
    return mask_B1YX * states_SBLYX + (1 - mask_B1YX) * lead_S1LYX

"""Widens masks: parsers and hand-drawn masks often end just inside the part that they mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lib.editing.region_guard import distance


def dilated(mask_HW: Tensor, fraction: float) -> Tensor:
    """`mask_HW` (coverage) with 1 on all pixels within `fraction` of the larger side of a pixel
    that it covers at all (Euclidean, as the region guard measures it). 0 leaves it as it is.
    """
    reach = fraction * max(mask_HW.shape)
    if reach == 0:
        return mask_HW
    near_HW = distance(mask_HW > 0, math.ceil(reach) + 1) <= reach
    return torch.where(near_HW, 1.0, mask_HW)

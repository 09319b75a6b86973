"""Structural similarity of images, as a map and as a number (torchmetrics does the work).

Importing torchmetrics takes seconds, so only workers and verbs that measure import this.

Shape suffixes: B images, C, H, W of the image.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

WINDOW = 11
"""Side of the Gaussian window of sigma 1.5, pixels."""
_RANGE = 2.0
"""Of images in [-1, 1]: the constants of SSIM are (0.01 range)^2 and (0.03 range)^2."""


def ssim_map(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004, eq. 13) around every pixel, (B, H, W), averaged over channels; images
    in [-1, 1] with sides of at least 6 pixels, reflected at their borders.
    """
    _, map_BCHW = structural_similarity_index_measure(
        a_BCHW, b_BCHW, reduction="none", data_range=_RANGE, return_full_image=True
    )
    map_BHW: Tensor = map_BCHW.mean(1)
    return map_BHW


def ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Mean of the map where the whole window lies in the image, as Wang et al. and scikit-image
    take it, (B,); over all of a smaller image.
    """
    map_BHW = ssim_map(a_BCHW, b_BCHW)
    edge = WINDOW // 2
    if min(map_BHW.shape[1:]) >= WINDOW:
        map_BHW = map_BHW[:, edge:-edge, edge:-edge]
    return map_BHW.mean((1, 2))

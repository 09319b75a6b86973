"""Region masks: boxes to coverage, content hashes, and the area checks that keep an empty region
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from lib.records import Region


def box_mask(box: tuple[float, float, float, float], size: int) -> Tensor:
    """Exact pixel coverage (size, size) of a box given as left, top, right, bottom fractions."""
    left, top, right, bottom = (edge * size for edge in box)
    start = torch.arange(size, dtype=torch.float32)

    def covered(low: float, high: float) -> Tensor:
        return ((start + 1).clamp(max=high) - start.clamp(min=low)).clamp(min=0)

    return covered(top, bottom)[:, None] * covered(left, right)[None, :]


def make_region(name: str, mask_HW: Tensor) -> Region:
    """A region whose hash is of its coverage in 1/255 steps."""
    quantised_HW = (mask_HW * 255).round()
    digest = hashlib.sha256(quantised_HW.to(torch.uint8).contiguous().numpy().tobytes()).hexdigest()
    return Region(name, quantised_HW / 255, digest)


def united(regions: Sequence[Region]) -> Region:
    """One region for several: the larger coverage at every pixel, the names joined by +."""
    distinct = list({region.name: region for region in regions}.values())
    if len(distinct) == 1:
        return distinct[0]
    mask_HW = torch.stack([region.mask_HW for region in distinct]).amax(0)
    return make_region("+".join(region.name for region in distinct), mask_HW)


def flat_mask(region: Region, latent_shape: tuple[int, int, int]) -> Tensor:
    """The coverage of every entry (L * Y * X) of a latent: the mean over the pixels it stands for,
    so that no region is lost where the latent is smaller than the mask.
    """
    mask_YX = torch.nn.functional.adaptive_avg_pool2d(region.mask_HW[None], latent_shape[1:])[0]
    return mask_YX.expand(latent_shape[0], -1, -1).flatten()


def same_regions(regions: Sequence[Region]) -> tuple[str, str] | None:
    """The names of the first two regions with one and the same mask, if there are."""
    seen: dict[str, str] = {}
    for region in regions:
        if region.mask_sha256 in seen:
            return seen[region.mask_sha256], region.name
        seen[region.mask_sha256] = region.name
    return None

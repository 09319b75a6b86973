"""Region masks: boxes to coverage, content hashes, and the area checks that keep an empty region
out.
"""

from __future__ import annotations

import hashlib

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

"""Regions from part files in the manner of CelebAMask-HQ: one side file for every part that an
image shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lib.files.image_files import ImageError
from lib.files.images import decode_mask
from lib.masks.provider import Masks, one_by_one
from lib.records import Sample


class PartFileMasks:
    """The larger coverage of a region's parts at every pixel; a part without a file is not in the
    image.
    """

    def __init__(
        self, regions: Mapping[str, Sequence[str]], *, all_files: Sequence[str], max_pixels: int
    ) -> None:
        self._regions = regions
        """Region -> extensions of its parts' side files."""
        self._all_files = all_files
        """Extensions of all parts: a sample without any of them has no part files at all."""
        self._max_pixels = max_pixels

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `missing_mask` for a sample without any part file, or what `decode_mask`
        raises.
        """
        return one_by_one(self._of, samples)

    def _of(self, sample: Sample) -> Masks:
        if not any(name in sample.files for name in self._all_files):
            raise ImageError(
                "missing_mask",
                f"expected part files such as `{self._all_files[0]}`, the sample has"
                f" {', '.join(sorted(sample.files)) or 'no side files'}",
            )
        size = sample.geometry.size
        masks: dict[str, Tensor] = {}
        for region, names in self._regions.items():
            mask_HW = torch.zeros(size, size)
            for name in names:
                if name in sample.files:
                    mask_HW = torch.maximum(mask_HW, self._part(sample, name))
            masks[region] = mask_HW
        return masks

    def _part(self, sample: Sample, name: str) -> Tensor:
        part_HW = decode_mask(
            sample.files[name], geometry=sample.geometry, max_pixels=self._max_pixels
        )
        return torch.from_numpy(part_HW)

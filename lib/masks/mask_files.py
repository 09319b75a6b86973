"""Masks that the shard brings, one side file a region, and boxes, which are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lib.files.image_files import ImageError
from lib.files.images import decode_mask
from lib.masks.provider import Masks, one_by_one
from lib.records import Sample
from lib.regions import box_mask


class MaskFiles:
    """Coverage from side files (`lib.files.images.decode_mask`)."""

    def __init__(self, files: Mapping[str, str], *, max_pixels: int) -> None:
        self._files = files
        """Region -> extension of the side file."""
        self._max_pixels = max_pixels

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `missing_mask`, or what `decode_mask` raises."""
        return one_by_one(self._of, samples)

    def _of(self, sample: Sample) -> Masks:
        return {region: self._mask(sample, region) for region in self._files}

    def _mask(self, sample: Sample, region: str) -> Tensor:
        name = self._files[region]
        mask_HW = decode_mask(
            side_file(sample, name, region), geometry=sample.geometry, max_pixels=self._max_pixels
        )
        return torch.from_numpy(mask_HW)


class Boxes:
    """The same rectangles in every image, by exact coverage."""

    def __init__(
        self, boxes: Mapping[str, tuple[float, float, float, float]], *, size: int
    ) -> None:
        self._masks = {region: box_mask(box, size) for region, box in boxes.items()}

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """Never an ImageError."""
        return [self._masks for _ in samples]


def side_file(sample: Sample, name: str, region: str) -> bytes:
    """The side file with extension `name`; raises ImageError `missing_mask` if there is none."""
    if name not in sample.files:
        raise ImageError(
            "missing_mask",
            f"region {region}: expected a side file `{name}`, the sample has"
            f" {', '.join(sorted(sample.files))}",
        )
    return sample.files[name]

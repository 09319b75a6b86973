"""Reference images: a side file of every sample, or one image for all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.files.images import Fit, ImageError, decode
from lib.records import Region, Sample

_LEVEL = 2 / 255
"""A mean difference below one of 255 grey levels is none."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image to move towards."""

    image_CHW: Tensor
    """float32 in [-1, 1], CPU, at the model's size."""
    sha256: str
    """Of its file."""


ReferenceOf = Callable[[Sample], Reference]
"""The reference of a sample; raises ImageError where it cannot be used."""


@dataclass(frozen=True, slots=True)
class ReferenceReader:
    """How references are brought to the model's size: as the images of a run are."""

    size: int
    fit: Fit
    min_side: int
    max_pixels: int

    def read(self, data: bytes) -> Reference:
        """Decode an image file; raises ImageError."""
        pixels_HWC, _ = decode(
            data,
            size=self.size,
            fit=self.fit,
            min_side=self.min_side,
            max_pixels=self.max_pixels,
        )
        image_CHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1).float() / 127.5 - 1
        return Reference(image_CHW, hashlib.sha256(data).hexdigest())

    def of_side_files(self, extension: str) -> ReferenceOf:
        """Every sample's own, under `extension`."""

        def reference_of(sample: Sample) -> Reference:
            if extension not in sample.files:
                raise ImageError(
                    "missing_reference",
                    f"expected a reference image as side file `{extension}`, the sample has"
                    f" {', '.join(sorted(sample.files)) or 'none'}",
                )
            return self.read(sample.files[extension])

        return reference_of

    def of_one(self, data: bytes) -> ReferenceOf:
        """One image for all samples; raises ImageError at once."""
        reference = self.read(data)
        return lambda _sample: reference


def refuse_same(sample: Sample, reference: Reference, region: Region) -> None:
    """Raises ValueError where the reference shows in the region what the image shows there."""
    apart_HW = (reference.image_CHW - sample.image_CHW).abs().mean(0)
    apart = float((apart_HW * region.mask_HW).sum() / region.mask_HW.sum().clamp_min(1e-6))
    if apart < _LEVEL:
        raise ValueError(
            f"region {region.name}: the reference differs from the image there by"
            f" {apart / _LEVEL:.2f} of 255 grey levels in the mean; expected a reference that"
            " differs"
        )

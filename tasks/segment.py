"""The segment stage: named regions of each image, from mask files of the sample or from boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from lib.images import ImageError, decode_mask
from lib.records import Failure, Inverted, Region, Sample, Segmented
from lib.regions import box_mask, make_region

MaskSource = str | tuple[float, float, float, float]
"""A side file's extension, or a box as left, top, right, bottom fractions."""


class Segmenter:
    """Reads the configured regions; a sample with an unusable region is rejected whole."""

    def __init__(
        self,
        sources: Mapping[str, MaskSource],
        *,
        size: int,
        min_area: float,
        max_area: float,
        max_pixels: int,
    ) -> None:
        self._sources = sources
        self._boxes = {n: box_mask(s, size) for n, s in sources.items() if not isinstance(s, str)}
        self._min_area = min_area
        self._max_area = max_area
        self._max_pixels = max_pixels

    def __call__(
        self, items: Iterable[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Segmented]:
        """Rejects as `missing_mask`, `mask_size`, `mask_area` or what the mask's image decoder
        says.
        """
        for inverted in items:
            sample = inverted.sample
            try:
                regions = tuple(self._region(sample, name) for name in self._sources)
            except ImageError as error:
                reject(
                    Failure(
                        sample.shard, sample.index, sample.key, "segment", error.kind, str(error)
                    )
                )
            else:
                yield Segmented(inverted, regions)

    def _region(self, sample: Sample, name: str) -> Region:
        region = make_region(name, self._mask(sample, name))
        area = float(region.mask_HW.mean())
        if not self._min_area <= area <= self._max_area:
            raise ImageError(
                "mask_area",
                f"region {name}: expected a mask covering {self._min_area:.2%} to"
                f" {self._max_area:.2%} of the image, got {area:.2%}",
            )
        return region

    def _mask(self, sample: Sample, name: str) -> Tensor:
        source = self._sources[name]
        if not isinstance(source, str):
            return self._boxes[name]
        if source not in sample.files:
            raise ImageError(
                "missing_mask",
                f"region {name}: expected a side file `{source}`, the sample has"
                f" {', '.join(sorted(sample.files))}",
            )
        mask_HW = decode_mask(
            sample.files[source], geometry=sample.geometry, max_pixels=self._max_pixels
        )
        return torch.from_numpy(mask_HW)

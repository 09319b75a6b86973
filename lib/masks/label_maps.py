"""Regions from label maps: one side file whose pixels are numbers of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lib.image_files import ImageError
from lib.images import decode_labels
from lib.masks.mask_files import side_file
from lib.masks.provider import Masks, one_by_one
from lib.records import Sample


class LabelMapMasks:
    """Which pixels have one of a region's numbers: coverage is 0 or 1."""

    def __init__(
        self,
        regions: Mapping[str, Sequence[int]],
        *,
        file: str,
        names: Mapping[int, str],
        max_pixels: int,
    ) -> None:
        self._regions = regions
        """Region -> numbers of its classes."""
        self._file = file
        self._known = np.array(sorted({0, *names}))
        """0 may be left out of a table: it is the background where nothing else has it."""
        self._max_pixels = max_pixels

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `missing_mask`; `mask_class` for a number that is not in the table, which
        shows that the file is of another one; or what `decode_labels` raises.
        """
        return one_by_one(self._of, samples)

    def _of(self, sample: Sample) -> Masks:
        data = side_file(sample, self._file, ", ".join(self._regions))
        labels_HW, values = decode_labels(
            data, geometry=sample.geometry, max_pixels=self._max_pixels
        )
        unknown = np.setdiff1d(values, self._known)
        if unknown.size:
            raise ImageError(
                "mask_class",
                f"`{self._file}` has the value {unknown[0]}, which no class has; expected values of"
                f" the table ({self._known[0]} to {self._known[-1]})",
            )
        return {
            region: torch.from_numpy(np.isin(labels_HW, numbers).astype(np.float32))
            for region, numbers in self._regions.items()
        }

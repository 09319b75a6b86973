"""Regions that the diffusion model tells apart by itself: clusters of a region model, applied to
every image alike.

Shape suffixes: B images, K clusters, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.files.image_files import ImageError
from lib.masks.cluster_files import RegionModel
from lib.masks.clusters import distances
from lib.masks.components import without_small
from lib.masks.features import FeatureReader
from lib.records import Sample


class AutomaticMasks:
    """A mask provider: each region is the union of some clusters."""

    def __init__(
        self,
        reader: FeatureReader,
        model: RegionModel,
        regions: Mapping[str, Sequence[int]],
        *,
        min_component: float,
    ) -> None:
        """`regions`: name -> clusters; `min_component`: part of the image below which a connected
        piece of a region is dropped.
        """
        self._reader = reader
        self._centres_KD = torch.from_numpy(model.centres_KD)
        self._scale_G = torch.from_numpy(model.scale_G)
        self._regions = {name: torch.tensor(list(found)) for name, found in regions.items()}
        self._min_component = min_component

    def __call__(self, samples: Sequence[Sample]) -> list[dict[str, Tensor] | ImageError]:
        """Masks of 0 and 1; an image for which the network gives no numbers is `not_finite`."""
        numbers_BHW, finite_B = self.numbers(torch.stack([s.image_CHW for s in samples]))
        found: list[dict[str, Tensor] | ImageError] = []
        for numbers_HW, finite in zip(numbers_BHW, finite_B.tolist(), strict=True):
            if finite:
                found.append({n: self._mask(numbers_HW, k) for n, k in self._regions.items()})
            else:
                message = "the network's features are NaN or infinite for this image"
                found.append(ImageError("not_finite", message))
        return found

    def numbers(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest cluster of every pixel (B, H, W), int64 on the CPU, and which images have
        finite features (B).
        """
        height, width = image_BCHW.shape[-2:]
        away_BKHW = distances(
            self._reader(image_BCHW), self._centres_KD, self._scale_G, (height, width)
        )
        return away_BKHW.argmin(1).cpu(), torch.isfinite(away_BKHW).all(3).all(2).all(1).cpu()

    def _mask(self, numbers_HW: Tensor, clusters: Tensor) -> Tensor:
        inside_HW = torch.isin(numbers_HW, clusters).numpy()
        kept_HW = without_small(inside_HW, self._min_component * inside_HW.size)
        return torch.from_numpy(kept_HW.astype(np.float32))

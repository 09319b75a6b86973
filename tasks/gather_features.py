"""The gather stage: the network's features at some pixels of every image, for regions that are
learned from all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import torch

from lib.masks.clusters import sampled
from lib.masks.features import FeatureReader, content_seed
from lib.records import Failure, Featured, Sample


class FeatureGatherer:
    """Looks at images in micro-batches, cut by position in the shard."""

    def __init__(self, reader: FeatureReader, *, pixels: int, batch_size: int) -> None:
        self._reader = reader
        self._pixels = pixels
        """Of an image, drawn by its content."""
        self._batch_size = batch_size

    @property
    def evaluations(self) -> int:
        """Network evaluations an image."""
        return self._reader.evaluations

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Featured]:
        """Points (P, D) of each image, float32 on the CPU; rejects as `not_finite`."""
        for _, batch in groupby(items, key=lambda s: s.index // self._batch_size):
            yield from self._gather(list(batch), reject)

    def _gather(
        self, samples: list[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Featured]:
        maps = self._reader(torch.stack([s.image_CHW for s in samples]))
        for row, sample in enumerate(samples):
            size = (sample.image_CHW.shape[1], sample.image_CHW.shape[2])
            generator = torch.Generator().manual_seed(content_seed(sample.image_CHW))
            places_P = torch.randperm(size[0] * size[1], generator=generator)[: self._pixels]
            points_PD = sampled([m[row] for m in maps], places_P.to(maps[0].device), size)
            if bool(torch.isfinite(points_PD).all()):
                yield Featured(sample, points_PD.float().cpu())
                continue
            where = (sample.shard, sample.index, sample.key)
            message = "the network's features are NaN or infinite for this image"
            reject(Failure(*where, "observe", "not_finite", message))

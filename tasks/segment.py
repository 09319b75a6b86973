"""The segment stage: named regions of each image, from whatever providers the config names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from torch import Tensor

from lib.files.image_files import ImageError
from lib.masks.dilation import dilated
from lib.masks.provider import MaskProvider, Masks
from lib.records import Failure, Inverted, Region, Segmented
from lib.regions import make_region


class Segmenter:
    """Asks the providers for micro-batches, cut by position in the shard as those of the inversion;
    a sample with an unusable region is rejected whole, its neighbours go on.
    """

    def __init__(
        self,
        regions: Sequence[str],
        providers: Sequence[MaskProvider],
        *,
        batch_size: int,
        dilation: float,
        min_area: float,
        max_area: float,
    ) -> None:
        self._regions = tuple(regions)
        """In the order in which they are given on; every one is of one provider."""
        self._providers = tuple(providers)
        self._batch_size = batch_size
        self._dilation = dilation
        """By which every mask is widened, as a fraction of the side."""
        self._min_area = min_area
        self._max_area = max_area

    def __call__(
        self, items: Iterable[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Segmented]:
        """Rejects as `mask_area`, or as the provider says (`missing_mask`, `mask_size`, ...)."""
        for _, batch in groupby(items, key=lambda i: i.sample.index // self._batch_size):
            yield from self._segment(list(batch), reject)

    def _segment(
        self, batch: list[Inverted], reject: Callable[[Failure], None]
    ) -> Iterator[Segmented]:
        samples = [inverted.sample for inverted in batch]
        answers = [provider(samples) for provider in self._providers]
        for position, inverted in enumerate(batch):
            sample = inverted.sample
            try:
                masks = _together([answer[position] for answer in answers])
                regions = tuple(self._region(name, masks[name]) for name in self._regions)
            except ImageError as error:
                reject(
                    Failure(
                        sample.shard, sample.index, sample.key, "segment", error.kind, str(error)
                    )
                )
            else:
                yield Segmented(inverted, regions)

    def _region(self, name: str, mask_HW: Tensor) -> Region:
        region = make_region(name, dilated(mask_HW, self._dilation))
        area = float(region.mask_HW.mean())
        if not self._min_area <= area <= self._max_area:
            raise ImageError(
                "mask_area",
                f"region {name}: expected a mask covering {self._min_area:.2%} to"
                f" {self._max_area:.2%} of the image, got {area:.2%}",
            )
        return region


def _together(answers: Sequence[Masks | ImageError]) -> Mapping[str, Tensor]:
    """The masks of all providers; raises the first of their errors."""
    masks: dict[str, Tensor] = {}
    for answer in answers:
        if isinstance(answer, ImageError):
            raise answer
        masks.update(answer)
    return masks

"""What every source of masks is, so that the segment stage need not know where a region comes
from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from lib.files.image_files import ImageError
from lib.records import Sample

Masks = Mapping[str, Tensor]
"""Region -> coverage_HW, float32 in [0, 1] on the CPU, at the size of the sample's image."""


class MaskProvider(Protocol):
    """Finds the masks of those regions that the config takes from it; they were said when it was
    made.
    """

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """One answer a sample, in order: the masks of all its regions, or why it has none.

        The samples are a micro-batch, cut by position in the shard: a model may take them together.
        Whether a mask is of a usable size is not judged here.
        """
        ...


def one_by_one(
    masks_of: Callable[[Sample], Masks], samples: Sequence[Sample]
) -> list[Masks | ImageError]:
    """The answers of a provider that needs no batch and raises ImageError for a sample."""
    answers: list[Masks | ImageError] = []
    for sample in samples:
        try:
            answers.append(masks_of(sample))
        except ImageError as error:
            answers.append(error)
    return answers

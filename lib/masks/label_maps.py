"""Regions from label maps: one side file whose pixels are numbers of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from lib.files.image_files import ImageError, open_image, upright
from lib.files.images import MODES_16_BIT, Geometry, fitted
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


def decode_labels(
    data: bytes, *, geometry: Geometry, max_pixels: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Decode a label map to class numbers, int32 of shape (size, size), and the sorted numbers that
    occur in the whole file.

    Grey values of 1, 8 and 16 bits and palette indices are the numbers. The map goes through the
    image's crop, then is resized to the nearest pixel: numbers are never averaged.

    Raises:
        ImageError: it cannot be decoded; it is coloured, transparent or a JPEG, whose values are
            not what was written (`unsupported`); or its size does not fit (`mask_size`).

    """
    image, orientation = open_image(data, max_pixels=max_pixels)
    values = _labels(image)
    upright_values = upright(Image.fromarray(values), orientation)
    fitted_values = fitted(upright_values, geometry, Image.Resampling.NEAREST)
    return np.array(fitted_values, dtype=np.int32), np.unique(values)


def _labels(image: Image.Image) -> npt.NDArray[np.int32]:
    """Class numbers at the file's own size and orientation."""
    if image.format == "JPEG":
        raise ImageError("unsupported", "a label map is a JPEG, which changes values; expected PNG")
    if image.mode in ("1", "L", "P", "I", *MODES_16_BIT):
        return np.asarray(image).astype(np.int32)
    if image.mode == "RGB":
        values = np.asarray(image)
        if (values == values[:, :, :1]).all():
            return values[:, :, 0].astype(np.int32)
    raise ImageError(
        "unsupported",
        f"a label map has coloured or transparent pixels ({image.mode}); expected class numbers as"
        " grey values or palette indices",
    )

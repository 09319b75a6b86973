"""Samples for providers of masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from PIL import Image

from lib.files.images import Geometry
from lib.records import Sample


def make_sample(
    index: int = 0,
    *,
    size: int = 16,
    width: int | None = None,
    height: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Sample:
    """A sample of a picture of width x height, cut to the centred square; its pixels follow from
    its index.
    """
    width, height = width or size, height or size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    geometry = Geometry(width, height, left, top, side, side, size, "PNG", "RGB", 1)
    coarse = np.random.default_rng(index).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    image_CHW = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1) / 127.5 - 1
    return Sample("s", index, f"k{index}", image_CHW, geometry, files or {}, index)


@pytest.fixture(name="sample")
def sample_factory() -> Callable[..., Sample]:
    return make_sample

"""Regions from boxes and mask files, and what becomes of a mask that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lib.files.image_files import ImageError
from lib.files.images import decode
from lib.masks.mask_files import Boxes, MaskFiles
from lib.records import Failure, Inverted, Sample, Segmented
from lib.sampling.sampler import plain_latent
from tasks.segment import Segmenter


def segment(
    sources: dict[str, str | tuple[float, float, float, float]],
    samples: list[Sample],
    size: int = 16,
) -> tuple[list[Segmented], list[Failure]]:
    files = {name: source for name, source in sources.items() if isinstance(source, str)}
    boxes = {name: source for name, source in sources.items() if not isinstance(source, str)}
    stage = Segmenter(
        list(sources),
        [MaskFiles(files, max_pixels=1_000_000), Boxes(boxes, size=size)],
        batch_size=4,
        dilation=0.0,
        min_area=0.0005,
        max_area=0.95,
    )
    failures: list[Failure] = []
    latent_LYX = torch.zeros(3, size, size)
    inverted = [Inverted(sample, plain_latent(latent_LYX), {}) for sample in samples]
    return list(stage(inverted, failures.append)), failures


@pytest.fixture
def framed(sample: Callable[..., Sample]) -> Callable[..., Sample]:
    """A 16 x 16 sample of a picture of the given size with the given files."""

    def make(index: int = 0, width: int = 16, height: int = 16, **files: bytes) -> Sample:
        return sample(
            index,
            torch.zeros(3, 16, 16),
            size=16,
            width=width,
            height=height,
            files={name.replace("_", "."): data for name, data in files.items()},
        )

    return make


@pytest.mark.parametrize(
    "box", [(0, 0, 0.5, 1), (0.1, 0.22, 0.55, 0.87), (0.31, 0.5, 0.37, 0.52), (0.03, 0, 1, 0.9)]
)
@pytest.mark.parametrize("size", [5, 16])
def test_a_box_covers_every_pixel_by_the_area_they_share(
    framed: Any, box: tuple[float, float, float, float], size: int
) -> None:
    (found,), _ = segment({"box": box}, [framed()], size)
    left, top, right, bottom = (edge * size for edge in box)
    edges = list(pairwise(range(size + 1)))
    expected_HW = np.array(
        [
            [max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
             for x0, x1 in edges]
            for y0, y1 in edges
        ]
    )  # fmt: skip
    # A region's coverage is kept in steps of 1/255.
    np.testing.assert_allclose(found.regions[0].mask_HW, expected_HW, rtol=0, atol=0.5 / 255 + 1e-6)


def test_regions_come_in_the_order_of_the_config_with_the_pixels_of_their_files(
    framed: Any, shards: Any
) -> None:
    right = shards.mask(box=(8, 0, 16, 16))
    bundle = framed(eyes_png=shards.mask(), mouth_png=right)
    (found,), failures = segment(
        {"mouth": "mouth.png", "frame": (0, 0, 1, 0.25), "eyes": "eyes.png"}, [bundle]
    )
    assert not failures
    assert [region.name for region in found.regions] == ["mouth", "frame", "eyes"]
    mouth, _, eyes = (region.mask_HW.numpy() for region in found.regions)
    assert mouth[:, 8:].min() == 1
    assert mouth[:, :8].max() == 0
    np.testing.assert_array_equal(eyes, 1 - mouth)
    hashes = {region.mask_sha256 for region in found.regions}
    assert len(hashes) == 3


def test_a_mask_goes_through_the_crop_of_its_image(framed: Any, shards: Any) -> None:
    """Of a 64 x 32 picture columns 16 to 48 are kept, so a mask of columns 0 to 32 covers half."""
    mask = shards.mask(64, 32, (0, 0, 32, 32))
    picture = shards.encoded(shards.picture(0, 64, 32))
    _, geometry = decode(picture, size=16, fit="crop", min_side=1, max_pixels=10_000)
    assert (geometry.crop_left, geometry.crop_width) == (16, 32)
    (found,), _ = segment({"part": "part.png"}, [framed(width=64, height=32, part_png=mask)])
    mask_HW = found.regions[0].mask_HW.numpy()
    assert mask_HW[:, :8].min() == 1
    assert mask_HW[:, 8:].max() == 0


def test_every_unusable_mask_is_rejected_by_its_kind_and_the_rest_goes_on(
    framed: Any, shards: Any
) -> None:
    good = shards.mask()
    bundles = [
        framed(0, part_png=good),
        framed(1, other_png=good),
        framed(2, part_png=shards.mask(17, 16)),
        framed(3, part_png=shards.mask(box=(0, 0, 0, 0))),
        framed(4, part_png=shards.mask(box=(0, 0, 16, 16))),
        framed(5, part_png=b"no picture"),
        framed(6, part_png=good[: len(good) // 2]),
        framed(7, part_png=shards.encoded(shards.picture(0))),
        framed(8, part_png=good),
    ]
    found, failures = segment({"part": "part.png"}, bundles)
    assert [f.inverted.sample.index for f in found] == [0, 8]
    assert [(f.index, f.kind) for f in failures] == [
        (1, "missing_mask"),
        (2, "mask_size"),
        (3, "mask_area"),
        (4, "mask_area"),
        (5, "not_an_image"),
        (6, "truncated"),
        (7, "unsupported"),
    ]
    assert {f.stage for f in failures} == {"segment"}
    assert "other.png" in failures[0].message
    assert "17 x 16" in failures[1].message


def test_a_sample_with_one_bad_region_of_two_fails_once(framed: Any, shards: Any) -> None:
    found, failures = segment(
        {"bad": "bad.png", "worse": "worse.png", "good": (0, 0, 1, 0.5)},
        [framed(bad_png=b"", worse_png=b"")],
    )
    assert not found
    assert len(failures) == 1


def test_providers_are_asked_in_batches_cut_by_position_and_gaps_move_nobody(framed: Any) -> None:
    asked: list[list[int]] = []

    def provider(samples: Any) -> list[Any]:
        asked.append([sample.index for sample in samples])
        return [
            ImageError("not_finite", "NaN") if sample.index == 5 else {"all": torch.ones(16, 16)}
            for sample in samples
        ]

    stage = Segmenter(["all"], [provider], batch_size=4, dilation=0.0, min_area=0.0, max_area=1.0)
    latent = plain_latent(torch.zeros(3, 16, 16))
    inverted = [Inverted(framed(index), latent, {}) for index in (0, 1, 3, 4, 5, 7, 9)]
    failures: list[Failure] = []
    found = list(stage(inverted, failures.append))
    assert asked == [[0, 1, 3], [4, 5, 7], [9]]
    assert [f.inverted.sample.index for f in found] == [0, 1, 3, 4, 7, 9]
    assert [(f.index, f.kind) for f in failures] == [(5, "not_finite")]

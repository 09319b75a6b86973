"""One drawn face as part files and as label maps in both orders: the masks are the same, and those
that numpy finds in the drawing.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lib.files.image_files import ImageError
from lib.masks.class_names import BISENET, CELEBAMASK_HQ, PARTS, numbers_of, parts_of
from lib.masks.label_maps import LabelMapMasks
from lib.masks.part_files import PartFileMasks
from lib.masks.provider import Masks

REGIONS = ("eyes", "brows", "ears", "mouth", "neck", "hair", "skin", "hat")
MEANT = {
    "eyes": ["l_eye", "r_eye"],
    "brows": ["l_brow", "r_brow"],
    "ears": ["l_ear", "r_ear"],
    "mouth": ["mouth", "u_lip", "l_lip"],
    "neck": ["neck", "neck_l"],
    "hair": ["hair"],
    "skin": ["skin"],
    "hat": ["hat"],
}
FACE: npt.NDArray[np.str_] = np.random.default_rng(3).choice(
    [name for name in CELEBAMASK_HQ if name != "hat"], (16, 24)
)
"""A name for every pixel; nobody wears a hat."""


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def numbered(order: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    return np.vectorize(order.index)(FACE).astype(np.uint8)


def palette(values: npt.NDArray[np.uint8]) -> bytes:
    """An indexed PNG whose colours say nothing: all indices are nearly the same grey."""
    image = Image.fromarray(values, mode="P")
    image.putpalette([200 - k % 3 for k in range(256) for _ in range(3)])
    return png(image)


def part_files() -> dict[str, bytes]:
    """As CelebAMask-HQ has them: white on black in RGB, none for a part that is not there."""
    return {
        f"{name}.png": png(Image.fromarray((name == FACE).astype(np.uint8) * 255).convert("RGB"))
        for name in PARTS
        if (name == FACE).any()
    }


def label_map(order: tuple[str, ...], sample: Any) -> Masks | ImageError:
    names = dict(enumerate(order))
    regions = {name: numbers_of([name], names, unite=True) for name in REGIONS}
    provider = LabelMapMasks(regions, file="labels.png", names=names, max_pixels=10_000)
    return provider([sample])[0]


def parts(sample: Any) -> Masks | ImageError:
    regions = {
        name: [f"{part}.png" for part in parts_of(name, PARTS, unite=True)] for name in REGIONS
    }
    files = [f"{part}.png" for part in PARTS]
    return PartFileMasks(regions, all_files=files, max_pixels=10_000)([sample])[0]


def drawn(region: str) -> npt.NDArray[np.bool_]:
    """The centred square of the drawing."""
    return np.isin(FACE, MEANT[region])[:, 4:20]


@pytest.mark.parametrize(
    ("order", "write"),
    [
        (CELEBAMASK_HQ, lambda values: png(Image.fromarray(values))),
        (BISENET, lambda values: png(Image.fromarray(values))),
        (BISENET, palette),
        (CELEBAMASK_HQ, lambda values: png(Image.fromarray(values.astype(np.uint16)))),
        (BISENET, lambda values: png(Image.fromarray(values).convert("RGB"))),
    ],
    ids=["celebamask_hq", "bisenet", "palette", "16 bit", "grey as RGB"],
)
def test_a_face_in_either_order_has_the_masks_of_the_drawing(
    sample: Any, order: tuple[str, ...], write: Any
) -> None:
    found = label_map(
        order, sample(width=24, height=16, files={"labels.png": write(numbered(order))})
    )
    assert not isinstance(found, ImageError)
    assert tuple(found) == REGIONS
    for region, mask_HW in found.items():
        np.testing.assert_array_equal(mask_HW.numpy(), drawn(region))


def test_part_files_have_the_masks_of_the_drawing_and_absent_parts_are_empty(sample: Any) -> None:
    files = part_files()
    assert "hat.png" not in files
    found = parts(sample(width=24, height=16, files=files))
    assert not isinstance(found, ImageError)
    for region, mask_HW in found.items():
        np.testing.assert_array_equal(mask_HW.numpy(), drawn(region))
    assert float(found["hat"].max()) == 0


def test_masks_of_half_the_side_are_fitted_to_their_image(sample: Any) -> None:
    """CelebAMask-HQ: images of 1024 pixels, masks of 512."""
    files = {"labels.png": png(Image.fromarray(numbered(BISENET)))}
    found = label_map(BISENET, sample(width=48, height=32, files=files))
    halves = parts(sample(width=48, height=32, files=part_files()))
    assert not isinstance(found, ImageError)
    assert not isinstance(halves, ImageError)
    for region in REGIONS:
        np.testing.assert_array_equal(found[region].numpy(), drawn(region))
        np.testing.assert_array_equal(halves[region].numpy(), drawn(region))


def test_label_maps_are_resized_to_the_nearest_pixel_and_never_averaged(sample: Any) -> None:
    values = np.kron(numbered(CELEBAMASK_HQ), np.ones((3, 3), np.uint8))
    files = {"labels.png": png(Image.fromarray(values))}
    found = label_map(CELEBAMASK_HQ, sample(width=72, height=48, files=files))
    assert not isinstance(found, ImageError)
    for region in REGIONS:
        np.testing.assert_array_equal(found[region].numpy(), drawn(region))


def test_a_value_that_no_class_has_names_itself(sample: Any) -> None:
    values = numbered(BISENET)
    values[0, 0] = 31
    found = label_map(
        BISENET, sample(width=24, height=16, files={"labels.png": png(Image.fromarray(values))})
    )
    assert isinstance(found, ImageError)
    assert found.kind == "mask_class"
    assert "value 31, which no class has" in str(found)


def test_label_maps_that_cannot_be_numbers_are_refused(sample: Any) -> None:
    file = io.BytesIO()
    Image.fromarray(numbered(BISENET)).save(file, "JPEG")
    coloured = Image.merge("RGB", [Image.fromarray(numbered(o)) for o in (BISENET, CELEBAMASK_HQ)]
                           + [Image.new("L", (24, 16))])  # fmt: skip
    for data, words in ((file.getvalue(), "JPEG"), (png(coloured), "coloured")):
        found = label_map(BISENET, sample(width=24, height=16, files={"labels.png": data}))
        assert isinstance(found, ImageError)
        assert found.kind == "unsupported"
        assert words in str(found)


def test_a_sample_without_its_files_says_what_is_missing(sample: Any) -> None:
    empty = sample(files={"x.txt": b""})
    for found, name in ((parts(empty), "skin.png"), (label_map(BISENET, empty), "labels.png")):
        assert isinstance(found, ImageError)
        assert found.kind == "missing_mask"
        assert name in str(found)
        assert "x.txt" in str(found)


def test_one_bad_sample_does_not_touch_its_neighbours(sample: Any) -> None:
    good = {"labels.png": png(Image.fromarray(numbered(BISENET)))}
    names = dict(enumerate(BISENET))
    provider = LabelMapMasks({"hair": (17,)}, file="labels.png", names=names, max_pixels=10_000)
    samples = [sample(0, width=24, height=16, files=good), sample(1, width=24, height=16),
               sample(2, width=24, height=16, files=good)]  # fmt: skip
    first, second, third = provider(samples)
    assert isinstance(second, ImageError)
    for found in (first, third):
        assert not isinstance(found, ImageError)
        np.testing.assert_array_equal(found["hair"].numpy(), drawn("hair"))

"""The sheet by which regions are named."""

import numpy as np
import pytest

from pipelines.region_drawing import colours, drawn_sheet, lit, middle


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [((0, 9), (0, 5), (4, 2)), ((3, 4), (4, 5), (3, 4)), ((0, 3), (0, 9), (1, 4))],
)
def test_a_text_stands_in_the_middle_of_its_region(
    rows: tuple[int, int], columns: tuple[int, int], place: tuple[int, int]
) -> None:
    inside_HW = np.zeros((9, 9), bool)
    inside_HW[slice(*rows), slice(*columns)] = True
    assert middle(inside_HW) == place


def test_a_text_of_a_ring_stands_on_the_ring() -> None:
    inside_HW = np.ones((20, 20), bool)
    inside_HW[5:15, 5:15] = False
    assert inside_HW[middle(inside_HW)]


def test_a_region_is_lit_and_the_rest_is_dark_grey() -> None:
    image_HWC = np.random.default_rng(0).integers(60, 256, (6, 6, 3)).astype(np.uint8)
    inside_HW = np.zeros((6, 6), bool)
    inside_HW[2:4, 1:5] = True
    lit_HWC = lit(image_HWC, inside_HW)
    np.testing.assert_array_equal(lit_HWC[inside_HW], image_HWC[inside_HW])
    assert lit_HWC[~inside_HW].max() < 60
    assert (lit_HWC[~inside_HW] == lit_HWC[~inside_HW][:, :1]).all()


def test_all_regions_have_colours_of_their_own() -> None:
    assert len({tuple(colour) for colour in colours(255).tolist()}) > 240
    assert len({tuple(colour) for colour in colours(32).tolist()}) == 32


def test_names_add_a_row_and_the_same_sheet_is_the_same_bytes() -> None:
    random = np.random.default_rng(1)
    image_NHWC = random.integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    numbers_NHW = random.integers(0, 5, (3, 8, 8)).repeat(8, 1).repeat(8, 2)
    plain = drawn_sheet(image_NHWC, numbers_NHW, [""] * 5, [0.2] * 5)
    named = drawn_sheet(image_NHWC, numbers_NHW, ["hair", "", "hair", "x" * 99, ""], [0.2] * 5)
    assert plain.dtype == np.uint8
    assert named.shape[0] > plain.shape[0]
    assert named.shape[1] == plain.shape[1]
    again = drawn_sheet(image_NHWC, numbers_NHW, [""] * 5, [0.2] * 5)
    np.testing.assert_array_equal(plain, again)

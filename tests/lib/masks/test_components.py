"""Connected pieces, against scikit-image."""

import numpy as np
import pytest
from skimage.measure import label
from skimage.morphology import disk

from lib.masks.components import component_numbers, without_small


def spiral(size: int = 41) -> np.ndarray:
    """One winding piece of width 1: the worst case for labels that creep."""
    mask = np.zeros((size, size), bool)
    y, x, dy, dx, run = 0, 0, 0, 1, size - 1
    mask[0, 0] = True
    turns = 0
    while run > 0:
        for _ in range(run):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
        turns += 1
        if turns > 2 and turns % 2 == 1:
            run -= 2
    return mask


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    found = [random.random((30, 23)) < p for p in (0.05, 0.3, 0.5, 0.7)]
    return [*found, spiral(), np.ones((5, 7), bool), np.zeros((4, 4), bool)]


@pytest.mark.parametrize("mask_HW", masks())
def test_pieces_are_those_of_scikit_image(mask_HW: np.ndarray) -> None:
    ours_HW, theirs_HW = component_numbers(mask_HW), label(mask_HW, connectivity=2)
    pairs = set(zip(ours_HW[mask_HW].tolist(), theirs_HW[mask_HW].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert (ours_HW[~mask_HW] == mask_HW.size).all()


def test_small_pieces_go_and_the_others_stay_as_they_are() -> None:
    mask_HW = np.zeros((40, 40), bool)
    mask_HW[5:20, 5:20] = disk(7)
    kept_HW = mask_HW.copy()
    mask_HW[30, 30:33] = True
    mask_HW[35, 2] = True
    np.testing.assert_array_equal(without_small(mask_HW, 4), kept_HW)
    np.testing.assert_array_equal(without_small(mask_HW, 1), mask_HW)


def test_of_small_pieces_alone_the_largest_stays() -> None:
    mask_HW = np.zeros((10, 10), bool)
    mask_HW[1, 1:4] = mask_HW[8, 8] = True
    kept_HW = without_small(mask_HW, 50)
    assert kept_HW.sum() == 3
    assert kept_HW[1, 1:4].all()
    assert not without_small(np.zeros((3, 3), bool), 5).any()

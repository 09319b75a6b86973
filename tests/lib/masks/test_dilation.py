"""Widened masks against scipy's distance transform."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from lib.masks.dilation import dilated


def test_a_mask_is_widened_by_a_fraction_of_the_side() -> None:
    mask_HW = torch.zeros(40, 40)
    mask_HW[10:14, 12:20] = 1
    mask_HW[30, 30] = 0.25
    expected_HW = distance_transform_edt(mask_HW.numpy() == 0) <= 3
    np.testing.assert_array_equal(dilated(mask_HW, 3 / 40).numpy(), expected_HW)


def test_nothing_changes_without_dilation_and_nothing_grows_out_of_nothing() -> None:
    mask_HW = torch.rand(8, 8)
    assert torch.equal(dilated(mask_HW, 0.0), mask_HW)
    assert float(dilated(torch.zeros(8, 8), 0.25).max()) == 0
    assert float(dilated(torch.ones(8, 8), 0.25).min()) == 1

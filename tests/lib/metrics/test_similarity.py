"""SSIM against scikit-image, and against its formula written out at one pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from lib.metrics.similarity import ssim, ssim_map


def pair(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    a_BCHW = torch.rand(3, 3, size, size, generator=generator) * 2 - 1
    noise_BCHW = torch.randn(3, 3, size, size, generator=generator)
    return a_BCHW, (a_BCHW + torch.tensor([0.0, 0.2, 1.0])[:, None, None, None] * noise_BCHW)


@pytest.mark.parametrize("size", [11, 16, 64])
def test_the_number_is_that_of_scikit_image(size: int) -> None:
    a_BCHW, b_BCHW = pair(size)
    found_B = ssim(a_BCHW, b_BCHW)
    for a_CHW, b_CHW, found in zip(a_BCHW, b_BCHW, found_B, strict=True):
        expected = structural_similarity(
            a_CHW.double().numpy(), b_CHW.double().numpy(), channel_axis=0, data_range=2.0,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert float(found) == pytest.approx(expected, abs=1e-5)
    assert float(found_B[0]) == pytest.approx(1, abs=1e-6)
    assert float(found_B[1]) > float(found_B[2])


def test_the_map_is_the_formula_of_wang_with_mirrored_borders() -> None:
    a_BCHW, b_BCHW = pair(20)
    found_BHW = ssim_map(a_BCHW, b_BCHW)

    def blurred(x_HW: np.ndarray) -> np.ndarray:
        return gaussian_filter(x_HW, 1.5, mode="mirror", truncate=3.5)

    for a_CHW, b_CHW, found_HW in zip(a_BCHW, b_BCHW, found_BHW, strict=True):
        expected_HW = np.zeros((20, 20))
        for a, b in zip(a_CHW.double().numpy(), b_CHW.double().numpy(), strict=True):
            mean_a, mean_b = blurred(a), blurred(b)
            covariance = blurred(a * b) - mean_a * mean_b
            var = blurred(a * a) - mean_a**2 + blurred(b * b) - mean_b**2
            expected_HW += (
                (2 * mean_a * mean_b + 0.02**2)
                * (2 * covariance + 0.06**2)
                / ((mean_a**2 + mean_b**2 + 0.02**2) * (var + 0.06**2))
            ) / 3
        np.testing.assert_allclose(found_HW.numpy(), expected_HW, atol=2e-5)


def test_an_image_smaller_than_the_window_has_a_number_too() -> None:
    a_BCHW, b_BCHW = pair(8)
    found_B = ssim(a_BCHW, b_BCHW)
    assert float(found_B[0]) == pytest.approx(1, abs=1e-6)
    assert bool(torch.isfinite(found_B).all())

"""The guard's mask against scipy's distance transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from lib.editing.region_guard import RegionGuard, distance, guarded


def region() -> torch.Tensor:
    """A box and a far pixel that is barely covered."""
    mask_HW = torch.zeros(32, 32)
    mask_HW[10:14, 12:20] = 1
    mask_HW[29, 3] = 0.1
    return mask_HW


def test_distances_are_euclidean_up_to_the_limit() -> None:
    expected_HW = distance_transform_edt(region().numpy() == 0)
    found_HW = distance(region() > 0, 6).numpy()
    near = expected_HW <= 6
    np.testing.assert_allclose(found_HW[near], expected_HW[near], rtol=1e-6)
    assert (found_HW[~near] > 6).all()


@pytest.mark.parametrize(("dilation", "feather"), [(2 / 32, 4 / 32), (3 / 32, 0.0), (0.0, 0.0)])
def test_edits_are_kept_near_the_region_and_fade_linearly(dilation: float, feather: float) -> None:
    found_YX = RegionGuard(dilation, feather).mask(region(), (3, 32, 32)).numpy()
    away_HW = distance_transform_edt(region().numpy() == 0) - 32 * dilation
    expected_YX = (away_HW <= 0).astype(float)
    if feather:
        expected_YX = np.clip(1 - away_HW / (32 * feather), 0, 1)
    np.testing.assert_allclose(found_YX, expected_YX, atol=1e-6)
    assert (found_YX[region().numpy() > 0] == 1).all()
    assert (found_YX == 0).any()


def test_the_mask_comes_to_latent_size_by_area() -> None:
    guard = RegionGuard(0.05, 0.1)
    whole_YX = guard.mask(region(), (1, 32, 32)).numpy()
    expected_YX = whole_YX.reshape(8, 4, 8, 4).mean((1, 3))
    np.testing.assert_allclose(guard.mask(region(), (4, 8, 8)).numpy(), expected_YX, atol=1e-6)


def test_the_whole_image_is_not_guarded() -> None:
    assert bool((RegionGuard(0.03, 0.03).mask(torch.ones(32, 32), (3, 32, 32)) == 1).all())


def test_blending_is_exact_at_both_ends_in_every_state() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    lead = torch.randn(2, 1, 1, 4, 4, generator=generator, dtype=torch.float64)
    mask_BYX = torch.zeros(3, 4, 4)
    mask_BYX[1], mask_BYX[2, :2] = 1, 1
    found = guarded(states, lead, mask_BYX)
    assert torch.equal(found[:, 0], lead[:, 0])
    assert torch.equal(found[:, 1], states[:, 1])
    assert torch.equal(found[:, 2, :, :2], states[:, 2, :, :2])
    assert torch.equal(found[:, 2, :, 2:], lead[:, 0, :, 2:])

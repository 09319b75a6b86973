import numpy as np
import pytest
import torch

from lib.regions import box_mask, flat_mask, make_region


@pytest.mark.parametrize(("size", "side"), [(16, 16), (16, 8), (64, 8), (24, 8)])
def test_a_mask_is_carried_to_the_latent_by_area(size: int, side: int) -> None:
    mask_HW = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    region = make_region("r", mask_HW)
    block = size // side
    expected_YX = region.mask_HW.numpy().reshape(side, block, side, block).mean(axis=(1, 3))
    found_LYX = flat_mask(region, (4, side, side)).view(4, side, side).numpy()
    for of_channel_YX in found_LYX:
        np.testing.assert_allclose(of_channel_YX, expected_YX, atol=1e-6)


def test_a_small_region_is_never_lost_in_a_small_latent() -> None:
    for left in np.linspace(0, 0.9, 7):
        region = make_region("dot", box_mask((left, left, left + 0.01, left + 0.01), 512))
        covered = flat_mask(region, (4, 64, 64))
        assert float(covered.max()) > 0
        area = float(region.mask_HW.mean())
        assert float(covered.mean()) == pytest.approx(area, rel=1e-4)

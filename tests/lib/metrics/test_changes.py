"""Changes inside and outside a region: by hand on 4 x 4 pixels, against numpy and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from lib.metrics import changes
from lib.metrics.changes import edit_changes, fidelity, split_mean
from lib.metrics.columns import EDIT, RECONSTRUCTION


def without_ssim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window does not fit into 4 x 4 pixels."""
    monkeypatch.setattr(changes, "ssim_map", lambda a_BCHW, _: torch.ones_like(a_BCHW[:, 0]))


def test_roir_of_a_4_by_4_example_is_the_one_computed_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Region: the left half, 8 pixels, the corner half covered. The edit moves it by 0.4 and one
    pixel outside by 0.8; the reconstruction is 0.1 off the original on the right half.

    Inside 7.5 pixels weigh 1, so L1 = 0.4; outside 8.5 weigh, of which the pixel (0.8) and half the
    corner (0.4 / 2): (0.8 + 0.2) / 8.5; ROIR = (1 / 8.5) / 0.4.
    """
    without_ssim(monkeypatch)
    mask_HW = torch.zeros(4, 4)
    mask_HW[:, :2] = 1
    mask_HW[0, 0] = 0.5
    original_CHW = torch.full((3, 4, 4), -0.5)
    reconstruction_CHW = original_CHW.clone()
    reconstruction_CHW[:, :, 2:] += 0.1
    edited_CHW = reconstruction_CHW.clone()
    edited_CHW[:, :, :2] += 0.4
    edited_CHW[:, 3, 3] += 0.8
    (found,) = edit_changes(edited_CHW[None], reconstruction_CHW, original_CHW, mask_HW[None])
    outside = (0.8 + 0.4 / 2) / 8.5
    assert found["in_change"] == pytest.approx(0.4, rel=1e-6)
    assert found["out_change"] == pytest.approx(outside, rel=1e-6)
    assert found["roir"] == pytest.approx(outside / 0.4, rel=1e-6)
    assert found["in_l2"] == pytest.approx(0.16, rel=1e-6)
    assert found["out_l2"] == pytest.approx((0.64 + 0.16 / 2) / 8.5, rel=1e-6)
    off = (7 * 0.1 + 0.9 + 0.4 / 2) / 8.5
    assert found["roir_original"] == pytest.approx(off / 0.4, rel=1e-5)
    assert found.keys() == EDIT.keys()


def images(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(edited, reconstruction, original, masks) at 32 px: 5 edits of one image."""
    generator = torch.Generator().manual_seed(seed)
    original_CHW = torch.rand(3, 32, 32, generator=generator) * 2 - 1
    reconstruction_CHW = original_CHW + 0.05 * torch.randn(3, 32, 32, generator=generator)
    edited_BCHW = reconstruction_CHW + 0.2 * torch.randn(5, 3, 32, 32, generator=generator)
    return edited_BCHW, reconstruction_CHW, original_CHW, torch.rand(5, 32, 32, generator=generator)


def test_every_change_is_the_weighted_mean_of_numpy() -> None:
    edited_BCHW, reconstruction_CHW, original_CHW, mask_BHW = images(0)
    found = edit_changes(edited_BCHW, reconstruction_CHW, original_CHW, mask_BHW)
    before, original = reconstruction_CHW.double().numpy(), original_CHW.double().numpy()
    for metrics, edited_CHW, mask_HW in zip(found, edited_BCHW, mask_BHW, strict=True):
        edited, mask = edited_CHW.double().numpy(), mask_HW.double().numpy()
        moved = np.abs(edited - before)
        inside, outside = (np.average(moved.mean(0), weights=w) for w in (mask, 1 - mask))
        assert metrics["in_change"] == pytest.approx(inside, rel=1e-5)
        assert metrics["out_change"] == pytest.approx(outside, rel=1e-5)
        assert metrics["roir"] == pytest.approx(outside / inside, rel=1e-5)
        squares = (moved**2).mean(0)
        assert metrics["in_l2"] == pytest.approx(np.average(squares, weights=mask), rel=1e-5)
        assert metrics["out_l2"] == pytest.approx(np.average(squares, weights=1 - mask), rel=1e-5)
        off = np.abs(edited - original).mean(0)
        expected = np.average(off, weights=1 - mask) / np.average(off, weights=mask)
        assert metrics["roir_original"] == pytest.approx(expected, rel=1e-5)


def test_ssim_inside_and_outside_is_the_map_of_scikit_image_over_the_mask() -> None:
    edited_BCHW, reconstruction_CHW, original_CHW, _ = images(1)
    mask_HW = torch.zeros(32, 32)
    mask_HW[8:20, 8:24] = 1  # so that only what lies inside sees no border
    found = edit_changes(edited_BCHW, reconstruction_CHW, original_CHW, mask_HW.expand(5, -1, -1))
    before = reconstruction_CHW.double().numpy()
    for metrics, edited_CHW in zip(found, edited_BCHW, strict=True):
        _, map_CHW = structural_similarity(
            edited_CHW.double().numpy(), before, channel_axis=0, data_range=2.0, full=True,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        inside = map_CHW.mean(0)[8:20, 8:24].mean()
        assert metrics["in_ssim"] == pytest.approx(inside, abs=1e-5)
        assert metrics["out_ssim"] == pytest.approx(inside, abs=0.1), "the same noise everywhere"


def test_an_edit_that_does_nothing_changes_nothing() -> None:
    _, reconstruction_CHW, original_CHW, mask_BHW = images(2)
    (found,) = edit_changes(
        reconstruction_CHW[None], reconstruction_CHW, original_CHW, mask_BHW[:1]
    )
    for name in ("in_change", "out_change", "in_l2", "out_l2", "roir"):
        assert found[name] == 0
    assert found["in_ssim"] == pytest.approx(1)
    assert found["out_ssim"] == pytest.approx(1)


def test_a_region_of_the_whole_image_has_no_outside() -> None:
    edited_BCHW, reconstruction_CHW, original_CHW, mask_BHW = images(3)
    mask_BHW = torch.cat([torch.ones(1, 32, 32), mask_BHW[1:]])
    whole, other, *_ = edit_changes(edited_BCHW, reconstruction_CHW, original_CHW, mask_BHW)
    assert whole["out_change"] == whole["out_l2"] == 0
    assert all(math.isnan(whole[name]) for name in ("roir", "roir_original", "out_ssim"))
    moved = (edited_BCHW[0] - reconstruction_CHW).abs().mean()
    assert whole["in_change"] == pytest.approx(float(moved), rel=1e-5)
    assert not any(math.isnan(value) for value in other.values())


def test_nothing_that_is_empty_is_divided_by_zero() -> None:
    map_BHW = torch.ones(1, 4, 4)
    assert [float(m) for m in split_mean(map_BHW, torch.zeros(1, 4, 4))] == [0, 1]


def test_fidelity_is_that_of_scikit_image() -> None:
    _, reconstruction_CHW, original_CHW, _ = images(4)
    found = fidelity(reconstruction_CHW, original_CHW)
    a, b = reconstruction_CHW.double().numpy(), original_CHW.double().numpy()
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=2), abs=1e-4)
    assert found["reconstruction_l1"] == pytest.approx(np.abs(a - b).mean(), rel=1e-5)
    assert found["reconstruction_l2"] == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    expected = structural_similarity(
        a, b, channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert found["reconstruction_ssim"] == pytest.approx(expected, abs=1e-5)
    assert found.keys() == RECONSTRUCTION.keys() - {"posterior_gap"}

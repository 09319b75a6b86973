"""The weight-free measure against scikit-image, and how LPIPS is asked for."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from skimage.transform import downscale_local_mean
from torch import Tensor

from lib.metrics.perceptual_distance import perceptual_distance, structural_distance
from lib.problems import ModelProblem


def pair(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    a_BCHW = torch.rand(2, 3, size, size, generator=generator) * 2 - 1
    return a_BCHW, (a_BCHW + 0.5 * torch.randn(2, 3, size, size, generator=generator)).clamp(-1, 1)


@pytest.mark.parametrize(("size", "scales"), [(64, 3), (24, 2), (16, 1)])
def test_distance_is_one_minus_the_mean_ssim_of_all_scales(size: int, scales: int) -> None:
    a_BCHW, b_BCHW = pair(size)
    for a_CHW, b_CHW, found in zip(
        a_BCHW, b_BCHW, structural_distance(a_BCHW, b_BCHW), strict=True
    ):
        expected = []
        for scale in range(scales):
            a, b = (
                downscale_local_mean(x_CHW.double().numpy(), (1, 2**scale, 2**scale))
                for x_CHW in (a_CHW, b_CHW)
            )
            similarity = structural_similarity(
                a, b, channel_axis=0, data_range=2.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )  # fmt: skip
            expected.append(1 - similarity)
        assert float(found) == pytest.approx(np.mean(expected), abs=1e-4)


def test_equal_images_are_not_apart() -> None:
    a_BCHW, _ = pair(32)
    assert float(structural_distance(a_BCHW, a_BCHW).abs().max()) < 1e-5


class FakeNetwork:
    def to(self, device: torch.device) -> FakeNetwork:
        return self

    def eval(self) -> FakeNetwork:
        return self

    def __call__(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        return (a_BCHW - b_BCHW).abs().mean((1, 2, 3), keepdim=True)


def test_lpips_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("lpips")
    package.LPIPS = lambda net, verbose: FakeNetwork()
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr("lib.metrics.perceptual_distance.find_spec", lambda name: name == "lpips")
    found = perceptual_distance("auto", torch.device("cpu"))
    assert (found.name, found.edit, found.boost) == ("lpips-alex", 0.33, 1.2)
    a_BCHW, b_BCHW = pair(32)
    assert found.between(a_BCHW, b_BCHW).shape == (2,)
    assert perceptual_distance("ssim", torch.device("cpu")).name == "ssim"


def test_lpips_without_its_weights_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(net: str, verbose: bool) -> FakeNetwork:
        raise OSError("no route to host")

    package: Any = ModuleType("lpips")
    package.LPIPS = broken
    monkeypatch.setitem(sys.modules, "lpips", package)
    with pytest.raises(ModelProblem, match=r"no route to host.*`measure: ssim`"):
        perceptual_distance("lpips", torch.device("cpu"))

"""A tiny U-Net as a denoiser, and rectifiers around it that change something."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from lib.sampling.grid import training_alphas


@pytest.fixture
def made_denoiser(backbones: ModuleType) -> Callable[..., UNetDenoiser]:
    """(h_layer, double) -> a denoiser; in float64 where it is `double`."""
    alphas_T = [float(a) for a in training_alphas({})]

    def made(h_layer: str = "after", *, double: bool = False) -> UNetDenoiser:
        denoiser = UNetDenoiser(backbones.unet(), alphas_T, "epsilon", h_layer)
        if double:
            denoiser.network.double()
        return denoiser

    return made


@pytest.fixture
def lively_rectifier() -> Callable[..., Rectifier]:
    """A rectifier whose Delta is not zero, of the denoiser's dtype."""

    def made(denoiser: UNetDenoiser, **options: Any) -> Rectifier:
        torch.manual_seed(3)
        rectifier = Rectifier(denoiser, RectifierOptions(width=8, branch_width=8, **options))
        rectifier = rectifier.to(next(denoiser.network.parameters()).dtype)
        with torch.no_grad():
            for branch in rectifier.branches:
                branch.to_out.weight.normal_(std=0.3)
                branch.to_out.bias.normal_(std=0.3)
        return rectifier

    return made

"""The rectifier on small untrained networks, against kernels written out by hand."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from lib.rectifier.modulation import (
    Factors,
    by_examples,
    by_groups,
    modulated_convolutions,
    modulation,
)
from lib.rectifier.rectified import RectifiedDenoiser, rectified_noise

ALPHAS = [1 - 0.0009 * t for t in range(1000)]
OPTIONS = RectifierOptions(width=8, branch_width=8)


@pytest.fixture
def denoiser(backbones: ModuleType) -> UNetDenoiser:
    return UNetDenoiser(backbones.unet(), ALPHAS, "epsilon", "after")


@pytest.fixture
def rectifier(denoiser: UNetDenoiser) -> Rectifier:
    """One whose Delta is not zero any more."""
    torch.manual_seed(1)
    made = Rectifier(denoiser, OPTIONS)
    for branch in made.branches:
        nn.init.normal_(branch.to_out.weight, std=0.1)
        nn.init.normal_(branch.to_out.bias, std=0.05)
    return made


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """x_t, timesteps and clean images of three examples."""
    generator = torch.Generator().manual_seed(0)
    x_BLYX = torch.randn(3, 3, 16, 16, generator=generator)
    x0_BLYX = torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1
    return x_BLYX, torch.tensor([30, 400, 800]), x0_BLYX


@pytest.mark.parametrize("way", [by_groups, by_examples])
@pytest.mark.parametrize("size", [1, 3])
def test_a_modulated_convolution_has_the_kernel_theta_times_one_plus_delta(
    way: Any, size: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, size, padding=size // 2).double()
    k = size * size
    factors = Factors(torch.randn(2, k, 4).double(), torch.randn(2, k, 6).double())
    x_BIYX = torch.randn(2, 4, 5, 5).double()
    for b in range(2):
        kernel = conv.weight.detach().clone()
        for o in range(6):
            for i in range(4):
                for place in range(k):
                    delta = factors.out_BKO[b, place, o] * factors.in_BKI[b, place, i]
                    kernel[o, i, place // size, place % size] *= 1 + delta
        wanted = conv2d(x_BIYX[b : b + 1], kernel, padding=size // 2)
        torch.testing.assert_close(way(conv, factors, x_BIYX)[b : b + 1], wanted)


def test_a_fresh_rectifier_is_the_frozen_network(
    denoiser: UNetDenoiser, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x_BLYX, t_B, x0_BLYX = batch
    found = rectified_noise(denoiser, Rectifier(denoiser, OPTIONS), x_BLYX, t_B, x0_BLYX)
    torch.testing.assert_close(found.rectified_BLYX, found.plain_BLYX, rtol=1e-4, atol=1e-5)


def test_the_frozen_network_is_never_changed(
    denoiser: UNetDenoiser, rectifier: Rectifier, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x_BLYX, t_B, x0_BLYX = batch
    before = {name: value.clone() for name, value in denoiser.network.state_dict().items()}
    plain_BLYX = denoiser.predict(x_BLYX, 400)
    found = rectified_noise(denoiser, rectifier, x_BLYX, t_B, x0_BLYX)
    found.rectified_BLYX.square().sum().backward()
    convolutions = modulated_convolutions(denoiser.network)
    with pytest.raises(RuntimeError, match="half way"), modulation(convolutions, found.factors):
        raise RuntimeError("half way")
    assert all(torch.equal(before[n], v) for n, v in denoiser.network.state_dict().items())
    assert torch.equal(denoiser.predict(x_BLYX, 400), plain_BLYX)
    assert all(name.startswith(("mid_block", "up_blocks")) for name in convolutions)


def test_gradient_reaches_every_parameter_and_agrees_with_finite_differences(
    backbones: ModuleType, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    denoiser = UNetDenoiser(backbones.unet(), ALPHAS, "epsilon", "after")
    torch.manual_seed(2)
    rectifier = Rectifier(denoiser, OPTIONS)
    for branch in rectifier.branches:
        nn.init.normal_(branch.to_out.weight, std=0.1)
    x_BLYX, t_B, x0_BLYX = batch

    def loss() -> Tensor:
        return rectified_noise(denoiser, rectifier, x_BLYX, t_B, x0_BLYX)[1].square().mean()

    loss().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in rectifier.parameters())
    weight = rectifier.branches[0].to_in.bias
    place = int(weight.grad.abs().argmax())
    step = 0.05
    with torch.no_grad():
        weight[place] += step
        above = float(loss())
        weight[place] -= 2 * step
        below = float(loss())
    assert float(weight.grad[place]) == pytest.approx((above - below) / (2 * step), rel=0.05)


def test_examples_do_not_see_each_other(
    denoiser: UNetDenoiser, rectifier: Rectifier, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x_BLYX, t_B, x0_BLYX = batch
    together = rectified_noise(denoiser, rectifier, *batch).rectified_BLYX
    for b in range(3):
        alone = rectified_noise(
            denoiser, rectifier, x_BLYX[b : b + 1], t_B[b : b + 1], x0_BLYX[b : b + 1]
        )
        torch.testing.assert_close(alone.rectified_BLYX, together[b : b + 1], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_denoiser_of_an_image_is_split_at_h_as_any_other(
    denoiser: UNetDenoiser, rectifier: Rectifier, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x_BLYX, _, x0_BLYX = batch
    rectified = RectifiedDenoiser(denoiser, rectifier, x0_BLYX[0])
    eps_BLYX = rectified.predict(x_BLYX, 400)
    assert float((eps_BLYX - denoiser.predict(x_BLYX, 400)).abs().max()) > 1e-3
    point = rectified.encode(x_BLYX, 400)
    close = {"rtol": 1e-3, "atol": 1e-4}
    torch.testing.assert_close(rectified.decode(point, point.h_BCYX), eps_BLYX, **close)
    row = point.row(1)
    both = rectified.decode(row, row.h_BCYX.expand(2, -1, -1, -1))
    torch.testing.assert_close(both, eps_BLYX[1:2].expand_as(both), **close)
    shift = torch.randn(point.h_BCYX.shape, generator=torch.Generator().manual_seed(3))
    shifted = rectified.decode(point, point.h_BCYX + shift)
    torch.testing.assert_close(rectified.predict_shifted(x_BLYX, 400, shift), shifted, **close)
    of_h = rectified.predict_shifted(x_BLYX, 400, lambda h_BCYX: 0 * h_BCYX + shift)
    torch.testing.assert_close(of_h, shifted, **close)


def test_a_residual_encoder_keeps_examples_apart_and_options_survive_json(
    denoiser: UNetDenoiser,
) -> None:
    options = RectifierOptions("resnet", 8, (1, 1), 8)
    assert RectifierOptions.from_json(options.to_json()) == options
    encoder = Rectifier(denoiser, options).encoder
    both = torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(both)[:1], encoder(both[:1]), rtol=1e-4, atol=1e-5)

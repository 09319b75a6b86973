"""The rectifier against the frozen network, finite differences, and itself one by one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from lib.rectifier.modulation import modulated_convolutions
from lib.rectifier.rectified import rectified_noise

Denoisers = Callable[..., UNetDenoiser]
Rectifiers = Callable[..., Rectifier]
T_B = torch.tensor([700, 100])
RESNET = {"encoder": "resnet", "depths": (1, 1)}


def batch(dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x_t and x_0."""
    generator = torch.Generator().manual_seed(seed)
    x_BLYX = torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    x0_BLYX = torch.rand(2, 3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1
    return x_BLYX.to(dtype), x0_BLYX.to(dtype)


@pytest.mark.parametrize("options", [{}, RESNET])
@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
@torch.no_grad()
def test_a_fresh_rectifier_changes_nothing(
    made_denoiser: Denoisers, h_layer: str, options: dict[str, object]
) -> None:
    denoiser = made_denoiser(h_layer)
    rectifier = Rectifier(denoiser, RectifierOptions(width=8, branch_width=8, **options))
    x_BLYX, x0_BLYX = batch(torch.float32)
    plain_BLYX = denoiser.network(x_BLYX, T_B).sample
    found = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
    assert torch.equal(found.plain_BLYX, plain_BLYX)
    torch.testing.assert_close(found.rectified_BLYX, plain_BLYX, rtol=0, atol=2e-6)
    h_BCYX = denoiser.encode(x_BLYX, T_B).h_BCYX
    torch.testing.assert_close(found.h_BCYX, h_BCYX, rtol=1e-5, atol=1e-5)


def test_there_is_a_branch_for_every_modulated_convolution(
    made_denoiser: Denoisers, lively_rectifier: Rectifiers
) -> None:
    denoiser = made_denoiser()
    rectifier = lively_rectifier(denoiser)
    convolutions = modulated_convolutions(denoiser.network)
    x_BLYX, x0_BLYX = batch(torch.float32)
    found = rectifier(x0_BLYX, x_BLYX, T_B)
    assert list(found) == list(convolutions)
    for name, conv in convolutions.items():
        out, inward, rows, columns = conv.weight.shape
        assert found[name].in_BKI.shape == (2, rows * columns, inward)
        assert found[name].out_BKO.shape == (2, rows * columns, out)


@pytest.mark.parametrize("options", [{}, RESNET])
def test_gradient_reaches_every_parameter_of_the_rectifier_and_none_of_the_network(
    made_denoiser: Denoisers, lively_rectifier: Rectifiers, options: dict[str, object]
) -> None:
    denoiser = made_denoiser(double=True)
    rectifier = lively_rectifier(denoiser, **options)
    x_BLYX, x0_BLYX = batch(torch.float64)
    found = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
    found.rectified_BLYX.square().sum().backward()
    still = [
        name
        for name, p in rectifier.named_parameters()
        if p.grad is None or not float(p.grad.abs().max()) > 0
    ]
    assert still == []
    assert all(p.grad is None for p in denoiser.network.parameters())
    assert not found.plain_BLYX.requires_grad


def test_a_fresh_rectifier_can_begin_to_learn(made_denoiser: Denoisers) -> None:
    denoiser = made_denoiser()
    rectifier = Rectifier(denoiser, RectifierOptions(width=8, branch_width=8))
    x_BLYX, x0_BLYX = batch(torch.float32)
    found = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
    found.rectified_BLYX.square().sum().backward()
    assert all(float(branch.to_out.weight.grad.abs().max()) > 0 for branch in rectifier.branches)


@pytest.mark.parametrize(
    "name", ["encoder.blocks.0.weight", "branches.0.to_in.weight", "branches.3.time.weight"]
)
def test_the_gradient_is_that_of_a_central_difference(
    made_denoiser: Denoisers, lively_rectifier: Rectifiers, name: str
) -> None:
    denoiser = made_denoiser(double=True)
    rectifier = lively_rectifier(denoiser)
    x_BLYX, x0_BLYX = batch(torch.float64)
    weights_BLYX = torch.randn_like(x_BLYX)

    def loss() -> Tensor:
        found = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
        return (found.rectified_BLYX * weights_BLYX).sum()

    loss().backward()
    parameter = rectifier.get_parameter(name)
    along = torch.randn_like(parameter)
    step, ends = 1e-5, []
    with torch.no_grad():
        for sign in (1, -2):
            parameter += sign * step * along
            ends.append(float(loss()))
    expected = (ends[0] - ends[1]) / (2 * step)
    assert abs(expected) > 1e-3
    assert float((parameter.grad * along).sum()) == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_examples_of_a_batch_are_rectified_as_one_by_one(
    made_denoiser: Denoisers, lively_rectifier: Rectifiers
) -> None:
    denoiser = made_denoiser(double=True)
    rectifier = lively_rectifier(denoiser)
    x_BLYX, x0_BLYX = batch(torch.float64)
    whole = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
    for row in range(2):
        part = slice(row, row + 1)
        alone = rectified_noise(denoiser, rectifier, x_BLYX[part], T_B[part], x0_BLYX[part])
        for mine, ours in zip(alone[:3], whole[:3], strict=True):
            torch.testing.assert_close(mine[0], ours[row], rtol=0, atol=1e-10)
    swapped = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX.flip(0))
    changed = (swapped.rectified_BLYX - whole.rectified_BLYX).abs().amax(dim=(1, 2, 3))
    assert (changed > 1e-5).all(), "the clean image counts"


def test_a_few_steps_bring_the_loss_below_that_of_the_frozen_network(
    made_denoiser: Denoisers,
) -> None:
    denoiser = made_denoiser()
    torch.manual_seed(0)
    rectifier = Rectifier(denoiser, RectifierOptions(width=8, branch_width=8))
    x0_BLYX, eps_BLYX = batch(torch.float32)[1], torch.randn(2, 3, 16, 16)
    alpha_B111 = denoiser.alpha(T_B)
    x_BLYX = alpha_B111.sqrt() * x0_BLYX + (1 - alpha_B111).sqrt() * eps_BLYX
    with torch.no_grad():
        frozen = float((eps_BLYX - denoiser.predict(x_BLYX, T_B)).square().mean())
    optimizer = torch.optim.Adam(rectifier.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        found = rectified_noise(denoiser, rectifier, x_BLYX, T_B, x0_BLYX)
        loss = (eps_BLYX - found.rectified_BLYX).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(frozen, rel=1e-5)
    assert losses[-1] < 0.9 * frozen


def test_options_come_back_from_json() -> None:
    options = RectifierOptions("resnet", width=8, depths=(1, 2), branch_width=4)
    assert RectifierOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    for wrong in ({}, options.to_json() | {"layers": 3}, options.to_json() | {"depths": 3}):
        with pytest.raises(ConfigProblem, match="architecture of a rectifier"):
            RectifierOptions.from_json(wrong)


def test_an_unknown_encoder_is_refused(made_denoiser: Denoisers) -> None:
    with pytest.raises(ConfigProblem, match="small or resnet, got 'vit'"):
        Rectifier(made_denoiser(), RectifierOptions("vit"))

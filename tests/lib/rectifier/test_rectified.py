"""The rectified network as a denoiser, against `rectified_noise` and the network's own forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib.denoiser import Point
from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.hypernetwork import Rectifier
from lib.rectifier.modulation import modulated_convolutions, modulation
from lib.rectifier.rectified import RectifiedDenoiser, rectified_noise

LAYERS = ["before", "middle", "after"]
T = 300


@pytest.fixture(params=LAYERS, name="frozen")
def frozen_network(
    request: pytest.FixtureRequest, made_denoiser: Callable[..., UNetDenoiser]
) -> UNetDenoiser:
    return made_denoiser(request.param, double=True)


@pytest.fixture(name="rectifier")
def its_rectifier(frozen: UNetDenoiser, lively_rectifier: Callable[..., Rectifier]) -> Rectifier:
    return lively_rectifier(frozen)


@pytest.fixture(name="x_BLYX")
def noisy() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64)


@pytest.fixture(name="rectified")
def of_one_image(frozen: UNetDenoiser, rectifier: Rectifier) -> RectifiedDenoiser:
    generator = torch.Generator().manual_seed(2)
    x0_LYX = torch.rand(3, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1
    return RectifiedDenoiser(frozen, rectifier, x0_LYX)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_prediction_is_the_networks_own_forward_with_the_kernels_of_x0_and_p(
    frozen: UNetDenoiser, rectifier: Rectifier, x_BLYX: Tensor
) -> None:
    x0_LYX = torch.linspace(-1, 1, 768, dtype=torch.float64).view(3, 16, 16)
    alpha = float(frozen.alpha(T))
    eps_BLYX = frozen.network(x_BLYX, T).sample
    p_BLYX = (x_BLYX - (1 - alpha) ** 0.5 * eps_BLYX) / alpha**0.5
    factors = rectifier(x0_LYX.expand_as(x_BLYX), p_BLYX.clamp(-2, 2), torch.tensor([T, T]))
    with modulation(modulated_convolutions(frozen.network), factors):
        expected_BLYX = frozen.network(x_BLYX, T).sample
    found_BLYX = RectifiedDenoiser(frozen, rectifier, x0_LYX).predict(x_BLYX, T)
    torch.testing.assert_close(found_BLYX, expected_BLYX, rtol=0, atol=1e-6)
    assert (found_BLYX - eps_BLYX).abs().max() > 1e-2


@torch.no_grad()
def test_decoding_the_own_h_is_the_prediction(rectified: RectifiedDenoiser, x_BLYX: Tensor) -> None:
    point = rectified.encode(x_BLYX, T)
    whole_BLYX = rectified.predict(x_BLYX, T)
    assert torch.equal(point.eps_BLYX, whole_BLYX)
    close(rectified.decode(point, point.h_BCYX), whole_BLYX)
    assert torch.equal(rectified.bottleneck(x_BLYX, T), point.h_BCYX)
    assert rectified.passes == 2


@torch.no_grad()
def test_a_shift_in_one_pass_is_decoding_the_shifted_h(
    rectified: RectifiedDenoiser, x_BLYX: Tensor
) -> None:
    point = rectified.encode(x_BLYX, T)
    shift_BCYX = torch.randn_like(point.h_BCYX)
    expected_BLYX = rectified.decode(point, point.h_BCYX + shift_BCYX)
    close(rectified.predict_shifted(x_BLYX, T, shift_BCYX), expected_BLYX)
    close(rectified.predict_shifted(x_BLYX, T, lambda _h: shift_BCYX), expected_BLYX)
    assert (expected_BLYX - point.eps_BLYX).abs().max() > 1e-2


@torch.no_grad()
def test_the_point_of_one_row_serves_several_shifts_with_its_own_kernels(
    rectified: RectifiedDenoiser, x_BLYX: Tensor
) -> None:
    point = rectified.encode(x_BLYX, T)
    shifts_BCYX = torch.randn(3, *rectified.h_shape, dtype=torch.float64)
    for row in range(2):
        one: Point = point.row(row)
        found_BLYX = rectified.decode(one, one.h_BCYX + shifts_BCYX)
        for shift_CYX, eps_LYX in zip(shifts_BCYX, found_BLYX, strict=True):
            alone = rectified.predict_shifted(x_BLYX[row : row + 1], T, shift_CYX[None])
            close(eps_LYX, alone[0])


@torch.no_grad()
def test_timesteps_of_each_example_and_one_for_all_are_the_same(
    frozen: UNetDenoiser, rectifier: Rectifier, rectified: RectifiedDenoiser, x_BLYX: Tensor
) -> None:
    t_B = torch.tensor([T, 800])
    found_BLYX = rectified.predict(x_BLYX, t_B)
    for row, t in enumerate(t_B.tolist()):
        close(found_BLYX[row], rectified.predict(x_BLYX[row : row + 1], t)[0])
    x0_BLYX = torch.zeros_like(x_BLYX)
    plain = RectifiedDenoiser(frozen, rectifier, x0_BLYX[0]).predict(x_BLYX, t_B)
    close(plain, rectified_noise(frozen, rectifier, x_BLYX, t_B, x0_BLYX).rectified_BLYX)


@torch.no_grad()
def test_the_frozen_network_is_itself_again_after_an_exception_inside(
    frozen: UNetDenoiser, rectified: RectifiedDenoiser, x_BLYX: Tensor
) -> None:
    weights = {name: value.numpy().tobytes() for name, value in frozen.network.state_dict().items()}
    plain_BLYX = frozen.predict(x_BLYX, T)
    point = rectified.encode(x_BLYX, T)
    with pytest.raises((RuntimeError, ValueError)):
        rectified.decode(point, torch.zeros(2, 5, 1, 1, dtype=torch.float64))
    assert torch.equal(frozen.predict(x_BLYX, T), plain_BLYX)
    after = {name: value.numpy().tobytes() for name, value in frozen.network.state_dict().items()}
    assert after == weights


def test_directions_are_not_found_in_the_rectified_network(
    rectified: RectifiedDenoiser, x_BLYX: Tensor
) -> None:
    with torch.no_grad():
        point = rectified.encode(x_BLYX[:1], T)
    with pytest.raises(NotImplementedError, match="frozen network"):
        rectified.linearised(point)

"""The published grids lose with an ideal network what was measured of the published code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.published_grids import (
    asyrp,
    diffusers_pair,
    haas,
    park_loco,
    rmse_of_constant_noise,
)
from lib.sampling.ddim import decoding, inversion
from lib.sampling.grid import make_grid, training_alphas

ALPHAS = training_alphas({}).tolist()
MEASURED = {
    haas: {10: 0.352, 50: 0.0952, 100: 0.0453, 1000: 0.0158},
    park_loco: {10: 1.09, 50: 0.135, 100: 0.0675, 1000: 0.0059},
    asyrp: dict.fromkeys((10, 50, 100, 1000), 0.0100),
}


@pytest.mark.parametrize("method", MEASURED, ids=lambda m: m.__name__)
def test_a_constant_noise_loses_what_the_published_code_loses(method: object) -> None:
    for num_steps, rmse in MEASURED[method].items():  # type: ignore[index]
        found = rmse_of_constant_noise(method, ALPHAS, num_steps)  # type: ignore[arg-type]
        assert found == pytest.approx(rmse, rel=0.02), num_steps


@pytest.mark.parametrize("num_steps", [10, 50, 100])
def test_the_pair_of_diffusers_is_consistent(num_steps: int) -> None:
    assert rmse_of_constant_noise(diffusers_pair, ALPHAS, num_steps) < 1e-4


@pytest.mark.parametrize("num_steps", [10, 50])
def test_our_leading_grid_goes_the_way_of_the_pair_of_diffusers(num_steps: int) -> None:
    def network(x_BLYX: Tensor, t: float) -> Tensor:
        return torch.sin(x_BLYX * (1 + t / 500))

    x0_BLYX = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = make_grid({}, num_steps, "leading")
    *_, (_, top_BLYX) = inversion(network, grid, x0_BLYX, last=num_steps, refinements=0)
    back_BLYX = decoding(network, grid, top_BLYX, first=num_steps)
    found_top_BLYX, found_back_BLYX = diffusers_pair(network, ALPHAS, num_steps, x0_BLYX)
    torch.testing.assert_close(found_top_BLYX, top_BLYX, rtol=0, atol=1e-4)
    torch.testing.assert_close(found_back_BLYX, back_BLYX, rtol=0, atol=2e-3)

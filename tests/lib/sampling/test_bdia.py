"""BDIA against its equation as the authors write it, and edits that do not ring."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid, make_grid


def move(x: float, eps: float, alpha: float, alpha_to: float) -> float:
    """Delta(t -> t' | x): what DDIM adds."""
    return sqrt(alpha_to) * (x - sqrt(1 - alpha) * eps) / sqrt(alpha) + sqrt(1 - alpha_to) * eps - x


@pytest.mark.parametrize("gamma", [1.0, 0.6])
@pytest.mark.parametrize("node", [1, 3, 5])
def test_a_step_is_that_of_the_paper(node: int, gamma: float) -> None:
    """z_{i-1} = z_{i+1} - (1 - g)(z_{i+1} - z_i) - g Delta(i -> i+1) + Delta(i -> i-1)."""
    grid, x, above = make_grid({}, 6, "trailing"), 0.4, 0.7
    alphas = grid.alphas
    expected = (
        above
        - (1 - gamma) * (above - x)
        - gamma * move(x, 0.7 * x, alphas[node], alphas[node + 1])
        + move(x, 0.7 * x, alphas[node], alphas[node - 1])
    )

    def steer(x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
        return 0.7 * x_BLYX, 0.7 * x_BLYX

    states_SBLYX = torch.tensor([x, above], dtype=torch.float64).view(2, 1, 1, 1, 1)
    found = BdiaSampler(gamma).step(steer, grid, node, states_SBLYX, None)
    assert found.flatten().tolist() == pytest.approx([expected, x], abs=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 0.6])
@pytest.mark.parametrize("first", [20, 13])
def test_a_shift_of_the_predicted_x0_does_what_it_does_with_ddim(gamma: float, first: int) -> None:
    """A network that gives a constant noise, and a constant more in the first of its two answers at
    some nodes: then every DDIM step adds its own shift, and so must every step here.
    """
    grid, begin = make_grid({}, 20, "trailing"), 20

    def final(sampler: BdiaSampler | DdimSampler, extra: float) -> float:
        def predict(x_BLYX: Tensor, t: int) -> Tensor:
            return torch.full_like(x_BLYX, 0.3)

        x0_BLYX = torch.full((1, 1, 1, 1), 0.25)
        found = sampler.invert(predict, grid, x0_BLYX, last=begin, wanted=(), seeds=[0])
        states = found.states_SBLYX.double()
        for node in range(begin, 0, -1):
            more = extra if first >= node > first - 8 else 0.0

            def steer(x_BLYX: Tensor, more: float = more) -> tuple[Tensor, Tensor]:
                return torch.full_like(x_BLYX, 0.3 + more), torch.full_like(x_BLYX, 0.3)

            states = sampler.step(steer, grid, node, states, None)
        return float(states[0])

    moved = final(BdiaSampler(gamma), 0.01) - final(BdiaSampler(gamma), 0.0)
    expected = final(DdimSampler(), 0.01) - final(DdimSampler(), 0.0)
    assert moved == pytest.approx(expected, rel=1e-6)


def test_the_last_node_of_a_grid_has_none_above_and_comes_back_all_the_same() -> None:
    grid: Grid = make_grid({}, 4, "trailing")
    sampler = BdiaSampler(0.9)

    def predict(x_BLYX: Tensor, t: int) -> Tensor:
        return torch.sin(3 * x_BLYX)

    x0_BLYX = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = sampler.invert(predict, grid, x0_BLYX, last=4, wanted=(), seeds=[0])
    states = found.states_SBLYX
    for node in range(4, 0, -1):

        def steer(x_BLYX: Tensor, t: int = grid.timestep(node)) -> tuple[Tensor, Tensor]:
            return predict(x_BLYX.float(), t), predict(x_BLYX.float(), t)

        states = sampler.step(steer, grid, node, states, None)
    torch.testing.assert_close(states[0].float(), x0_BLYX, rtol=0, atol=1e-4)

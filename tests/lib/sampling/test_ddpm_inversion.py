"""Stored noise: its distribution, its schedule, and the formula that does not bring images back."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.eta import EtaSchedule, constant_eta
from lib.sampling.grid import Grid, make_grid
from lib.sampling.sampler import Inversion, seeded_noise

ABOVE_400 = EtaSchedule(((400, 0.0), (600, 1.0)))


def predict(x_BLYX: Tensor, t: int) -> Tensor:
    return torch.sin(x_BLYX * (1 + t / 500))


def invert(eta: EtaSchedule, grid: Grid, x0_BLYX: Tensor, last: int) -> Inversion:
    return DdpmSampler(eta).invert(
        predict, grid, x0_BLYX, last=last, wanted=range(1, last + 1), seeds=range(len(x0_BLYX))
    )


@pytest.fixture
def x0_BLYX() -> Tensor:  # noqa: N802, a tensor
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def grid() -> Grid:
    return make_grid({}, 20, "linspace")


def test_x_t_is_drawn_from_the_forward_process_with_noise_of_its_own(
    grid: Grid, x0_BLYX: Tensor
) -> None:
    found = invert(constant_eta(0.5), grid, x0_BLYX, 20)
    units = []
    for node, x_BLYX in found.x.items():
        alpha = grid.alphas[node]
        unit_BLYX = (x_BLYX - sqrt(alpha) * x0_BLYX) / sqrt(1 - alpha)
        torch.testing.assert_close(
            unit_BLYX, seeded_noise([0, 1], node, (3, 8, 8)), rtol=0, atol=2e-5
        )
        units.append(unit_BLYX.flatten().numpy())
    correlation = np.corrcoef(units) - np.eye(20)
    # 384 numbers each: a correlation is 0.05 +- a few times that.
    assert np.abs(correlation).max() < 0.25
    assert np.std(units) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_the_noise_solves_the_step_in_float64(grid: Grid, x0_BLYX: Tensor, eta: float) -> None:
    """x_{i-1} = sqrt(a') P + sqrt(1 - a' - s^2) eps + s z, s^2 = eta^2 (1-a')/(1-a) (1 - a/a')."""
    found = invert(constant_eta(eta), grid, x0_BLYX, 20)
    for node in range(2, 21):
        a, below = grid.alphas[node], grid.alphas[node - 1]
        x = found.x[node].double().numpy()
        eps = predict(found.x[node], grid.timestep(node)).double().numpy()
        variance = eta**2 * (1 - below) / (1 - a) * (1 - a / below)
        expected = np.sqrt(below) * (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        expected += np.sqrt(1 - below - variance) * eps
        expected += np.sqrt(variance) * found.noises[node].double().numpy()
        np.testing.assert_allclose(found.x[node - 1].numpy(), expected, rtol=0, atol=2e-5)


def test_the_published_mean_does_not_bring_the_image_back_between_eta_0_and_1(
    grid: Grid, x0_BLYX: Tensor
) -> None:
    """Code in the wild solves z with eta sigma^2 in the mean and decodes with eta^2 sigma^2."""

    def mean(x: Tensor, node: int, factor: float) -> tuple[Tensor, float]:
        a, below = grid.alphas[node], grid.alphas[node - 1]
        eps, variance = predict(x, grid.timestep(node)), (1 - below) / (1 - a) * (1 - a / below)
        clean = (x - sqrt(1 - a) * eps) / sqrt(a)
        return sqrt(below) * clean + sqrt(1 - below - factor * variance) * eps, sqrt(variance)

    def worst(eta: float, solved_with: float) -> float:
        found = invert(constant_eta(eta), grid, x0_BLYX, 20)
        x_BLYX = found.x[20]
        for node in range(20, 2, -1):
            wrong, scale = mean(found.x[node], node, solved_with)
            z_BLYX = (found.x[node - 1] - wrong) / (eta * scale)
            right, _ = mean(x_BLYX, node, eta**2)
            x_BLYX = right + eta * scale * z_BLYX
        return float((x_BLYX - found.x[2]).abs().max())

    assert worst(0.5, solved_with=0.5) > 0.05
    assert worst(0.5, solved_with=0.25) < 1e-3
    assert worst(1.0, solved_with=1.0) < 1e-3


def test_steps_without_eta_have_no_noise_and_come_from_the_node_below(
    grid: Grid, x0_BLYX: Tensor
) -> None:
    found = invert(ABOVE_400, grid, x0_BLYX, 20)
    silent = [n for n in range(1, 21) if grid.timestep(n) <= 400]
    assert set(found.noises) == set(range(1, 21)) - set(silent)
    x_BLYX = x0_BLYX
    for node in silent:
        a, to = grid.alphas[node - 1], grid.alphas[node]
        eps_BLYX = predict(x_BLYX, grid.timestep(node))
        clean_BLYX = (x_BLYX - sqrt(1 - a) * eps_BLYX) / sqrt(a)
        x_BLYX = sqrt(to) * clean_BLYX + sqrt(1 - to) * eps_BLYX
        torch.testing.assert_close(found.x[node], x_BLYX, rtol=0, atol=1e-5)


def test_the_decode_is_exact_down_to_the_first_node_without_eta(
    grid: Grid, x0_BLYX: Tensor
) -> None:
    found = invert(ABOVE_400, grid, x0_BLYX, 20)
    sampler, states = DdpmSampler(ABOVE_400), found.states_SBLYX[:, :1]
    for node in range(20, 0, -1):

        def steer(x_BLYX: Tensor, t: int = grid.timestep(node)) -> tuple[Tensor, Tensor]:
            return predict(x_BLYX, t), predict(x_BLYX, t)

        noise = found.latent(0).noises.get(node)
        states = sampler.step(steer, grid, node, states, noise)
        if grid.timestep(node) > 420:
            torch.testing.assert_close(states[0, 0], found.x[node - 1][0], rtol=0, atol=1e-4)
    assert float((states[0, 0] - x0_BLYX[0]).abs().max()) > 1e-3, "DDIM's own error"


def test_eta_is_linear_between_points_and_constant_beyond() -> None:
    eta = EtaSchedule(((100, 0.2), (300, 0.6), (301, 1.0)))
    assert [eta.at(t) for t in (0, 100, 200, 300, 301, 999)] == pytest.approx(
        [0.2, 0.2, 0.4, 0.6, 1.0, 1.0]
    )
    assert {constant_eta(0.5).at(t) for t in (0, 500, 999)} == {0.5}

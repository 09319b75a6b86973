"""EDICT against its equations, written out for one number at a time."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from lib.sampling.edict import EdictSampler
from lib.sampling.grid import Grid, make_grid


def paper_step(
    x: float, y: float, grid: Grid, node: int, p: float, factor: float
) -> tuple[float, float]:
    """Wallace et al. 2023, the denoising direction, with a_t and b_t of DDIM and eps = factor x."""
    now, below = grid.alphas[node], grid.alphas[node - 1]
    a = sqrt(below / now)
    b = sqrt(1 - below) - sqrt(below * (1 - now) / now)
    if node % 2:
        x, y = y, x
    x_inter = a * x + b * factor * y
    y_inter = a * y + b * factor * x_inter
    x_next = p * x_inter + (1 - p) * y_inter
    y_next = p * y_inter + (1 - p) * x_next
    return (y_next, x_next) if node % 2 else (x_next, y_next)


@pytest.mark.parametrize("node", [1, 2, 5])
def test_a_step_is_that_of_the_paper(node: int) -> None:
    grid = make_grid({}, 6, "trailing")

    def steer(x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
        return 0.7 * x_BLYX, 0.7 * x_BLYX

    states_SBLYX = torch.tensor([0.4, -0.9], dtype=torch.float64).view(2, 1, 1, 1, 1)
    found = EdictSampler(0.9).step(steer, grid, node, states_SBLYX, None)
    expected = paper_step(0.4, -0.9, grid, node, 0.9, 0.7)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_both_updates_are_steered_by_both_predictions() -> None:
    """A constant difference between the two noises enters each state through its own update:
    as DDIM's step is linear, by c = -sqrt(a' (1 - a) / a) times the difference, mixed.
    """
    grid, node, p = make_grid({}, 6, "trailing"), 4, 0.9

    def steer(extra: float) -> object:
        return lambda x_BLYX: (torch.full_like(x_BLYX, 0.2 + extra), torch.full_like(x_BLYX, 0.2))

    states_SBLYX = torch.tensor([0.4, 0.3], dtype=torch.float64).view(2, 1, 1, 1, 1)
    plain, edited = (
        EdictSampler(p).step(steer(e), grid, node, states_SBLYX, None).flatten()  # type: ignore[arg-type]
        for e in (0.0, 0.1)
    )
    now, below = grid.alphas[node], grid.alphas[node - 1]
    c = -sqrt(below * (1 - now) / now) * 0.1
    assert (edited - plain).tolist() == pytest.approx([c, c], abs=1e-12)

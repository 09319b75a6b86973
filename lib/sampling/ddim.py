"""DDIM both ways on one grid (Song et al. 2021, eq. 12), with fixed-point refined inversion.

Pure: a noise predictor and a grid in, tensors out. Shape suffixes: B batch, L latent channels, Y,
X height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt

import torch
from torch import Tensor

from lib.sampling.grid import Grid

Predictor = Callable[[Tensor, int], Tensor]
"""eps(x_BLYX, t)."""


Alpha = float | Tensor
"""alpha_bar of a whole batch, or of each example (B, 1, 1, 1)."""


def predicted_x0(x_BLYX: Tensor, eps_BLYX: Tensor, alpha: Alpha) -> Tensor:
    """P_t = (x_t - sqrt(1 - alpha) eps) / sqrt(alpha), the posterior mean (DDIM eq. 9)."""
    return (x_BLYX - _root(1 - alpha) * eps_BLYX) / _root(alpha)


def transfer(x_BLYX: Tensor, eps_BLYX: Tensor, alpha_from: Alpha, alpha_to: Alpha) -> Tensor:
    """One deterministic step between two noise levels, in either direction (DDIM eq. 12).

    x' = sqrt(alpha_to) P(x, eps) + sqrt(1 - alpha_to) eps. With one and the same eps the step back
    undoes it.
    """
    x0_BLYX = predicted_x0(x_BLYX, eps_BLYX, alpha_from)
    return _root(alpha_to) * x0_BLYX + _root(1 - alpha_to) * eps_BLYX


def _root(value: Alpha) -> Alpha:
    return value.sqrt() if isinstance(value, Tensor) else sqrt(value)


def inversion(
    predict: Predictor, grid: Grid, x0_BLYX: Tensor, *, last: int, refinements: int
) -> Iterator[tuple[int, Tensor]]:
    """Nodes 1..last and their x_t; 1 + refinements evaluations a node.

    Decoding evaluates eps at the end point x_i of this step, so the exact x_i is the fixed point
    of x_i = transfer(x_{i-1}, eps(x_i, t_i)); each refinement is one iteration from the plain DDIM
    guess.
    """
    x_BLYX = x0_BLYX
    for node in range(1, last + 1):
        t, alpha_from, alpha_to = grid.timestep(node), grid.alphas[node - 1], grid.alphas[node]
        guess_BLYX = x_BLYX
        for _ in range(1 + refinements):
            guess_BLYX = transfer(x_BLYX, predict(guess_BLYX, t), alpha_from, alpha_to)
        x_BLYX = guess_BLYX
        yield node, x_BLYX


def decoding(predict: Predictor, grid: Grid, x_BLYX: Tensor, *, first: int) -> Tensor:
    """x_0 from x at node `first`; one evaluation a node."""
    for node in range(first, 0, -1):
        eps_BLYX = predict(x_BLYX, grid.timestep(node))
        x_BLYX = transfer(x_BLYX, eps_BLYX, grid.alphas[node], grid.alphas[node - 1])
    return x_BLYX


def round_trip_error(grid: Grid) -> float:
    """Largest |decode(invert(x_0)) - x_0| for a constant noise prediction, in float64; a correct
    grid gives rounding only.
    """
    generator = torch.Generator().manual_seed(0)
    x0_BLYX = torch.rand(1, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
    eps_BLYX = torch.randn(1, 3, 8, 8, generator=generator, dtype=torch.float64)

    def constant(_x: Tensor, _t: int) -> Tensor:
        return eps_BLYX

    nodes = inversion(constant, grid, x0_BLYX, last=grid.num_steps, refinements=0)
    *_, (_, x_BLYX) = nodes
    back_BLYX = decoding(constant, grid, x_BLYX, first=grid.num_steps)
    return float((back_BLYX - x0_BLYX).abs().max())

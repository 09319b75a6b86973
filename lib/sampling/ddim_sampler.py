"""DDIM as a sampler: deterministic up, deterministic down, or with fresh noise on the last steps.

Shape suffixes: as in `sampler`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lib.sampling.ddim import Predictor, inversion, predicted_x0
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import Grid
from lib.sampling.sampler import Inversion, Steer, seeded_noise


@dataclass(frozen=True, slots=True)
class DdimSampler:
    """DDIM inversion with fixed-point refinements (`lib.sampling.ddim.inversion`).

    Below `boost_below` (a timestep) every step but the last has fresh seeded noise, eta = 1: the
    quality boosting of Asyrp (Kwon et al. 2023, section 3.3). One noise serves all edits of an
    image and its reconstruction.
    """

    refinements: int = 0
    boost_below: int = 0
    """0: no noise anywhere."""

    def inversion_evaluations(self, last: int) -> int:
        """1 + refinements a node."""
        return inversion_evaluations("ddim", last, refinements=self.refinements)

    @property
    def step_evaluations(self) -> int:
        """One."""
        return step_evaluations("ddim")

    def fresh_nodes(self, grid: Grid, last: int) -> Sequence[int]:
        """Those of the boosting; into node 0 there is no noise."""
        return [n for n in range(last, 1, -1) if grid.timestep(n) < self.boost_below]

    def invert(
        self,
        predict: Predictor,
        grid: Grid,
        x0_BLYX: Tensor,
        *,
        last: int,
        wanted: Collection[int],
        seeds: Sequence[int],
    ) -> Inversion:
        """See `lib.sampling.sampler.Sampler`."""
        top = max(last, *wanted, 0)
        steps = inversion(predict, grid, x0_BLYX, last=top, refinements=self.refinements)
        needed = {*wanted, last}
        x = {node: x_BLYX for node, x_BLYX in steps if node in needed}
        noises = {
            node: seeded_noise(seeds, node, x0_BLYX.shape[1:]).to(x0_BLYX.device)
            for node in self.fresh_nodes(grid, last)
        }
        return Inversion(x[last][None], noises, {node: x[node] for node in wanted})

    def step(
        self, steer: Steer, grid: Grid, node: int, states_SBLYX: Tensor, noise_LYX: Tensor | None
    ) -> Tensor:
        """See `lib.sampling.sampler.Sampler`."""
        (x_BLYX,) = states_SBLYX
        forward_BLYX, back_BLYX = steer(x_BLYX)
        if noise_LYX is None:
            return step_mean(x_BLYX, forward_BLYX, back_BLYX, grid, node)[None]
        sigma = step_sigma(grid.alphas[node], grid.alphas[node - 1], eta=1.0)
        mean_BLYX = step_mean(x_BLYX, forward_BLYX, back_BLYX, grid, node, sigma)
        return torch.add(mean_BLYX, noise_LYX, alpha=sigma)[None]


def step_mean(
    x_BLYX: Tensor,
    forward_BLYX: Tensor,
    back_BLYX: Tensor,
    grid: Grid,
    node: int,
    sigma: float = 0.0,
) -> Tensor:
    """sqrt(a') P(x, forward) + sqrt(1 - a' - sigma^2) back: a step without its noise (DDIM eq. 12).

    The two noise predictions are those of `lib.sampling.sampler.Steer`.
    """
    alpha, alpha_to = grid.alphas[node], grid.alphas[node - 1]
    x0_BLYX = predicted_x0(x_BLYX, forward_BLYX, alpha)
    return sqrt(alpha_to) * x0_BLYX + sqrt(1 - alpha_to - sigma**2) * back_BLYX


def step_sigma(alpha: float, alpha_to: float, eta: float) -> float:
    """sigma = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a') (DDIM eq. 16)."""
    return eta * sqrt((1 - alpha_to) / (1 - alpha)) * sqrt(1 - alpha / alpha_to)

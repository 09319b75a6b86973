"""DDPM inversion with stored noise (Huberman-Spiegelglas et al. 2024, "An Edit Friendly DDPM Noise
Space", arXiv 2304.06140): the noises with which a stochastic decode returns to the image.

x_1..x_N are drawn from q(x_t | x_0), each with noise of its own, and z is solved from the steps
between them; so x_t is of the right distribution at every node, and the image is in z. Where eta is
0 a step has no noise to solve for, and x_t is that of DDIM inversion from the node below.

Shape suffixes: as in `sampler`; S = 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lib.sampling.ddim import Predictor, transfer
from lib.sampling.ddim_sampler import step_mean, step_sigma
from lib.sampling.eta import EtaSchedule
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import Grid
from lib.sampling.sampler import Inversion, Steer, seeded_noise


@dataclass(frozen=True, slots=True)
class DdpmSampler:
    """The generalised step x' = mean + sigma z of DDIM, eq. 12, with z chosen by the image.

    sigma^2 is in the mean and sigma beside the noise; published code has eta sigma^2 in the mean of
    the inversion, which returns to the image for eta 0 and 1 alone.

    From node 1 to the clean image sigma is 0 by definition, and the step ends at the predicted x_0,
    off by what the network gets wrong there. That remainder is kept as z of node 1, in units of
    sqrt(1 / alpha_bar - 1), whatever eta > 0 is: not noise of the process, but what makes the
    decode exact. Steps with eta = 0 reconstruct as well as DDIM inversion does.
    """

    eta: EtaSchedule

    def inversion_evaluations(self, last: int) -> int:
        """One a node."""
        return inversion_evaluations("ddpm", last)

    @property
    def step_evaluations(self) -> int:
        """One."""
        return step_evaluations("ddpm")

    def fresh_nodes(self, grid: Grid, last: int) -> Sequence[int]:
        """None."""
        return ()

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
        below_BLYX, found, noises = x0_BLYX, {0: x0_BLYX}, {}
        for node in range(1, max(last, *wanted, 0) + 1):
            t, alpha = grid.timestep(node), grid.alphas[node]
            eta = self.eta.at(t)
            if eta == 0:
                eps_BLYX = predict(below_BLYX, t)
                x_BLYX = transfer(below_BLYX, eps_BLYX, grid.alphas[node - 1], alpha)
            else:
                unit_BLYX = seeded_noise(seeds, node, x0_BLYX.shape[1:]).to(x0_BLYX.device)
                x_BLYX = sqrt(alpha) * x0_BLYX + sqrt(1 - alpha) * unit_BLYX
                eps_BLYX = predict(x_BLYX, t)
                mean_BLYX, sigma = _mean(x_BLYX, eps_BLYX, eps_BLYX, grid, node, eta)
                noises[node] = (below_BLYX - mean_BLYX) / sigma
            found[node] = below_BLYX = x_BLYX
        kept = {node: z_BLYX for node, z_BLYX in noises.items() if node <= last}
        return Inversion(found[last][None], kept, {node: found[node] for node in wanted})

    def step(
        self, steer: Steer, grid: Grid, node: int, states_SBLYX: Tensor, noise_LYX: Tensor | None
    ) -> Tensor:
        """See `lib.sampling.sampler.Sampler`."""
        (x_BLYX,) = states_SBLYX
        forward_BLYX, back_BLYX = steer(x_BLYX)
        if noise_LYX is None:
            return step_mean(x_BLYX, forward_BLYX, back_BLYX, grid, node)[None]
        eta = self.eta.at(grid.timestep(node))
        mean_BLYX, sigma = _mean(x_BLYX, forward_BLYX, back_BLYX, grid, node, eta)
        return torch.add(mean_BLYX, noise_LYX, alpha=sigma)[None]


def _mean(
    x_BLYX: Tensor, forward_BLYX: Tensor, back_BLYX: Tensor, grid: Grid, node: int, eta: float
) -> tuple[Tensor, float]:
    """Mean of the step from `node` to the node below, and the scale of what is added to it."""
    alpha = grid.alphas[node]
    sigma = step_sigma(alpha, grid.alphas[node - 1], eta)
    mean_BLYX = step_mean(x_BLYX, forward_BLYX, back_BLYX, grid, node, sigma)
    return mean_BLYX, sigma if node > 1 else sqrt(1 / alpha - 1)

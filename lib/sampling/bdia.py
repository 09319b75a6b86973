"""BDIA (Zhang, Lewis & Kleijn 2023, arXiv 2307.10829): every step goes over two nodes of the grid,
from the node above to the node below, so that it can be undone exactly at DDIM's cost.

Shape suffixes: as in `sampler`; S = 2, x at the node and x at the node above.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lib.sampling.ddim import Predictor, transfer
from lib.sampling.ddim_sampler import step_mean
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import Grid
from lib.sampling.sampler import Inversion, Steer


@dataclass(frozen=True, slots=True)
class BdiaSampler:
    """x_{i-1} = D_i(x_i) + gamma (x_{i+1} - U_i(x_i)), where D_i and U_i are the DDIM steps down
    and up from node i with eps(x_i, t_i).

    The inversion needs x of the node above the one at which decoding begins, hence one evaluation
    more than DDIM. Above the last node there is none: a step of length zero stands for it, so the
    second state is x_N + (x_{N-1} - D_N(x_N)) / gamma, and the scheme stays exact there too.

    The states are float64 (the network sees them as float32), since rounding would grow by
    1 / gamma a node on the way up. So do the differences between the steps: with gamma 0.8 and
    N = 50 the std of x_t is 5300 instead of 1. At gamma 1 nothing is damped either way: embedded
    faces come back with 84 dB at N = 10 and x_t keeps its std, but an edit's effect on one node is
    carried on undamped; at N = 50 it is 1.28 of the size it has after refined DDIM, at a cosine of
    0.88 (EDICT: 0.76 and 0.99; `benchmarks.inversion_edits`, 4 faces).
    """

    gamma: float = 1.0

    def inversion_evaluations(self, last: int) -> int:
        """One a node, and one for the node above."""
        return inversion_evaluations("bdia", last)

    @property
    def step_evaluations(self) -> int:
        """One."""
        return step_evaluations("bdia")

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
        """See `lib.sampling.sampler.Sampler`; no noise, so `seeds` decide nothing."""
        below_BLYX = x0_BLYX.double()
        eps_BLYX = predict(x0_BLYX.float(), grid.timestep(1))
        x_BLYX = transfer(below_BLYX, eps_BLYX, grid.alphas[0], grid.alphas[1])
        x, at_last_SBLYX = {}, torch.stack([below_BLYX, x_BLYX])
        for node in range(1, max(last, *wanted, 0) + 1):
            eps_BLYX = predict(x_BLYX.float(), grid.timestep(node))
            down_BLYX = transfer(x_BLYX, eps_BLYX, grid.alphas[node], grid.alphas[node - 1])
            up_BLYX = transfer(x_BLYX, eps_BLYX, grid.alphas[node], _alpha_above(grid, node))
            above_BLYX = up_BLYX + (below_BLYX - down_BLYX) / self.gamma
            if node in wanted:
                x[node] = x_BLYX.float()
            if node == last:
                at_last_SBLYX = torch.stack([x_BLYX, above_BLYX])
            below_BLYX, x_BLYX = x_BLYX, above_BLYX
        return Inversion(at_last_SBLYX, {}, x)

    def step(
        self, steer: Steer, grid: Grid, node: int, states_SBLYX: Tensor, noise_LYX: Tensor | None
    ) -> Tensor:
        """See `lib.sampling.sampler.Sampler`. An edit that changes D_i alone (asymmetric injection)
        enters the second state too, carried up as U would carry it: to the next step it is a state
        from which it came, not a difference to be taken back, and does not ring from node to node.
        """
        x_BLYX, above_BLYX = states_SBLYX
        forward_BLYX, back_BLYX = steer(x_BLYX)
        here, below = grid.alphas[node], grid.alphas[node - 1]
        up_BLYX = transfer(x_BLYX, back_BLYX, here, _alpha_above(grid, node))
        plain_BLYX = transfer(x_BLYX, back_BLYX, here, below)
        down_BLYX = step_mean(x_BLYX, forward_BLYX, back_BLYX, grid, node)
        carried_BLYX = (down_BLYX - plain_BLYX) * sqrt(here / below)
        below_BLYX = down_BLYX + self.gamma * (above_BLYX - up_BLYX)
        return torch.stack([below_BLYX, x_BLYX + carried_BLYX])


def _alpha_above(grid: Grid, node: int) -> float:
    """alpha_bar of the node above; of the last node itself, above which there is none."""
    return grid.alphas[min(node + 1, grid.num_steps)]

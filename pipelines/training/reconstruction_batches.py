"""Batches from which a rectifier learns to reconstruct: half are noised images, half are images on
their way back from DDIM inversion, with the rectifier as it is.

Inverted images are not like noised ones: on few steps much less noise is in them than their
timestep says. A rectifier that has seen noised images alone makes their reconstruction worse.

Shape suffixes: B examples of this worker; L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.fingerprint import sample_seed
from lib.sampling.ddim import inversion, transfer
from lib.sampling.grid import Grid
from pipelines.training.batches import Batch, Plan


class ReconstructionBatches:
    """A row of either half has one of `grids`.

    The first half: an image at a timestep of the grid, with fresh noise. The second half: an image
    is inverted through the grid by the frozen network and decoded with the rectifier, a node with
    every step of the training; then it is another image's turn. Its noise is what lies between x_0
    and x_t: z of x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) z.
    """

    def __init__(
        self,
        plan: Plan,
        denoiser: Denoiser,
        grids: Sequence[Grid],
        *,
        refinements: int,
    ) -> None:
        self._plan = plan = replace(plan, batch_size=plan.batch_size // 2)
        self._denoiser = denoiser
        self._refinements = refinements
        size = plan.batch_size // plan.workers
        self._places = range(plan.rank * size, (plan.rank + 1) * size)
        self._grids = [grids[place % len(grids)] for place in self._places]
        self.cycle = lcm(*(grid.num_steps for grid in grids))
        self._x_BLYX: list[Tensor] = [torch.empty(0)] * size
        self._nodes: list[int] = [0] * size
        """At which the rows are."""

    def batch(self, step: int) -> Batch:
        """See `Batches`."""
        plan, index = self._plan, []
        for row, (place, grid) in enumerate(zip(self._places, self._grids, strict=True)):
            passage, done = divmod(step, grid.num_steps)
            index.append(self._example(place, passage))
            self._nodes[row] = grid.num_steps - done
            if done == 0:
                x0_BLYX = plan.examples.latents(index[-1:]).to(plan.device)
                self._x_BLYX[row] = self._inverted(grid, x0_BLYX)
        at = list(zip(self._grids, self._nodes, strict=True))
        alpha_B111 = _column([grid.alphas[node] for grid, node in at], plan.device)
        x_BLYX = torch.cat(self._x_BLYX)
        x0_BLYX = plan.examples.latents(index).to(plan.device)
        noise_BLYX = (x_BLYX - alpha_B111.sqrt() * x0_BLYX) / (1 - alpha_B111).sqrt()
        timesteps = [grid.timestep(node) for grid, node in at]
        returning = plan.batch(index, x_BLYX, timesteps, noise_BLYX)
        return _joined(self._noised(step), returning)

    def _noised(self, step: int) -> Batch:
        drawn = self._plan.draw(step)
        places = zip(self._grids, drawn.share, strict=True)
        timesteps = [grid.timesteps[int(share * grid.num_steps)] for grid, share in places]
        return self._plan.noised(drawn, timesteps)

    @torch.no_grad()
    def carry(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> None:
        """A step down with the rectifier's prediction."""
        size = len(self._x_BLYX)
        at = list(zip(self._grids, self._nodes, strict=True))
        above = _column([grid.alphas[node] for grid, node in at], self._plan.device)
        below = _column([grid.alphas[node - 1] for grid, node in at], self._plan.device)
        down_BLYX = transfer(batch.x_BLYX[-size:], edited_BLYX[-size:], above, below)
        self._x_BLYX = list(down_BLYX.split(1))

    def _example(self, place: int, passage: int) -> int:
        seed = str(self._plan.seed)
        return sample_seed(seed, f"inversion {place}", passage) % self._plan.examples.count

    @torch.no_grad()
    def _inverted(self, grid: Grid, x0_BLYX: Tensor) -> Tensor:
        steps = inversion(
            self._denoiser.predict,
            grid,
            x0_BLYX,
            last=grid.num_steps,
            refinements=self._refinements,
        )
        *_, (_, top_BLYX) = steps
        return top_BLYX


def _column(alphas: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(alphas, device=device).view(-1, 1, 1, 1)


def _joined(one: Batch, two: Batch) -> Batch:
    """The rows of both; neither has counterfactuals."""
    if one.noise_BLYX is None or two.noise_BLYX is None:
        raise ValueError("expected batches with noise")
    return Batch(
        x_BLYX=torch.cat([one.x_BLYX, two.x_BLYX]),
        t_B=torch.cat([one.t_B, two.t_B]),
        alpha_B111=torch.cat([one.alpha_B111, two.alpha_B111]),
        x0_BLYX=torch.cat([one.x0_BLYX, two.x0_BLYX]),
        image_BCHW=torch.cat([one.image_BCHW, two.image_BCHW]),
        target_BCHW=None,
        noise_BLYX=torch.cat([one.noise_BLYX, two.noise_BLYX]),
    )

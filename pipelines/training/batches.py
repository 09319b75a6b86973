"""Batches of a training: x_t of examples at timesteps, noised, inverted, or carried along the
edited trajectory.

Shape suffixes: B examples of this worker; L, Y, X of the latent; C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib.sampling.ddim_sampler import step_mean
from lib.sampling.grid import Grid
from pipelines.training.draws import Draw, draw
from pipelines.training.example_store import Examples


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything float32, on the model's device."""

    x_BLYX: Tensor
    t_B: Tensor
    """int64."""
    alpha_B111: Tensor
    """alpha_bar of each timestep."""
    x0_BLYX: Tensor
    """The clean latent."""
    image_BCHW: Tensor
    target_BCHW: Tensor | None
    noise_BLYX: Tensor | None
    """What was added to x_0; None where x_t was inverted."""

    def __len__(self) -> int:
        return len(self.x_BLYX)


@dataclass(frozen=True, slots=True)
class Plan:
    """What all batches of a training have in common."""

    examples: Examples
    grid: Grid
    alphas_T: Tensor
    """alpha_bar of every training timestep, float32."""
    nodes: tuple[int, ...]
    """Of the window, descending; inverted states are at these."""
    seed: int
    batch_size: int
    """Of all workers together."""
    rank: int
    workers: int
    device: torch.device

    def draw(self, step: int) -> Draw:
        """This worker's part of a step's batch."""
        whole = draw(self.seed, step, examples=self.examples.count, batch_size=self.batch_size)
        return whole.part(self.rank, self.workers)

    def batch(
        self, index: Sequence[int], x_BLYX: Tensor, timesteps: Sequence[int], noise: Tensor | None
    ) -> Batch:
        """With the images of the examples."""
        t_B = torch.tensor(list(timesteps))
        targets = self.examples.targets(index)
        return Batch(
            x_BLYX=x_BLYX.to(self.device),
            t_B=t_B.to(self.device),
            alpha_B111=self.alphas_T[t_B].view(-1, 1, 1, 1).to(self.device),
            x0_BLYX=self.examples.latents(index).to(self.device),
            image_BCHW=self.examples.images(index).to(self.device),
            target_BCHW=None if targets is None else targets.to(self.device),
            noise_BLYX=None if noise is None else noise.to(self.device),
        )


class Batches(Protocol):
    """Where the batches of the steps come from."""

    cycle: int
    """Steps after which nothing of the batches before is needed: only there a training can be
    interrupted without a trace.
    """

    def batch(self, step: int) -> Batch:
        """Of a step; steps are asked for in order from a multiple of `cycle`."""
        ...

    def carry(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> None:
        """Take note of what the network predicted for the batch, without and with the editor."""
        ...


class NoisedBatches:
    """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) z, z fresh (Hou et al. 2023, algorithm 1), at
    any timestep of the window, or at its grid timesteps alone.
    """

    cycle = 1

    def __init__(self, plan: Plan, window: tuple[int, int], *, on_grid: bool) -> None:
        self._plan = plan
        self._window = window
        self._on_grid = on_grid

    def batch(self, step: int) -> Batch:
        """See `Batches`."""
        plan, drawn = self._plan, self._plan.draw(step)
        t = [self._timestep(share) for share in drawn.share]
        x0_BLYX = plan.examples.latents(drawn.index)
        noise_BLYX = drawn.noise(x0_BLYX.shape[1:])
        alpha_B111 = plan.alphas_T[torch.tensor(t)].view(-1, 1, 1, 1)
        x_BLYX = alpha_B111.sqrt() * x0_BLYX + (1 - alpha_B111).sqrt() * noise_BLYX
        return plan.batch(drawn.index, x_BLYX, t, noise_BLYX)

    def carry(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> None:
        """Nothing is carried."""

    def _timestep(self, share: float) -> int:
        if self._on_grid:
            return self._plan.grid.timestep(self._plan.nodes[int(share * len(self._plan.nodes))])
        high, low = min(self._window[0], len(self._plan.alphas_T) - 1), self._window[1]
        return low + int(share * (high - low + 1))


class InvertedBatches:
    """x_t where DDIM inversion takes the image, at the grid timesteps of the window."""

    cycle = 1

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def batch(self, step: int) -> Batch:
        """See `Batches`."""
        plan, drawn = self._plan, self._plan.draw(step)
        places = [int(share * len(plan.nodes)) for share in drawn.share]
        x_BLYX = plan.examples.states(drawn.index, places)
        timesteps = [plan.grid.timestep(plan.nodes[place]) for place in places]
        return plan.batch(drawn.index, x_BLYX, timesteps, None)

    def carry(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> None:
        """Nothing is carried."""


class UnrolledBatches:
    """x_t along the edited trajectory: from the inverted image at the top of the window, an
    asymmetric step (Kwon et al. 2023, eq. 5) or a whole one, without gradient, takes a batch from
    node to node while it is trained at each.
    """

    def __init__(self, plan: Plan, *, asymmetric: bool) -> None:
        self._plan = plan
        self._asymmetric = asymmetric
        self.cycle = len(plan.nodes)
        self._next_BLYX: Tensor | None = None

    def batch(self, step: int) -> Batch:
        """See `Batches`."""
        plan = self._plan
        trajectory, place = divmod(step, self.cycle)
        drawn = plan.draw(trajectory)
        node = plan.nodes[place]
        x_BLYX = self._next_BLYX
        if place == 0:
            x_BLYX = plan.examples.states(drawn.index, [0] * len(drawn.index))
        if x_BLYX is None:
            raise ValueError(f"step {step} lies within a trajectory that was not begun")
        timesteps = [plan.grid.timestep(node)] * len(drawn.index)
        return plan.batch(drawn.index, x_BLYX, timesteps, None)

    @torch.no_grad()
    def carry(self, batch: Batch, plain_BLYX: Tensor, edited_BLYX: Tensor) -> None:
        """To the node below."""
        grid = self._plan.grid
        node = grid.timesteps.index(int(batch.t_B[0])) + 1
        back_BLYX = plain_BLYX if self._asymmetric else edited_BLYX
        self._next_BLYX = step_mean(batch.x_BLYX, edited_BLYX, back_BLYX, grid, node)
